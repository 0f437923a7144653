"""An order, from radiographs and a generator: ids and seeds, before a network is loaded."""

from pathlib import Path
from typing import Any

from synth_ct.corpus.about import About, Source
from synth_ct.generator import Found, read_generator
from synth_ct.kit.volume import spacing_mm
from synth_ct.pairs.arrays import working_affine
from synth_ct.production.films import Film, Films
from synth_ct.production.order import CorpusRecipe, Item, seed_of, volume_id, way_of
from synth_ct.production.produce import Order


def commission(films: Films, model: Path, recipe: CorpusRecipe) -> Order:
    """One item for each film and sample."""
    found = read_generator(model)
    way = way_of(found.about.recipe, restyled=recipe.restyled, prior_only=recipe.prior_only)
    items, names = [], {}
    for film in films.films:
        for sample in range(recipe.samples):
            item = volume_id(film.sha256, found.fingerprint, way, recipe.seed, sample)
            items.append(_item(film, item, sample, recipe.seed))
            names[item] = film.name
    about = _about(films.about, found, recipe)
    return Order(items=items, set_aside=films.set_aside, about=about, names=names)


def _item(film: Film, item: str, sample: int, root: int) -> Item:
    return Item(
        id=item,
        sample=sample,
        seed=seed_of(root, item),
        radiograph_sha256=film.sha256,
        patient=film.patient,
        finding=film.finding,
        path=str(film.path),
    )


def _about(films: dict[str, Any], found: Found, recipe: CorpusRecipe) -> About:
    size = found.about.recipe.size
    real = films.get("evidence") == found.about.evidence == "real"
    radiographs = Source(
        role="radiographs",
        title=films.get("title", "radiographs"),
        licence=films.get("licence", "unknown"),
        citation=films.get("citation", ""),
        cautions=tuple(films.get("cautions", ())),
    )
    return About(
        kind="generated",
        evidence="real" if real else "phantom",
        generator=found.about.recipe.name,
        model=found.fingerprint,
        trained_on=found.about.trained_on,
        scale=found.about.scale,
        recipe=recipe.model_dump(mode="json"),
        sources=(radiographs, Source(role="training CT", title=found.about.trained_on)),
        shape=(size, size, size),
        spacing_mm=spacing_mm(working_affine(size)),
    )

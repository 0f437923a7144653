"""Make volumes of a finished corpus again, for `repair`: the same item, the same bytes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from synth_ct.corpus import Corpus
from synth_ct.corpus.repair import Made, Maker
from synth_ct.corpus.row import Quarantined, Row
from synth_ct.corpus.sources import read_sources
from synth_ct.generator import read_generator
from synth_ct.kit.volume import Volume, to_int16
from synth_ct.production.maker import LoadMaker, files_of
from synth_ct.production.maker import Maker as Networks
from synth_ct.production.order import CorpusRecipe, Item

PRIOR = "prior"


def maker_of(corpus: Path, model: Path, device: str, *, other_numerics: bool = False) -> Maker:
    """Load the generator that a corpus names; another one is refused."""
    opened = Corpus.open(corpus)
    found = read_generator(model)
    models = {row.model for row in opened.rows()}
    if found.fingerprint not in models:
        raise ValueError(
            f"{corpus} was made by generator {', '.join(sorted(models))} and {found.folder} is "
            f"{found.fingerprint}: name the one that made it"
        )
    paths = read_sources(corpus)
    loaded: dict[bool, Networks] = {}

    def networks(prior_only: bool) -> Networks:
        if prior_only not in loaded:
            asked = opened.about.recipe if opened.about.kind == "generated" else {}
            recipe = CorpusRecipe.model_validate(asked | {"prior_only": prior_only})
            load = LoadMaker(
                model=found.folder, device=device, recipe=recipe, workspace=corpus, noted=False
            )
            loaded[prior_only] = load()
        return loaded[prior_only]

    def regenerate(rows: Sequence[Row]) -> Iterator[Made]:
        ours = [row for row in rows if row.model == found.fingerprint and row.id in paths]
        for prior_only in (False, True):
            group = [row for row in ours if (row.sampler == PRIOR) is prior_only]
            if group:
                yield from _remade(networks(prior_only), group, paths)

    first = any(row.sampler == PRIOR for row in opened.rows())
    return Maker(
        regenerate=regenerate,
        fingerprint=networks(first).fingerprint,
        other_numerics=other_numerics,
    )


def _remade(maker: Networks, rows: Sequence[Row], paths: dict[str, str]) -> Iterator[Made]:
    for start in range(0, len(rows), maker.together):
        some = rows[start : start + maker.together]
        read = [(row, maker.read(_item(row, paths))) for row in some]
        good = [(row, seen) for row, seen in read if not isinstance(seen, Quarantined)]
        made = maker.volumes([seen for _, seen in good]) if good else []
        for (row, _), sampled in zip(good, made, strict=True):
            volume = sampled.volume
            files = files_of(row.id, Volume(to_int16(volume.array_XYZ), volume.affine))
            yield Made(row=row, volume=files.volume, preview=files.preview)


def _item(row: Row, paths: dict[str, str]) -> Item:
    return Item(
        id=row.id,
        sample=row.sample,
        seed=row.seed,
        radiograph_sha256=row.radiograph_sha256,
        patient=row.patient,
        finding=row.finding,
        path=paths[row.id],
    )

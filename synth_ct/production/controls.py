"""The control corpora, made from the generator's own training CT: each answers one objection.

`real`: the CT itself, on the same grid. `real_degraded`: the CT through the autoencoder, which
loses what compression loses and nothing else. `drr`: the generator on the DRRs of its own training
CT: do radiographs of other people add anything? All through the engine that makes every corpus.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from synth_ct.corpus.about import About, Source
from synth_ct.corpus.layout import SOURCES
from synth_ct.corpus.row import Row
from synth_ct.generate import as_volume
from synth_ct.generator import find_generator, open_generator, read_generator
from synth_ct.kit.numerics import fingerprint_of
from synth_ct.kit.recipe import Recipe
from synth_ct.kit.volume import Volume, spacing_mm
from synth_ct.pairs.arrays import Pairs, working_affine
from synth_ct.pairs.disk import open_pairs, subject_of
from synth_ct.production.facts import facts_of, note_numerics
from synth_ct.production.maker import Maker, Sampled, Seen, write_files
from synth_ct.production.order import CorpusRecipe, Item, seed_of
from synth_ct.production.produce import Order, produce
from synth_ct.production.stage import Hands

Control = Literal["real", "real_degraded", "drr"]
WHAT: dict[Control, str] = {
    "real": "CT of the generator's training patients, on its working grid. Not synthetic.",
    "real_degraded": "CT of the generator's training patients, compressed and restored by its "
    "autoencoder. Not generated from radiographs.",
    "drr": "SYNTHETIC: made by a network from projections of its own training CT. Not measured, "
    "not diagnostic.",
}


class ControlRecipe(Recipe):
    """Which control."""

    control: Control
    seed: int = 0


class Numbered(NamedTuple):
    """An item, and which pair it is."""

    item: Item
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadControl:
    """What each worker of a control opens."""

    recipe: ControlRecipe
    pairs: Path
    model: Path | None
    device: str
    workspace: Path

    def __call__(self) -> "ControlMaker":
        """One thread, as everywhere."""
        torch.set_num_threads(1)
        maker = ControlMaker(self)
        facts = facts_of(self.device)
        note_numerics(self.workspace, fingerprint_of(facts), facts)
        return maker


class ControlMaker:
    """Pairs in, volumes of one control out."""

    def __init__(self, load: LoadControl) -> None:
        self._load = load
        self._pairs = open_pairs(load.pairs)
        self._number = {pair.id: n for n, pair in enumerate(self._pairs.rows)}
        self._device = torch.device(load.device)
        self._generator = load.model and open_generator(load.model, self._device)
        self.together = self._generator.models.micro_batch if self._generator else 4
        self._mark = "CT" if load.recipe.control == "real" else "RESTORED CT"
        self._drr: Maker | None = None
        if load.recipe.control == "drr":
            assert self._generator, "the plan gives it one"
            recipe = CorpusRecipe(seed=load.recipe.seed, gate="record", restyled=False)
            self._drr = Maker(self._generator, recipe, load.workspace)

    def read(self, item: Item) -> Numbered:
        """Which pair it is."""
        return Numbered(item, self._number[item.path])

    def volumes(self, films: Sequence[Numbered]) -> Sequence[Sampled | Volume]:
        """As the control says."""
        if self._drr:
            films_NUV = self._pairs.films_NUV
            return self._drr.volumes([Seen(f.item, np.array(films_NUV[f.number])) for f in films])
        if self._load.recipe.control == "real_degraded":
            return self._restored([film.number for film in films])
        affine = working_affine(self._pairs.size)
        return [Volume(np.array(self._pairs.volumes_NXYZ[f.number]), affine) for f in films]

    @torch.inference_mode()
    def _restored(self, numbers: Sequence[int]) -> list[Volume]:
        """decode(embed(ct)), in batches of one size whatever their number."""
        assert self._generator, "the plan gives it one"
        autoencoder = self._generator.models.autoencoder
        filled = [*numbers, *[numbers[-1]] * (self.together - len(numbers))]
        ct_B1XYZ = self._pairs.ct(filled, self._device)
        made = autoencoder.decode(autoencoder.embed(ct_B1XYZ))
        return [as_volume(ct_XYZ) for ct_XYZ in made[: len(numbers), 0]]

    def keep(self, item: Item, made: Sampled | Volume) -> Row:
        """Write it; only what was generated is judged."""
        if isinstance(made, Sampled):
            assert self._drr, "nothing else samples"
            return self._drr.keep(item, made)
        return Row(
            id=item.id,
            radiograph_sha256="",
            patient=item.patient,
            finding="",
            sample=0,
            seed=item.seed,
            model=self._generator.fingerprint if self._generator else "ct",
            sampler=self._load.recipe.control,
            fingerprint=fingerprint_of(facts_of(self._load.device)),
            accepted=True,
            reason="",
            **write_files(self._load.workspace, item.id, made, self._mark),
            shape=made.array_XYZ.shape,
            spacing_mm=spacing_mm(made.affine),
        )


def fill_control(
    recipe: ControlRecipe, pairs: Path, model: Path | None, workspace: Path, hands: Hands
) -> About:
    """Fill a workspace with a control corpus of the training patients."""
    load = LoadControl(
        recipe=recipe,
        pairs=pairs.resolve(),
        model=model and find_generator(model).resolve(),
        device=hands.effort.device,
        workspace=workspace.resolve(),
    )
    order = _order(recipe, open_pairs(pairs), subject_of(pairs), model)
    about = produce(order, workspace.resolve(), load, hands.executor, hands.effort)
    (workspace / SOURCES).unlink(missing_ok=True)  # names pairs, not files a person could look up
    return about


def _order(
    recipe: ControlRecipe, pairs: Pairs, subject: dict[str, str], model: Path | None
) -> Order:
    found = read_generator(model) if model else None
    made_by = found.fingerprint if found else "ct"
    items = []
    for number in pairs.of("train"):
        pair = pairs.rows[number]
        text = f"{recipe.control}/{pair.id}/{made_by}/{recipe.seed}"
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        items.append(
            Item(
                id=name,
                sample=0,
                seed=seed_of(recipe.seed, name),
                radiograph_sha256="",
                patient=pair.patient,
                finding="",
                path=pair.id,
            )
        )
    size = pairs.size
    fields: dict[str, Any] = {
        "kind": "generated",
        "what": WHAT[recipe.control],
        "evidence": subject["evidence"],
        "generator": recipe.control,
        "model": made_by,
        "trained_on": subject["trained_on"],
        "recipe": recipe.model_dump(mode="json"),
        "sources": (Source(role="training CT", title=subject["trained_on"]),),
        "shape": (size, size, size),
        "spacing_mm": spacing_mm(working_affine(size)),
    }
    return Order(items=items, set_aside=(), about=About(**fields), names={})

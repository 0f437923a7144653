"""The stage: corpora in, one encoder out. `scratch` goes through it too, and trains nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from pretrain.alarms import Alarms, watched
from pretrain.arms import Arm, Own, corpora_of
from pretrain.backbones import Backbone, BackboneSizes, Transferred, build
from pretrain.crops import Ahead, Read, of_primitives, of_volumes
from pretrain.encoder import Adaptation, CorpusUsed, Input, write_encoder
from pretrain.learner import BACKBONE, PretrainLearner
from pretrain.objectives import ObjectiveRecipe, build_objective, decoder_used, out_channels
from pretrain.probe import Misses, answer, gain, misses, placed_crops
from synth_ct.cohort import Split
from synth_ct.corpus import Cache, Corpus, Volumes
from synth_ct.kit import ranks
from synth_ct.kit.axes import Grid, Millimetres3
from synth_ct.kit.durable import write_text
from synth_ct.kit.effort import Effort, place_of
from synth_ct.kit.loop import Training, own_slots
from synth_ct.kit.numerics import numerics
from synth_ct.kit.place import Place, fit
from synth_ct.kit.recipe import Recipe, changed
from synth_ct.kit.seeds import seed_for
from synth_ct.kit.volume import WINDOW_HU

PROBE = "probe.json"
PROBED: tuple[Split, Split] = ("train", "val")
"""Fitted on, asked about."""


class Network(Recipe):
    """A backbone and how it is pretrained, whatever it is shown."""

    backbone: BackboneSizes
    objective: ObjectiveRecipe
    transfer: Transferred = "encoder"
    crop: Grid = (96, 96, 96)
    """Voxels; smaller volumes are padded with air."""
    window_hu: tuple[float, float] = WINDOW_HU
    """HU that become [-1, 1]."""
    rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=1e-5, ge=0)
    alarms: Alarms = Alarms()
    probe_crops: int = Field(default=128, ge=0)
    """Of training and of other patients each; 0 asks nothing."""
    training: Training

    @model_validator(mode="after")
    def _only_what_was_trained_is_transferred(self) -> "Network":
        if self.transfer == "all_but_head" and not decoder_used(self.objective):
            raise ValueError(
                f"objective {self.objective.kind} leaves the decoder untrained, so transfer must "
                "be 'encoder'"
            )
        return self


class PretrainRecipe(Recipe):
    """One encoder: which network, on what."""

    network: Network
    arm: Arm | Own
    """`scratch` trains nothing, and takes the network's sizes and transfer alone."""
    evidence: Literal["plumbing", "phantom", "real"]
    spacing_mm: Millimetres3
    """Of the grid that all arms share."""
    volumes: int | None = Field(default=None, ge=1)
    """At most so many training volumes, the same number in every arm."""

    @model_validator(mode="after")
    def _primitives_are_counted(self) -> "PretrainRecipe":
        if self.arm == "primitives" and self.volumes is None:
            raise ValueError(
                "arm primitives makes its volumes, so it must be told how many: set volumes to the "
                "number the other arms have"
            )
        return self


Inputs = Mapping[str, Path]


def pretrain_stage(recipe: PretrainRecipe, workspace: Path, inputs: Inputs, effort: Effort) -> None:
    """Train the backbone, ask it before and after, publish what is transferred."""
    network, scratch = recipe.network, recipe.arm == "scratch"
    place = place_of(workspace, network.training.steps, effort)
    corpora = [Corpus.open(folder) for folder in corpora_of(recipe.arm, inputs)]
    _demand_grid(corpora, recipe.spacing_mm)
    seed = seed_for(network.training.seed, "scratch" if scratch else "backbone")
    backbone = build(network.backbone, out_channels(network.objective), seed).to(place.device)
    backbone.demand_sides(network.crop)
    before = asked(network, corpora, backbone)
    if not scratch:
        _train(recipe, corpora, backbone, place)
    after = None if scratch else asked(network, corpora, backbone)
    if ranks.world()[0] == 0:
        told = answers(before, after, network.training.seed)
        write_text(workspace / PROBE, json.dumps(told, indent=1))
        write_encoder(workspace, backbone, _adaptation(recipe, corpora, effort.device))


def _demand_grid(corpora: Sequence[Corpus], spacing_mm: Millimetres3) -> None:
    for corpus in corpora:
        if not np.allclose(corpus.about.spacing_mm or (0, 0, 0), spacing_mm, rtol=1e-4):
            raise ValueError(
                f"{corpus.folder} has a spacing of {corpus.about.spacing_mm or 'several kinds'} mm "
                f"and the arms are to share {spacing_mm}; make it on that grid, or set spacing_mm"
            )


def _train(
    recipe: PretrainRecipe, corpora: Sequence[Corpus], backbone: Backbone, place: Place
) -> None:
    """In place; the backbone ends with the running average of its weights."""
    network = recipe.network
    training = network.training
    seed = seed_for(training.seed, "heads")
    heads = build_objective(network.objective, backbone, network.crop, seed).to(place.device)
    learner = PretrainLearner(backbone, heads, network.rate, network.weight_decay)
    source = _source(recipe, corpora)
    batches = Ahead(source, training, own_slots(training), place.device)
    alarms = network.alarms
    if training.micro_batch == 1:  # features of one crop cannot differ from one another
        alarms = changed(alarms, least_feature_sd=0.0)
    log = watched(place.log, alarms, training.global_batch)
    try:
        averages = fit(learner, batches, training, replace(place, log=log))
    finally:
        batches.close()
    backbone.load_state_dict(averages[BACKBONE])


def _source(recipe: PretrainRecipe, corpora: Sequence[Corpus]) -> Read:
    """Crop k of the arm; several corpora take turns."""
    network, training = recipe.network, recipe.network.training
    if recipe.arm == "primitives":
        assert recipe.volumes is not None, "demanded by the recipe"
        return of_primitives(network.crop, training.seed, recipe.volumes, network.window_hu)
    count = (training.steps + 1) * training.global_batch
    most = None if recipe.volumes is None else -(-recipe.volumes // len(corpora))
    volumes = [
        Volumes(corpus, "train", cache=Cache(), window_hu=network.window_hu, most=most)
        for corpus in corpora
    ]
    for each, corpus in zip(volumes, corpora, strict=True):
        if most is not None and len(each) < most:
            raise ValueError(
                f"{corpus.folder} has {len(each)} training volumes, and every arm is to see "
                f"{most} of a corpus: set pretraining.volumes lower, or make a larger corpus"
            )
    reads = [of_volumes(each, network.crop, training.seed, count) for each in volumes]
    return lambda k: reads[k % len(reads)](k // len(reads))


# ---- the probe ---------------------------------------------------------------------------------


def asked(network: Network, corpora: Sequence[Corpus], backbone: Backbone) -> Misses | None:
    """Where in its volume is a crop? None where there are no volumes to ask about."""
    if not corpora or network.probe_crops == 0:
        return None
    device = next(backbone.parameters()).device
    seed = seed_for(network.training.seed, "probe")
    known, others = (
        placed_crops(
            corpora[0], split, network.crop, network.probe_crops, seed, network.window_hu
        ).to(device)
        for split in PROBED
    )
    return misses(backbone, known, others)


def answers(before: Misses | None, after: Misses | None, seed: int) -> dict[str, Any]:
    """As `probe.json` holds them: before training, after it, and what it gained."""
    told = {}
    if before is not None:
        told["untrained"] = answer(before, seed)
    if before is not None and after is not None:
        told |= {"trained": answer(after, seed), "gain": gain(before, after, seed)}
    return {when: each._asdict() for when, each in told.items()}


# ---- what is said of it ------------------------------------------------------------------------


def _adaptation(recipe: PretrainRecipe, corpora: Sequence[Corpus], device: str) -> Adaptation:
    network, scratch = recipe.network, recipe.arm == "scratch"
    used = tuple(
        CorpusUsed(name=c.about.generator, digest=c.about.digest, evidence=c.about.evidence)
        for c in corpora
    )
    shapes = {_grid(corpus.about.shape) for corpus in corpora}
    return Adaptation(
        architecture=network.backbone,
        transferred=network.transfer,
        input=Input(
            spacing_mm=recipe.spacing_mm,
            window_hu=network.window_hu,
            crop_XYZ=network.crop,
            volume_XYZ=shapes.pop() if len(shapes) == 1 else None,
        ),
        arm=recipe.arm,
        objective=None if scratch else network.objective.model_dump(mode="json"),
        steps=0 if scratch else network.training.steps,
        seed=network.training.seed,
        corpora=used,
        evidence=recipe.evidence,
        numerics=numerics(device),
    )


def _grid(shape: tuple[int, ...]) -> Grid | None:
    """Of every volume, where they have one in common."""
    if not shape:
        return None
    x, y, z = shape
    return (x, y, z)

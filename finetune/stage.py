"""The stage: an encoder and a fold in, a trained network, its predictions and their scores out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field

from finetune.augment import Augmentation
from finetune.cases import channels_of, open_cases
from finetune.crops import CropRecipe, Crops
from finetune.folds import Fold, Folds
from finetune.learner import NETWORK, SegmentationLearner
from finetune.predict import Inference, predict
from finetune.results import write_scores
from finetune.score import Score, scores
from finetune.shown import Shown, shown_in_pretraining
from pretrain.backbones import Backbone, BackboneSizes, build
from pretrain.encoder import Encoder, Loaded
from synth_ct.cohort import Case, Cohort
from synth_ct.kit.checkpoint import load_module, read_weights
from synth_ct.kit.durable import write_text
from synth_ct.kit.effort import Effort, place_of
from synth_ct.kit.loop import Training
from synth_ct.kit.place import Place, fit, keep
from synth_ct.kit.recipe import Recipe, changed
from synth_ct.kit.seeds import seed_for
from synth_ct.kit.volume import LabelMap, load_labels, save

PREDICTIONS, FIT = "predictions", "fit.json"


class Finetuning(Recipe):
    """How a network is fine-tuned and asked, whatever it was pretrained on."""

    network: str
    """Of the run's pretraining: whose encoders are taken."""
    shown: Shown | None = None
    """Grid and window; None: those of pretraining. Others are a mismatch, and recorded."""
    crop: CropRecipe
    augmentation: Augmentation = Augmentation()
    rate: float = Field(default=1e-4, gt=0)
    encoder_rate: float = Field(default=1.0, gt=0, le=1)
    """Of layers that came from pretraining, as a share of `rate`."""
    weight_decay: float = Field(default=1e-5, ge=0)
    labels: float = Field(default=1.0, gt=0, le=1)
    """Share of the training patients whose labels are there; smaller shares lie in larger."""
    checkpoint: Literal["last"] = "last"
    """There is no other: choosing the best on the fold that is reported is choosing by the test."""
    training: Training
    inference: Inference = Inference()
    tolerance_mm: float = Field(default=2.0, ge=0)
    """Of the surface Dice."""


class FitRecipe(Recipe):
    """One fit: which network from which arm, on which fold of which cases."""

    dataset: str
    arch: str
    arm: str
    fold: int = Field(ge=0)
    seed: int = Field(ge=0)
    evidence: Literal["plumbing", "phantom", "real"]
    backbone: BackboneSizes
    finetuning: Finetuning


class Inputs(NamedTuple):
    """The finished folders a fit reads."""

    cohort: Path
    folds: Path
    cases: Path
    encoder: Path


def inputs_of(dataset: str, inputs: Mapping[str, Path]) -> Inputs:
    """By their names below a root."""
    (encoder,) = (folder for name, folder in inputs.items() if name.startswith("encoder"))
    (cases,) = (f for n, f in inputs.items() if n.startswith(f"cohorts/{dataset}_cases"))
    cohort, folds = inputs[f"cohorts/{dataset}"], inputs[f"cohorts/{dataset}_folds"]
    return Inputs(cohort=cohort, folds=folds, cases=cases, encoder=encoder)


def fit_stage(
    recipe: FitRecipe, workspace: Path, inputs: Mapping[str, Path], effort: Effort
) -> None:
    """Train on the fold's other patients, predict its own, score what was saved."""
    given = inputs_of(recipe.dataset, inputs)
    cohort = Cohort.open(given.cohort)
    fold = Folds.open(given.folds, cohort).fold(recipe.fold, recipe.finetuning.labels)
    encoder = Encoder.open(given.encoder)
    shown = recipe.finetuning.shown or shown_in_pretraining(encoder.adaptation.input)
    network = receiver_of(recipe, cohort.classes)
    loaded = encoder.load_into(network)
    place = place_of(workspace, recipe.finetuning.training.steps, effort)
    network = _trained(recipe, given.cases, shown, fold, (network, loaded), place)
    (workspace / PREDICTIONS).mkdir(exist_ok=True)
    found: list[Score] = []
    files = {}
    for case in fold.test:
        files[case.id], scored = _asked(recipe, network, cohort, case, shown, place)
        found += scored
    write_scores(workspace, found, {case.patient or case.id for case in fold.train})
    write_text(workspace / f"{PREDICTIONS}.json", json.dumps(files, indent=1))
    told = _told(encoder, loaded, shown, fold)
    write_text(workspace / FIT, json.dumps(told, indent=1))


def fit_seed(recipe: FitRecipe, purpose: str) -> int:
    """The same in every arm, so that arms see the same crops and begin with the same head."""
    return seed_for(recipe.seed, f"{purpose}/{recipe.dataset}/{recipe.arch}", recipe.fold)


def receiver_of(recipe: FitRecipe, classes: Mapping[int, str]) -> Backbone:
    """A channel for the background and one for each class."""
    backbone = build(recipe.backbone, len(classes) + 1, fit_seed(recipe, "receiver"))
    backbone.demand_sides(recipe.finetuning.crop.sides)
    return backbone


def _trained(
    recipe: FitRecipe,
    cases: Path,
    shown: Shown,
    fold: Fold,
    begun: tuple[Backbone, Loaded],
    place: Place,
) -> Backbone:
    """With the weights that are kept."""
    network, loaded = begun
    # A quarter faster in both networks' fits on a CPU: docs/results/finetune_speed.md.
    network = network.to(place.device)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    how = recipe.finetuning
    training = changed(how.training, seed=fit_seed(recipe, "training"))
    prepared = open_cases(cases, shown, fold.train, place.device)
    crops = Crops(prepared, how.crop, how.augmentation, training, place.device)
    rates = (how.rate, how.rate * how.encoder_rate)
    learner = SegmentationLearner(network, loaded.keys, rates, how.weight_decay)
    averages = fit(learner, crops, training, place)
    keep(place, NETWORK, averages[NETWORK])
    return open_network(network, place.folder)


def open_network(network: Backbone, folder: Path) -> Backbone:
    """A network of the right sizes takes the weights a fit left, and is ready to be asked."""
    path = folder / f"{NETWORK}.safetensors"
    load_module(network, read_weights(path), path)
    return network.eval()


def _asked(
    recipe: FitRecipe, network: Backbone, cohort: Cohort, case: Case, shown: Shown, place: Place
) -> tuple[str, list[Score]]:
    """Predict a case, save it in the case's own geometry, and score the saved file."""
    how = recipe.finetuning
    predicted = predict(
        network,
        cohort.volume(case),
        shown,
        how.crop.sides,
        how.inference,
        place.device,
    )
    path = place.folder / PREDICTIONS / f"{case.id}.nii.gz"
    labels_XYZ = channels_of(cohort.classes)[predicted.array_XYZ]
    sha256 = save(LabelMap(labels_XYZ, predicted.affine), path)
    scored = scores(
        load_labels(path, sha256),
        cohort.labels(case),
        cohort.classes,
        case=case.id,
        patient=case.patient or case.id,
        tolerance_mm=how.tolerance_mm,
    )
    return sha256, scored


def _told(encoder: Encoder, loaded: Loaded, shown: Shown, fold: Fold) -> dict[str, Any]:
    """What arrived from pretraining, what the network was shown, and who was seen."""
    before = shown_in_pretraining(encoder.adaptation.input)
    layers = sorted({key.rpartition(".")[0] for key in loaded.keys})
    return {
        "encoder": encoder.fingerprint,
        "arrived": {"tensors": loaded.tensors, "share": loaded.share, "layers": layers},
        "shown": shown.model_dump(mode="json"),
        "mismatch": None if shown == before else before.model_dump(mode="json"),
        "trained_on": sorted({case.patient or case.id for case in fold.train}),
        "asked_about": sorted({case.patient or case.id for case in fold.test}),
    }

"""How networks are fine-tuned at each size. One function a recipe."""

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field

from finetune.augment import Augmentation
from finetune.crops import CropRecipe
from finetune.folds import FoldsRecipe
from finetune.predict import Inference
from finetune.shown import Shown
from finetune.stage import Finetuning
from synth_ct.generator import FolderName
from synth_ct.kit.loop import Training
from synth_ct.kit.recipe import Recipe, changed
from synth_ct.kit.schedule import Rate

LABELS = (0.1, 0.2, 0.5, 1.0)
"""Shares of the training patients whose labels are there; each lies in the next."""


class Folds(Recipe):
    """Which fits a run makes: every network on every data set, arm, fold and seed."""

    datasets: Mapping[FolderName, FoldsRecipe] = Field(min_length=1)
    """By the name of their cohort."""
    networks: Mapping[FolderName, Finetuning] = Field(min_length=1)
    """By their name in folders and tables."""
    margin_points: float = Field(default=1.0, gt=0)
    """Gaps below it are called negligible."""


def tiny_folds() -> Folds:
    """Seconds a fit: that everything is connected."""
    return Folds(
        datasets=_each(FoldsRecipe()),
        networks={
            "swin": _plain("swin", (64, 32, 32), _training(4, 2)),
            "unet": _plain("unet", (32, 32, 32), _training(20, 2), rate=3e-3),
        },
    )


def study_folds() -> Folds:
    """Seconds of one core a fit, and enough to learn: small crops, around organs."""
    cosine = _training(200, 8, warmup=20)
    return Folds(
        datasets=_each(FoldsRecipe()),
        networks={"unet": _plain("unet", (16, 16, 16), cosine, rate=3e-3)},
    )


def parity_folds() -> Folds:
    """The study's, beside the same network in another window than it was pretrained in."""
    own = study_folds().networks["unet"]
    wide = changed(own, shown=Shown(spacing_mm=(10.0, 10.0, 10.0)))
    return changed(study_folds(), networks={"unet": own, "unet_wide": wide})


def small_folds() -> Folds:
    """64 voxels: a GPU for a minute or two a fit."""
    cosine = _training(2_000, 4, warmup=50, precision="bfloat16")
    return Folds(
        datasets=_each(FoldsRecipe()),
        networks={
            "swin": _plain("swin", (64, 64, 64), cosine, rate=4e-4),
            "unet": _plain("unet", (64, 64, 64), cosine, rate=1e-3),
        },
    )


def paper_folds() -> Folds:
    """50,000 iterations of 4 crops of 96 voxels, on the grid and window of pretraining."""
    cosine = _training(50_000, 4, warmup=500, precision="bfloat16")
    return Folds(
        datasets=_each(FoldsRecipe()),
        networks={
            "swin": _official("swin", cosine),
            "unet": _official("unet", cosine),
        },
    )


def paper_holdout() -> Mapping[str, FoldsRecipe]:
    """As the paper seems to say: 25 cases in 5 folds, 5 and 7 others held out."""
    kept = {"bcv": 5, "spleen": 7}
    return {
        name: FoldsRecipe(protocol="paper_holdout", held_out=held) for name, held in kept.items()
    }


def with_fewer_labels(folds: Folds, network: str, names: Iterable[str]) -> Folds:
    """One way of fine-tuning for each encoder of `names`, with shares of the labels."""
    one = folds.networks[network]
    return changed(
        folds,
        networks={
            f"{name}_l{round(100 * share)}": changed(one, network=name, labels=share)
            for name in names
            for share in LABELS
        },
    )


def _each(recipe: FoldsRecipe) -> Mapping[str, FoldsRecipe]:
    return {"bcv": recipe, "spleen": recipe}


def _official(network: str, training: Training) -> Finetuning:
    """Swin UNETR's recipe for BTCV: crops, augmentation, rate, decay, overlap."""
    return Finetuning(
        network=network,
        crop=CropRecipe(sides=(96, 96, 96)),
        rate=1e-4,
        weight_decay=1e-5,
        training=training,
        inference=Inference(overlap=0.5),
    )


def _plain(
    network: str, sides: tuple[int, int, int], training: Training, rate: float = 1e-3
) -> Finetuning:
    """For phantoms: organs take turns by class, and left stays left."""
    return Finetuning(
        network=network,
        crop=CropRecipe(sides=sides, of_a_case=1, around_organs=0.8, organ_by="classes"),
        augmentation=Augmentation(flipped=("z",), turn=0),
        rate=rate,
        training=training,
    )


def _training(
    steps: int,
    batch: int,
    *,
    warmup: int = 0,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> Training:
    return Training(
        seed=0,  # each fit has its own
        steps=steps,
        global_batch=batch,
        micro_batch=batch,
        rate=Rate(shape="cosine", warmup_steps=warmup),
        clip_norm=1.0,
        average_decay=0.0,
        precision=precision,
    )

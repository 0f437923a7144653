"""The autoencoder's training: one forward pass a batch, shared by generator and discriminators.

L     = l1 L_rec + l2 L_perceptual + l3 L_codebook + l4 w L_adv         Eq. 4
L_adv = alpha L_slice + beta L_volume                                   Eq. 3
w     = |d (l1 L_rec + l2 L_perceptual) / d last| / |d L_adv / d last|  at the decoder's last layer
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from synth_ct.kit.checkpoint import load_weights
from synth_ct.kit.loop import Training
from synth_ct.kit.place import Place, fit, keep
from synth_ct.kit.recipe import Recipe
from synth_ct.kit.seeds import numpy_random, seed_for
from synth_ct.models.autoencoder import Autoencoder, AutoencoderSizes
from synth_ct.models.discriminators import (
    AdversarialForm,
    SliceDiscriminator,
    VolumeDiscriminator,
    adversarial_loss,
    generator_loss,
    random_slices,
)
from synth_ct.models.perceptual import Perceptual, perceptual_distance
from synth_ct.pairs.arrays import Pairs, drawn

AUTOENCODER = "autoencoder"
GENERATOR, DISCRIMINATOR = "generator", "discriminator"
BETAS = (0.5, 0.9)
SLICE, VOLUME = "slice_discriminator", "volume_discriminator"


class Adversary(Recipe):
    """The discriminators, what they weigh, and the step at which they begin."""

    form: AdversarialForm = "log"
    start: int = Field(ge=0)
    """Steps before this one have no adversarial loss, and the discriminators rest."""
    slice_weight: float = Field(default=1.0, gt=0)
    """alpha"""
    volume_weight: float = Field(default=1.0, gt=0)
    """beta"""
    slices: int = Field(default=1, ge=1)
    """Of each plane of each volume, drawn for the slice discriminator."""
    width: int = Field(default=64, ge=1)
    layers: int = Field(default=3, ge=1)
    rate: float = Field(default=2e-4, gt=0)


class AutoencoderRecipe(Recipe):
    """How an autoencoder is trained; sizes, rate, steps and batch default to the paper's."""

    sizes: AutoencoderSizes = AutoencoderSizes()
    reconstruction_weight: float = Field(default=1.0, gt=0)
    """lambda 1, of the mean absolute error."""
    perceptual: Perceptual = "none"
    perceptual_weight: float = Field(default=1.0, ge=0)
    """lambda 2"""
    perceptual_slices: int = Field(default=1, ge=1)
    """Of each plane of each volume."""
    codebook_weight: float = Field(default=1.0, ge=0)
    """lambda 3, of the quantiser's own loss."""
    adversarial_weight: float = Field(default=1.0, ge=0)
    """lambda 4"""
    adversary: Adversary | None = None
    """None: no discriminators, and one phase a step."""
    crop: int | None = Field(default=None, gt=0)
    """Voxels a side of a random part of each volume. None: the whole."""
    rate: float = Field(default=2e-4, gt=0)
    training: Training = Training(seed=0, steps=80_000, global_batch=2, micro_batch=1)

    @model_validator(mode="after")
    def _adversary_within_the_run(self) -> "AutoencoderRecipe":
        if self.adversary is None:
            return self
        if self.adversary.start >= self.training.steps:
            raise ValueError(
                f"the discriminators would start at step {self.adversary.start} of "
                f'{self.training.steps}, so never; start earlier, or say adversary = "none"'
            )
        if self.training.precision == "float16":
            raise ValueError(
                "the adaptive weight compares gradients that float16 would round to zero; "
                "train with bfloat16 or float32"
            )
        return self

    def demand_fit(self, size: int) -> None:
        """Refuse crops, or whole volumes of so many voxels a side, that give no whole latent."""
        side, factor = self.crop or size, self.sizes.downsampling
        if side > size or side % factor:
            raise ValueError(
                f"crops of {side} voxels a side cannot be taken from volumes of {size} for a "
                f"latent {factor} times smaller; use a multiple of {factor}, at most {size}"
            )


class AutoencoderBatch(NamedTuple):
    """CTs, and the step they belong to."""

    ct_B1XYZ: Tensor
    step: int


class AutoencoderLearner:
    """Phase `generator`, and with an adversary phase `discriminator`."""

    def __init__(self, recipe: AutoencoderRecipe, device: torch.device) -> None:
        self.recipe = recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(recipe.training.seed, "weights/autoencoder"))
            self.autoencoder = Autoencoder(recipe.sizes).to(device)
            self.discriminators = _discriminators(recipe.adversary, device)
        self.perceptual = perceptual_distance(recipe.perceptual)
        if self.perceptual is not None:
            self.perceptual.to(device)
        self.modules: Mapping[str, nn.Module] = {
            AUTOENCODER: self.autoencoder,
            **self.discriminators,
        }
        self.averaged: Sequence[str] = (AUTOENCODER,)
        self.optimisers: dict[str, Optimizer] = {
            GENERATOR: Adam(self.autoencoder.parameters(), recipe.rate, BETAS)
        }
        if recipe.adversary:
            judges = [p for d in self.discriminators.values() for p in d.parameters()]
            self.optimisers[DISCRIMINATOR] = Adam(judges, recipe.adversary.rate, BETAS)
        self._kept: dict[int, tuple[AutoencoderBatch, Tensor]] = {}

    def losses(
        self, phase: str, batch: AutoencoderBatch, generator: torch.Generator, /
    ) -> Mapping[str, Tensor]:
        """Of one micro-batch; phase `discriminator` judges what phase `generator` made of it."""
        if phase == GENERATOR:
            return self._generator_losses(batch, generator)
        return self._discriminator_losses(batch, generator)

    def _generator_losses(
        self, batch: AutoencoderBatch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        recipe, quantiser = self.recipe, self.autoencoder.quantiser
        quantiser.begin_step(batch.step, recipe.training.seed)
        made_B1XYZ, latent = self.autoencoder(batch.ct_B1XYZ, generator)
        error = functional.l1_loss(made_B1XYZ, batch.ct_B1XYZ)
        likeness = recipe.reconstruction_weight * error
        row = {"reconstruction": error, "codebook": latent.loss, **quantiser.usage()}
        if self.perceptual is not None:
            row["perceptual"] = self._perceptual_loss(batch.ct_B1XYZ, made_B1XYZ, generator)
            likeness = likeness + recipe.perceptual_weight * row["perceptual"]
        total = likeness + recipe.codebook_weight * latent.loss
        if self._judged(batch):
            self._kept[id(batch)] = (batch, made_B1XYZ.detach())
            row["adversarial"] = self._adversarial_loss(made_B1XYZ, generator)
            last = self.autoencoder.last_weight
            row["adaptive_weight"] = adaptive_weight(likeness, row["adversarial"], last)
            weight = recipe.adversarial_weight * row["adaptive_weight"]
            total = total + weight * row["adversarial"]
        return {"total": total, **row}

    def _perceptual_loss(
        self, ct_B1XYZ: Tensor, made_B1XYZ: Tensor, generator: torch.Generator
    ) -> Tensor:
        assert self.perceptual is not None
        ours, theirs = _same_slices(made_B1XYZ, ct_B1XYZ, self.recipe.perceptual_slices, generator)
        distance: Tensor = self.perceptual(ours, theirs)
        return distance

    def _adversarial_loss(self, made_B1XYZ: Tensor, generator: torch.Generator) -> Tensor:
        """alpha L_slice + beta L_volume, for the decoder."""
        adversary = self._adversary
        slices = random_slices(made_B1XYZ, adversary.slices, generator)
        views = {SLICE: (slices, adversary.slice_weight)}
        views[VOLUME] = (made_B1XYZ, adversary.volume_weight)
        terms = [
            weight * generator_loss(adversary.form, self.discriminators[name](view))
            for name, (view, weight) in views.items()
        ]
        return torch.stack(terms).sum()

    def _discriminator_losses(
        self, batch: AutoencoderBatch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        if not self._judged(batch):  # a leaf of its own: no discriminator gets a gradient
            return {"total": torch.zeros((), device=batch.ct_B1XYZ.device, requires_grad=True)}
        adversary = self._adversary
        kept, made_B1XYZ = self._kept.pop(id(batch))
        assert kept is batch, "the discriminator phase comes after its generator phase"
        slices = _same_slices(made_B1XYZ, batch.ct_B1XYZ, adversary.slices, generator)
        views = {SLICE: slices, VOLUME: (made_B1XYZ, batch.ct_B1XYZ)}
        row = {
            name: _told_apart(self.discriminators[name], adversary.form, made, real)
            for name, (made, real) in views.items()
        }
        return {"total": torch.stack(list(row.values())).sum(), **row}

    def _judged(self, batch: AutoencoderBatch) -> bool:
        adversary = self.recipe.adversary
        return adversary is not None and batch.step >= adversary.start

    @property
    def _adversary(self) -> Adversary:
        assert self.recipe.adversary is not None
        return self.recipe.adversary


# ---- the parts of the loss ---------------------------------------------------------------------


def _discriminators(adversary: Adversary | None, device: torch.device) -> dict[str, nn.Module]:
    if adversary is None:
        return {}
    width, layers = adversary.width, adversary.layers
    return {
        SLICE: SliceDiscriminator(width, layers).to(device),
        VOLUME: VolumeDiscriminator(width, layers).to(device),
    }


def _told_apart(
    discriminator: nn.Module, form: AdversarialForm, made: Tensor, real: Tensor
) -> Tensor:
    """Mean of the losses of real and made, for the discriminator."""
    of_real = adversarial_loss(form, discriminator(real), real=True)
    of_made = adversarial_loss(form, discriminator(made), real=False)
    return (of_real + of_made) / 2


def _same_slices(
    first_B1XYZ: Tensor, second_B1XYZ: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The same random slices of both."""
    slices_N2HW = random_slices(torch.cat([first_B1XYZ, second_B1XYZ], 1), count, generator)
    return slices_N2HW[:, :1], slices_N2HW[:, 1:]


def adaptive_weight(likeness: Tensor, adversarial: Tensor, last_weight: Tensor) -> Tensor:
    """w = |d likeness / d last| / |d adversarial / d last|: neither drowns the other."""
    (ours,) = torch.autograd.grad(likeness, last_weight, retain_graph=True)
    (theirs,) = torch.autograd.grad(adversarial, last_weight, retain_graph=True)
    ratio: Tensor = ours.norm() / (theirs.norm() + 1e-4)
    return ratio.clamp(max=1e4).detach()


# ---- training ----------------------------------------------------------------------------------


def train_autoencoder(recipe: AutoencoderRecipe, pairs: Pairs, place: Place) -> None:
    """Train on the part `train`; leave the averaged weights in the place."""
    recipe.demand_fit(pairs.size)
    learner, side = AutoencoderLearner(recipe, place.device), recipe.crop or pairs.size
    numbers, training = pairs.of("train"), recipe.training

    def batches(step: int, slot: int) -> AutoencoderBatch:
        chosen = drawn(training.seed, "autoencoder", step, slot, training.micro_batch, numbers)
        random = numpy_random(training.seed, "crop", f"{step}/{slot}")
        return AutoencoderBatch(cropped(pairs.ct(chosen, place.device), side, random), step)

    averages = fit(learner, batches, training, place)
    keep(place, AUTOENCODER, averages[AUTOENCODER])


def cropped(ct_B1XYZ: Tensor, side: int, random: np.random.Generator) -> Tensor:
    """A cube of each volume, anywhere inside it."""
    free = np.array(ct_B1XYZ.shape[2:]) - side
    starts_B3 = random.integers(0, free + 1, (len(ct_B1XYZ), 3)).tolist()
    parts = [
        ct_1XYZ[:, x : x + side, y : y + side, z : z + side]
        for ct_1XYZ, (x, y, z) in zip(ct_B1XYZ, starts_B3, strict=True)
    ]
    return torch.stack(parts)


def load_autoencoder(recipe: AutoencoderRecipe, folder: Path, device: torch.device) -> Autoencoder:
    """The weights that `train_autoencoder` left there, ready to encode and decode."""
    autoencoder = Autoencoder(recipe.sizes)
    load_weights(folder / f"{AUTOENCODER}.safetensors", autoencoder)
    return autoencoder.to(device).eval()

"""The denoiser: taught latents of CTs that are encoded once, and never again.

Autoencoder and prior are frozen and nothing is augmented, so every latent and every prior is known
before the first step; encoding them anew each step would be two thirds of the arithmetic. Their
scale is measured, not assumed, and travels with the weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW, Optimizer

from synth_ct.diffusion import DiffusionRecipe, training_pair
from synth_ct.kit.checkpoint import load_weights
from synth_ct.kit.loop import Training
from synth_ct.kit.place import Place, Told, fit, keep
from synth_ct.kit.recipe import Recipe
from synth_ct.kit.seeds import seed_for
from synth_ct.learners.prior import AT_ONCE, embedded
from synth_ct.models.autoencoder import Autoencoder
from synth_ct.models.denoiser import Denoiser, DenoiserSizes
from synth_ct.models.progressive_encoder import ProgressiveEncoder
from synth_ct.pairs.arrays import Pairs, drawn, in_parts

DENOISER = "denoiser"
LOSSES = {"l1": functional.l1_loss, "l2": functional.mse_loss}
SMALLEST_SD = 1e-4
"""A channel that says the same everywhere is shifted, not blown up."""


class DenoiserRecipe(Recipe):
    """How a denoiser is trained; the defaults are the paper's."""

    sizes: DenoiserSizes = DenoiserSizes()
    diffusion: DiffusionRecipe = DiffusionRecipe()
    loss: Literal["l1", "l2"] = "l1"
    rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    training: Training = Training(
        seed=0, steps=100_000, global_batch=8, micro_batch=4, average_decay=0.9999
    )


# ---- the model ---------------------------------------------------------------------------------


class Scale(NamedTuple):
    """Mean and standard deviation of each channel, shaped to meet BCXYZ."""

    mean_C111: Tensor
    sd_C111: Tensor


def measured(z_NCXYZ: Tensor) -> Scale:
    """Over all items and voxels, in float64: a sum of a hundred million numbers."""
    mean_C, sd_C = [], []
    for channel in z_NCXYZ.unbind(1):
        sd, mean = torch.std_mean(channel.double(), correction=0)
        mean_C.append(mean.float())
        sd_C.append(sd.float().clamp(min=SMALLEST_SD))
    return Scale(torch.stack(mean_C).view(-1, 1, 1, 1), torch.stack(sd_C).view(-1, 1, 1, 1))


class ConditionedDenoiser(nn.Module):
    """A denoiser, and the scales of the latents and priors it was taught."""

    latent_mean: Tensor
    latent_sd: Tensor
    prior_mean: Tensor
    prior_sd: Tensor

    def __init__(self, sizes: DenoiserSizes) -> None:
        super().__init__()
        self.denoiser = Denoiser(sizes)
        for what in ("latent", "prior"):
            self.register_buffer(f"{what}_mean", torch.zeros(sizes.latent_channels, 1, 1, 1))
            self.register_buffer(f"{what}_sd", torch.ones(sizes.latent_channels, 1, 1, 1))

    def forward(self, z_BCXYZ: Tensor, time_B: Tensor, prior_BCXYZ: Tensor) -> Tensor:
        """What is to be predicted, in the denoiser's own precision; all is standardised."""
        dtype = self.denoiser.last_norm.weight.dtype
        predicted_BCXYZ: Tensor = self.denoiser(z_BCXYZ.to(dtype), time_B, prior_BCXYZ.to(dtype))
        return predicted_BCXYZ

    def take_scales(self, latent: Scale, prior: Scale) -> None:
        """Keep what was measured."""
        self.latent_mean.copy_(latent.mean_C111)
        self.latent_sd.copy_(latent.sd_C111)
        self.prior_mean.copy_(prior.mean_C111)
        self.prior_sd.copy_(prior.sd_C111)

    def standardise(self, z_BCXYZ: Tensor) -> Tensor:
        """(z - mean) / sd, of an autoencoder's latents."""
        return (z_BCXYZ - self.latent_mean) / self.latent_sd

    def standardise_prior(self, y_BCXYZ: Tensor) -> Tensor:
        """(y - mean) / sd, of a progressive encoder's priors."""
        return (y_BCXYZ - self.prior_mean) / self.prior_sd

    def restore(self, z_BCXYZ: Tensor) -> Tensor:
        """Z sd + mean: what the autoencoder decodes."""
        return z_BCXYZ * self.latent_sd + self.latent_mean


# ---- the learner -------------------------------------------------------------------------------


class DenoiserBatch(NamedTuple):
    """Standardised latents, and their standardised priors."""

    latent_BCXYZ: Tensor
    prior_BCXYZ: Tensor


class DenoiserLearner:
    """One phase: mean |target - prediction|, or its square, at random times."""

    def __init__(self, recipe: DenoiserRecipe, device: torch.device) -> None:
        self.recipe = recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(recipe.training.seed, "weights/denoiser"))
            self.model = ConditionedDenoiser(recipe.sizes).to(device)
        self.modules: Mapping[str, nn.Module] = {DENOISER: self.model}
        self.averaged: Sequence[str] = (DENOISER,)
        optimiser = AdamW(self.model.parameters(), recipe.rate, weight_decay=recipe.weight_decay)
        self.optimisers: Mapping[str, Optimizer] = {DENOISER: optimiser}

    def losses(
        self, phase: str, batch: DenoiserBatch, generator: torch.Generator, /
    ) -> Mapping[str, Tensor]:
        """Of one micro-batch; every item at its own time."""
        clean_BCXYZ, prior_BCXYZ = batch
        device = clean_BCXYZ.device
        noise_BCXYZ = torch.randn(clean_BCXYZ.shape, generator=generator).to(device)
        u_B = torch.rand(len(clean_BCXYZ), generator=generator).to(device)
        pair = training_pair(self.recipe.diffusion, clean_BCXYZ, noise_BCXYZ, prior_BCXYZ, u_B)
        predicted_BCXYZ = self.model(pair.noisy_BCXYZ, pair.time_B, prior_BCXYZ)
        loss = LOSSES[self.recipe.loss](predicted_BCXYZ.float(), pair.target_BCXYZ)
        return {"total": loss}


# ---- training ----------------------------------------------------------------------------------


def train_denoiser(
    recipe: DenoiserRecipe,
    pairs: Pairs,
    autoencoder: Autoencoder,
    prior: ProgressiveEncoder,
    place: Place,
) -> None:
    """Train on the part `train`; leave the averaged weights, with their scales, in the place."""
    numbers, training = pairs.of("train"), recipe.training
    told = place.begin(2 * len(numbers))
    latents_NCXYZ = embedded(autoencoder, pairs, numbers, place.device, told)
    priors_NCXYZ = priors_of(prior, pairs, numbers, place.device, told)
    _demand_fit(recipe.sizes, latents_NCXYZ, priors_NCXYZ)
    learner = DenoiserLearner(recipe, place.device)
    learner.model.take_scales(measured(latents_NCXYZ), measured(priors_NCXYZ))
    latents_NCXYZ = learner.model.standardise(latents_NCXYZ)
    priors_NCXYZ = learner.model.standardise_prior(priors_NCXYZ)

    def batches(step: int, slot: int) -> DenoiserBatch:
        population = np.arange(len(numbers))
        rows = drawn(training.seed, "denoiser", step, slot, training.micro_batch, population)
        chosen = torch.from_numpy(rows).to(place.device)
        return DenoiserBatch(latents_NCXYZ[chosen], priors_NCXYZ[chosen])

    averages = fit(learner, batches, training, place)
    keep(place, DENOISER, averages[DENOISER])


def priors_of(
    prior: ProgressiveEncoder,
    pairs: Pairs,
    numbers: np.ndarray,
    device: torch.device,
    told: Told = lambda done: None,
) -> Tensor:
    """What the frozen progressive encoder makes of these films, each seen once."""
    priors = []
    with torch.no_grad():
        for part in in_parts(numbers, AT_ONCE):
            priors.append(prior(pairs.film(part, device)).y_BCXYZ)
            told(len(part))
    return torch.cat(priors)


def _demand_fit(sizes: DenoiserSizes, latents_NCXYZ: Tensor, priors_NCXYZ: Tensor) -> None:
    """Refuse, before the first step, models that were not made for one another."""
    if latents_NCXYZ.shape != priors_NCXYZ.shape:
        raise ValueError(
            f"the autoencoder's latents are {list(latents_NCXYZ.shape[1:])} and the priors "
            f"{list(priors_NCXYZ.shape[1:])}; train both with the same latent_channels, on the "
            "same pairs"
        )
    if latents_NCXYZ.shape[1] != sizes.latent_channels:
        raise ValueError(
            f"latents have {latents_NCXYZ.shape[1]} channels and the denoiser "
            f"{sizes.latent_channels}; set its latent_channels to {latents_NCXYZ.shape[1]}"
        )


def load_denoiser(
    recipe: DenoiserRecipe, folder: Path, device: torch.device
) -> ConditionedDenoiser:
    """The weights that `train_denoiser` left there, with their scales."""
    model = ConditionedDenoiser(recipe.sizes)
    load_weights(folder / f"{DENOISER}.safetensors", model)
    return model.to(device).eval()

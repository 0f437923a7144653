"""What the denoiser learns: a noisy latent, its time, and the answer wanted."""

from functools import cache
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator

from synth_ct.diffusion import ddpm, flow
from synth_ct.kit.recipe import Recipe


class DiffusionRecipe(Recipe):
    """The way between noise and latents; the defaults are the paper's. Latents have unit variance.

    `places`, `first_beta` and `last_beta` belong to `epsilon`, the others to `flow`.
    """

    objective: Literal["epsilon", "flow"] = "epsilon"
    start: Literal["noise", "prior"] = "noise"
    """Where the way begins; only a flow can begin at the prior."""
    prior_noise: float = Field(default=0.5, ge=0.0)
    """Standard deviation of the noise on the prior where a flow starts there; 0 leaves no choice
    to a sample, so that all samples of a radiograph are the same."""
    places: int = Field(default=1000, ge=2)
    """T."""
    first_beta: float = Field(default=0.0015, gt=0.0, lt=1.0)
    last_beta: float = Field(default=0.0125, gt=0.0, lt=1.0)

    @model_validator(mode="after")
    def _is_possible(self) -> "DiffusionRecipe":
        if self.objective == "epsilon" and self.start == "prior":
            raise ValueError(
                "objective 'epsilon' removes Gaussian noise and cannot start at the prior: "
                "choose objective 'flow', or start 'noise'"
            )
        if self.first_beta > self.last_beta:
            raise ValueError(
                f"noise must grow, but first_beta {self.first_beta} is above last_beta "
                f"{self.last_beta}: exchange them"
            )
        return self


class TrainingPair(NamedTuple):
    """What the network sees, and what it should answer."""

    noisy_BCXYZ: torch.Tensor
    time_B: torch.Tensor
    target_BCXYZ: torch.Tensor


def training_pair(
    recipe: DiffusionRecipe,
    clean_BCXYZ: torch.Tensor,
    noise_BCXYZ: torch.Tensor,
    prior_BCXYZ: torch.Tensor | None,
    u_B: torch.Tensor,
) -> TrainingPair:
    """Noise each item to its own place, u in [0, 1) of the way from data to noise."""
    if recipe.objective == "flow":
        start_BCXYZ = start_of(recipe, noise_BCXYZ, prior_BCXYZ)
        return flow_pair(clean_BCXYZ, start_BCXYZ, u_B)
    return epsilon_pair(recipe, clean_BCXYZ, noise_BCXYZ, u_B)


def epsilon_pair(
    recipe: DiffusionRecipe,
    clean_BCXYZ: torch.Tensor,
    noise_BCXYZ: torch.Tensor,
    u_B: torch.Tensor,
) -> TrainingPair:
    """(alpha_t x + sigma_t eps, t) -> eps, at t = floor(u T)."""
    alpha_T, sigma_T = noise_scales(recipe, u_B.device)
    place_B = (u_B * recipe.places).long()
    alpha_B111, sigma_B111 = (
        per_item(scale_T[place_B], clean_BCXYZ) for scale_T in (alpha_T, sigma_T)
    )
    noisy_BCXYZ = ddpm.add_noise(clean_BCXYZ, noise_BCXYZ, alpha_B111, sigma_B111)
    time_B = place_B * (ddpm.LAST_TIME / (recipe.places - 1))
    return TrainingPair(noisy_BCXYZ, time_B, noise_BCXYZ)


def flow_pair(
    clean_BCXYZ: torch.Tensor, start_BCXYZ: torch.Tensor, u_B: torch.Tensor
) -> TrainingPair:
    """((1 - t) x + t s, t) -> s - x, at t = u."""
    noisy_BCXYZ = flow.between(clean_BCXYZ, start_BCXYZ, per_item(u_B, clean_BCXYZ))
    return TrainingPair(noisy_BCXYZ, flow.time_of(u_B), flow.velocity(clean_BCXYZ, start_BCXYZ))


def start_of(
    recipe: DiffusionRecipe, noise_BCXYZ: torch.Tensor, prior_BCXYZ: torch.Tensor | None
) -> torch.Tensor:
    """Where the way begins, of unit variance where it is noise."""
    if recipe.start == "noise":
        return noise_BCXYZ
    if prior_BCXYZ is None:
        raise ValueError("this diffusion starts at the prior and none was given: pass `prior`")
    return flow.start_from_prior(prior_BCXYZ, noise_BCXYZ, recipe.prior_noise)


@cache
def schedule(recipe: DiffusionRecipe) -> ddpm.Schedule:
    """The noise schedule, worked out once."""
    alpha_bar_T = ddpm.alpha_bar(recipe.first_beta, recipe.last_beta, recipe.places)
    return ddpm.Schedule(ddpm.log_snr(alpha_bar_T))


@cache
def noise_scales(
    recipe: DiffusionRecipe, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha and sigma at every place, kept on the device: sending them would stall each step."""
    alpha_bar_T = ddpm.alpha_bar(recipe.first_beta, recipe.last_beta, recipe.places)
    both_2T = torch.from_numpy(alpha_bar_T), torch.from_numpy(1.0 - alpha_bar_T)
    alpha_T, sigma_T = (scale_T.sqrt().float().to(device) for scale_T in both_2T)
    return alpha_T, sigma_T


def per_item(scale_B: torch.Tensor, like_BCXYZ: torch.Tensor) -> torch.Tensor:
    """One number an item, shaped to multiply it."""
    return scale_B.view(-1, *(1 for _ in like_BCXYZ.shape[1:]))

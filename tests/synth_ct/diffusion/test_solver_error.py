"""Solvers against solutions that are known: one Gaussian in closed form, a mixture by brute force.

The network is replaced by the exact answer. What is left is the error of the solver alone.
"""

import functools

import numpy as np
import pytest
import torch

from synth_ct.diffusion import DiffusionRecipe, SamplerRecipe, sample
from synth_ct.diffusion.samplers import Predict

EPSILON = DiffusionRecipe()
FLOW = DiffusionRecipe(objective="flow")
KEPT_T = np.cumprod(1 - np.linspace(0.0015**0.5, 0.0125**0.5, 1000) ** 2)
LOG_ODDS_T = np.log(KEPT_T / (1 - KEPT_T))


def run(
    diffusion: DiffusionRecipe, chosen: tuple[str, int, str], predict: Predict, start: torch.Tensor
) -> torch.Tensor:
    asked = dict(zip(("name", "evaluations", "spacing"), chosen, strict=True))
    return sample(diffusion, SamplerRecipe.model_validate(asked), predict, lambda: start).double()


def scales(time_B: torch.Tensor) -> tuple[float, float]:
    """alpha and sigma at one time, from the product itself."""
    odds = np.exp(np.interp(time_B[0].item(), np.arange(1000), LOG_ODDS_T))
    return float((odds / (1 + odds)) ** 0.5), float((1 / (1 + odds)) ** 0.5)


# ---- one Gaussian ------------------------------------------------------------------------------

MEAN = torch.tensor([1.0, -0.5, 0.0, 2.0], dtype=torch.float64)
VARIANCE = torch.tensor([0.02, 0.3, 1.0, 2.0], dtype=torch.float64)


def noise_of_gaussian(z: torch.Tensor, time_B: torch.Tensor) -> torch.Tensor:
    alpha, sigma = scales(time_B)
    return sigma * (z.double() - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)


def velocity_of_gaussian(z: torch.Tensor, time_B: torch.Tensor) -> torch.Tensor:
    t = time_B[0].item() / 999
    variance = (1 - t) ** 2 * VARIANCE + t**2
    away = (z.double() - (1 - t) * MEAN) / variance
    return t * away - (MEAN + (1 - t) * VARIANCE * away)


def exact_end(diffusion: DiffusionRecipe, start: torch.Tensor) -> torch.Tensor:
    """The ODE of a Gaussian stretches it: (z - mean) / deviation stays."""
    if diffusion is FLOW:
        return MEAN + VARIANCE.sqrt() * start
    first, last = KEPT_T[-1], KEPT_T[0]
    stretch = ((last * VARIANCE + 1 - last) / (first * VARIANCE + 1 - first)).sqrt()
    return last**0.5 * MEAN + stretch * (start - first**0.5 * MEAN)


def gaussian_error(diffusion: DiffusionRecipe, name: str, evaluations: int, spacing: str) -> float:
    start = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    predict = noise_of_gaussian if diffusion is EPSILON else velocity_of_gaussian
    end = run(diffusion, (name, evaluations, spacing), predict, start)
    return (end - exact_end(diffusion, start.double())).square().mean().sqrt().item()


@pytest.mark.parametrize(
    ("diffusion", "name", "spacing", "order"),
    [
        (EPSILON, "ddim", "karras", 1),
        (EPSILON, "ddim", "uniform", 1),
        (EPSILON, "dpmpp_2m", "karras", 2),
        (EPSILON, "dpmpp_2m", "logsnr", 2),
        (EPSILON, "heun", "karras", 2),
        (FLOW, "euler", "uniform", 1),
        (FLOW, "heun", "uniform", 2),
    ],
)
def test_twice_the_steps_divide_the_error_by_two_to_the_order(
    diffusion: DiffusionRecipe, name: str, spacing: str, order: int
) -> None:
    coarse, fine = (gaussian_error(diffusion, name, n, spacing) for n in (100, 200))
    assert np.log2(coarse / fine) == pytest.approx(order, abs=0.25)
    assert fine < 0.05


def test_ddpm_draws_from_the_target() -> None:
    random = torch.Generator().manual_seed(0)
    samples, wide = 4000, slice(1, None)  # its steps are too coarse for the narrow first one

    def draw() -> torch.Tensor:
        return torch.randn(samples, 4, generator=random)

    all_places = SamplerRecipe(name="ddpm", evaluations=1000)
    z = sample(EPSILON, all_places, noise_of_gaussian, draw).double()
    assert ((z.mean(0) - MEAN).abs() < 4 * (VARIANCE / samples).sqrt()).all()
    assert (z.var(0) / VARIANCE - 1)[wide].abs().max() < 4 * (2 / samples) ** 0.5


def test_ddpm_takes_the_steps_of_its_paper() -> None:
    """z' = (z - beta / sqrt(1 - abar) eps) / sqrt(1 - beta) + sqrt(beta~) xi, written out."""
    places = 12
    beta_T = np.linspace(0.0015**0.5, 0.0125**0.5, places) ** 2
    kept_T = np.cumprod(1 - beta_T)
    drawn = torch.randn(places, 3, 4, generator=torch.Generator().manual_seed(0))
    z = drawn[0].double()
    for turn, place in enumerate(reversed(range(places)), start=1):
        z = (z - beta_T[place] / (1 - kept_T[place]) ** 0.5 * z.sin()) / (1 - beta_T[place]) ** 0.5
        if place:
            variance = beta_T[place] * (1 - kept_T[place - 1]) / (1 - kept_T[place])
            z = z + variance**0.5 * drawn[turn]
    fresh = iter(drawn)
    recipe = DiffusionRecipe(places=places)
    chosen = SamplerRecipe(name="ddpm", evaluations=places)
    ours = sample(recipe, chosen, lambda z, _: z.sin(), lambda: next(fresh))
    torch.testing.assert_close(ours.double(), z, rtol=1e-5, atol=1e-5)


# ---- a mixture: solutions bend between its modes ------------------------------------------------

DIMS, MODES = 64, 8
RANDOM = torch.Generator().manual_seed(0)
MEANS_MD = 0.8 * torch.randn(MODES, DIMS, generator=RANDOM, dtype=torch.float64)
LOW, HIGH = np.log(0.02), np.log(0.5)
EXTENT_MD = torch.rand(MODES, DIMS, generator=RANDOM, dtype=torch.float64)
VARIANCES_MD = (LOW + (HIGH - LOW) * EXTENT_MD).exp()
MIXTURE_START = torch.randn(96, DIMS, generator=RANDOM)


def noise_of_mixture(z: torch.Tensor, time_B: torch.Tensor) -> torch.Tensor:
    """eps = -sigma grad log p."""
    alpha, sigma = scales(time_B)
    variances_MD = alpha**2 * VARIANCES_MD + sigma**2
    away_BMD = z.double()[:, None] - alpha * MEANS_MD
    log_p_BM = -0.5 * (away_BMD**2 / variances_MD + variances_MD.log()).sum(2)
    share_BM1 = log_p_BM.softmax(1)[..., None]
    return sigma * (share_BM1 * away_BMD / variances_MD).sum(1)


@functools.cache
def solution() -> torch.Tensor:
    return run(EPSILON, ("heun", 1000, "logsnr"), noise_of_mixture, MIXTURE_START)


def mixture_errors(name: str, evaluations: int, spacing: str) -> torch.Tensor:
    """Relative RMS error of each sample."""
    end = run(EPSILON, (name, evaluations, spacing), noise_of_mixture, MIXTURE_START)
    away = end - solution()
    return (away.square().mean(1) / solution().square().mean()).sqrt()


def test_fifteen_evaluations_of_dpm_solver_beat_fifty_of_ddim() -> None:
    few, many = mixture_errors("dpmpp_2m", 15, "karras"), mixture_errors("ddim", 50, "uniform")
    assert few.square().mean().sqrt() < 0.5 * many.square().mean().sqrt()
    assert few.median() < 0.5 * many.median()
    assert many.median() < 0.1

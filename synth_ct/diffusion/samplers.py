"""From noise to a latent in a given number of evaluations of the network.

Every solver walks over levels (or times) that are worked out before, in float64 on the host: the
walk itself waits for nothing and decides nothing by what it sees. Products and sums stay separate
operations, so that an item's bits do not depend on its place in a batch; a fused one may round
differently where a vector ends. Latents are never clipped.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from synth_ct.diffusion import ddpm, flow
from synth_ct.diffusion.ddpm import Level, Schedule
from synth_ct.diffusion.objectives import DiffusionRecipe, schedule, start_of
from synth_ct.kit.recipe import Recipe

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(z_BCXYZ, time_B) -> the noise, or the velocity."""
Draw = Callable[[], torch.Tensor]
"""Fresh noise of z's shape and device, each item from its own generator."""
PredictAt = Callable[[torch.Tensor, float], torch.Tensor]
"""The same for one time, in float32."""
Slope = Callable[[torch.Tensor, float], torch.Tensor]
"""dz/ds at (z, s)."""

Spacing = Literal["uniform", "logsnr", "karras"]
SOLVERS = {"epsilon": ("ddpm", "ddim", "dpmpp_2m", "heun"), "flow": ("euler", "heun")}
RHO = 7.0
"""The exponent of Karras' spacing."""


class SamplerRecipe(Recipe):
    """Which solver, and how often it asks the network."""

    name: Literal["ddpm", "ddim", "dpmpp_2m", "euler", "heun"]
    evaluations: int = Field(ge=1)
    """Calls of the network, exactly. A step of Heun takes two; where their number is odd, the last
    step is one of Euler's."""
    spacing: Spacing = "uniform"
    """Even in time, in lambda, or in (sigma / alpha)^(1/7). DPM-Solver++ wants `karras`."""

    @model_validator(mode="after")
    def _is_possible(self) -> "SamplerRecipe":
        if self.name in ("ddpm", "euler") and self.spacing != "uniform":
            raise ValueError(
                f"{self.name} takes steps even in time, not {self.spacing!r}: "
                "choose spacing 'uniform', or the solver dpmpp_2m"
            )
        return self


def demand_match(diffusion: DiffusionRecipe, sampler: SamplerRecipe) -> None:
    """Refuse a solver that does not solve this diffusion."""
    fitting = SOLVERS[diffusion.objective]
    if sampler.name not in fitting:
        raise ValueError(
            f"{sampler.name} does not solve a diffusion of objective {diffusion.objective!r}: "
            f"choose one of {', '.join(fitting)}"
        )
    if diffusion.objective == "flow" and sampler.spacing != "uniform":
        raise ValueError(
            f"spacing {sampler.spacing!r} is one of noise levels, and a flow has times alone: "
            "choose spacing 'uniform'"
        )
    if diffusion.objective == "epsilon" and sampler.evaluations > diffusion.places:
        raise ValueError(
            f"sampler.evaluations is {sampler.evaluations}, and the network learns only the "
            f"{diffusion.places} places of the schedule: choose at most {diffusion.places}"
        )


@torch.no_grad()
def sample(
    diffusion: DiffusionRecipe,
    sampler: SamplerRecipe,
    predict: Predict,
    draw: Draw,
    prior_BCXYZ: torch.Tensor | None = None,
) -> torch.Tensor:
    """A latent an item of the batch; `prior` is needed where the diffusion starts there."""
    demand_match(diffusion, sampler)

    def noise() -> torch.Tensor:
        return draw().float()

    start_BCXYZ = start_of(diffusion, noise(), prior_BCXYZ)
    predict_at = at_one_time(predict, start_BCXYZ)
    if diffusion.objective == "flow":
        return along_flow(sampler, predict_at, start_BCXYZ)
    places = schedule(diffusion)
    if sampler.name == "ddpm":
        return ddpm_walk(start_BCXYZ, predict_at, uniform(places, sampler.evaluations), noise)
    if sampler.name == "heun":
        return heun_in_ratio(start_BCXYZ, predict_at, places, sampler)
    solve = {"ddim": ddim_walk, "dpmpp_2m": dpmpp_2m_walk}[sampler.name]
    return solve(start_BCXYZ, predict_at, levels(places, sampler.spacing, sampler.evaluations + 1))


def at_one_time(predict: Predict, like_BCXYZ: torch.Tensor) -> PredictAt:
    """Tell the network the same time for all items; what it answers is taken in float32."""

    def predict_at(z_BCXYZ: torch.Tensor, time: float) -> torch.Tensor:
        time_B = torch.full(like_BCXYZ.shape[:1], time, device=like_BCXYZ.device)
        return predict(z_BCXYZ, time_B).float()

    return predict_at


# ---- where to stop: from noise to data ---------------------------------------------------------


def levels(places: Schedule, spacing: Spacing, count: int) -> list[Level]:
    """`count` levels, both ends of the schedule among them."""
    by_name = {"uniform": uniform, "logsnr": even_log_snr, "karras": karras}
    return by_name[spacing](places, count)


def uniform(places: Schedule, count: int) -> list[Level]:
    """Even in time."""
    return [places.at_time(float(time)) for time in np.linspace(ddpm.LAST_TIME, 0.0, count)]


def even_log_snr(places: Schedule, count: int) -> list[Level]:
    """Even in lambda."""
    wanted = np.linspace(places.log_snr_T[-1], places.log_snr_T[0], count)
    return [places.at_log_snr(float(log_snr)) for log_snr in wanted]


def karras(places: Schedule, count: int) -> list[Level]:
    """Even in (sigma / alpha)^(1 / rho)."""
    first, last = np.exp(-places.log_snr_T[[-1, 0]] / RHO)
    wanted = -RHO * np.log(np.linspace(first, last, count))
    return [places.at_log_snr(float(log_snr)) for log_snr in wanted]


# ---- solvers of the epsilon objective ----------------------------------------------------------


def ddim_walk(z_BCXYZ: torch.Tensor, predict_at: PredictAt, stops: Sequence[Level]) -> torch.Tensor:
    """z' = alpha' x + sigma' eps, with x = (z - sigma eps) / alpha. Ends at the last level."""
    for now, then in pairwise(stops):
        noise_BCXYZ = predict_at(z_BCXYZ, now.time)
        clean_BCXYZ = ddpm.clean_from_noise(z_BCXYZ, noise_BCXYZ, now)
        z_BCXYZ = ddpm.add_noise(clean_BCXYZ, noise_BCXYZ, then.alpha, then.sigma)
    return z_BCXYZ


def ddpm_walk(
    z_BCXYZ: torch.Tensor, predict_at: PredictAt, stops: Sequence[Level], draw: Draw
) -> torch.Tensor:
    """z' ~ q(z' | z, x), the posterior of the process where x is what the network thinks.

    Every level is asked at; the last answer is x itself.
    """
    for now, then in pairwise(stops):
        noise_BCXYZ = predict_at(z_BCXYZ, now.time)
        clean_BCXYZ = ddpm.clean_from_noise(z_BCXYZ, noise_BCXYZ, now)
        fresh = fresh_noise(now, then)
        kept = math.sqrt(then.sigma**2 - fresh**2)
        z_BCXYZ = ddpm.add_noise(clean_BCXYZ, noise_BCXYZ, then.alpha, kept) + fresh * draw()
    return ddpm.clean_from_noise(z_BCXYZ, predict_at(z_BCXYZ, stops[-1].time), stops[-1])


def fresh_noise(now: Level, then: Level) -> float:
    """sigma_q = sigma' / sigma sqrt(1 - alpha^2 / alpha'^2), the posterior's deviation."""
    return then.sigma / now.sigma * math.sqrt(1.0 - (now.alpha / then.alpha) ** 2)


def dpmpp_2m_walk(
    z_BCXYZ: torch.Tensor, predict_at: PredictAt, stops: Sequence[Level]
) -> torch.Tensor:
    """z' = sigma' / sigma z - alpha' (e^-h - 1) D, with h the step in lambda.

    D = x + h / (2 h_before) (x - x_before): x half a step ahead, drawn out from the step before.
    """
    before: tuple[torch.Tensor, float] | None = None
    for now, then in pairwise(stops):
        noise_BCXYZ = predict_at(z_BCXYZ, now.time)
        clean_BCXYZ = ahead_BCXYZ = ddpm.clean_from_noise(z_BCXYZ, noise_BCXYZ, now)
        h = then.log_snr - now.log_snr
        if before is not None:
            older_BCXYZ, h_before = before
            ahead_BCXYZ = clean_BCXYZ + (clean_BCXYZ - older_BCXYZ) * (h / (2.0 * h_before))
        gain = -then.alpha * math.expm1(-h)
        z_BCXYZ = (then.sigma / now.sigma) * z_BCXYZ + gain * ahead_BCXYZ
        before = clean_BCXYZ, h
    return z_BCXYZ


def heun_in_ratio(
    z_BCXYZ: torch.Tensor, predict_at: PredictAt, places: Schedule, sampler: SamplerRecipe
) -> torch.Tensor:
    """dy/dr = eps(alpha y), with y = z / alpha and r = sigma / alpha."""
    stops = levels(places, sampler.spacing, heun_steps(sampler.evaluations) + 1)
    by_ratio = {stop.ratio: stop for stop in stops}

    def slope(y_BCXYZ: torch.Tensor, ratio: float) -> torch.Tensor:
        level = by_ratio[ratio]
        return predict_at(level.alpha * y_BCXYZ, level.time)

    y_BCXYZ = heun(z_BCXYZ / stops[0].alpha, slope, list(by_ratio), sampler.evaluations)
    return stops[-1].alpha * y_BCXYZ


# ---- solvers of any ODE, and of the flow -------------------------------------------------------


def along_flow(
    sampler: SamplerRecipe, predict_at: PredictAt, start_BCXYZ: torch.Tensor
) -> torch.Tensor:
    """dz/dt = v(z, t), from t = 1 to 0."""

    def slope(z_BCXYZ: torch.Tensor, t: float) -> torch.Tensor:
        return predict_at(z_BCXYZ, flow.time_of(t))

    if sampler.name == "euler":
        return euler(start_BCXYZ, slope, falling(sampler.evaluations))
    return heun(start_BCXYZ, slope, falling(heun_steps(sampler.evaluations)), sampler.evaluations)


def falling(steps: int) -> list[float]:
    """Times from 1 to 0."""
    return [1.0 - step / steps for step in range(steps + 1)]


def heun_steps(evaluations: int) -> int:
    """Two evaluations a step; an odd one pays for the last."""
    return (evaluations + 1) // 2


def euler(z_BCXYZ: torch.Tensor, slope: Slope, stops: Sequence[float]) -> torch.Tensor:
    """z' = z + ds f(z, s)."""
    for now, then in pairwise(stops):
        z_BCXYZ = z_BCXYZ + (then - now) * slope(z_BCXYZ, now)
    return z_BCXYZ


def heun(
    z_BCXYZ: torch.Tensor, slope: Slope, stops: Sequence[float], evaluations: int
) -> torch.Tensor:
    """z' = z + ds (f(z, s) + f(z + ds f(z, s), s')) / 2."""
    for step, (now, then) in enumerate(pairwise(stops)):
        first_BCXYZ = slope(z_BCXYZ, now)
        guess_BCXYZ = z_BCXYZ + (then - now) * first_BCXYZ
        if 2 * step + 1 == evaluations:
            return guess_BCXYZ
        mean_BCXYZ = 0.5 * (first_BCXYZ + slope(guess_BCXYZ, then))
        z_BCXYZ = z_BCXYZ + (then - now) * mean_BCXYZ
    return z_BCXYZ

from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError

from synth_ct.diffusion import DiffusionRecipe, SamplerRecipe, sample
from synth_ct.diffusion.ddpm import Level
from synth_ct.diffusion.objectives import schedule
from synth_ct.diffusion.samplers import Predict, Spacing, demand_match, dpmpp_2m_walk, levels

EPSILON = DiffusionRecipe()
FLOW = DiffusionRecipe(objective="flow")
FROM_PRIOR = DiffusionRecipe(objective="flow", start="prior", prior_noise=0.25)
SOLVERS = [
    *((EPSILON, name) for name in ("ddpm", "ddim", "dpmpp_2m", "heun")),
    *((FLOW, name) for name in ("euler", "heun")),
]
SHAPE = (3, 2, 5, 5, 3)


def sampler(name: str, evaluations: int, spacing: str = "uniform") -> SamplerRecipe:
    asked = {"name": name, "evaluations": evaluations, "spacing": spacing}
    return SamplerRecipe.model_validate(asked)


def linear(z_BCXYZ: torch.Tensor, time_B: torch.Tensor) -> torch.Tensor:
    return z_BCXYZ * 0.7 + time_B.view(-1, 1, 1, 1, 1) * 1e-3


class Recorded:
    """A network that writes down what it is asked."""

    def __init__(self, predict: Predict = linear) -> None:
        self.predict = predict
        self.times: list[float] = []

    def __call__(self, z_BCXYZ: torch.Tensor, time_B: torch.Tensor) -> torch.Tensor:
        assert time_B.shape == z_BCXYZ.shape[:1]
        assert time_B.unique().numel() == 1
        self.times.append(time_B[0].item())
        return self.predict(z_BCXYZ, time_B)


@pytest.mark.parametrize(("diffusion", "name"), SOLVERS)
@pytest.mark.parametrize("evaluations", [1, 2, 3, 8])
def test_the_network_is_asked_exactly_as_often_as_said(
    diffusion: DiffusionRecipe, name: str, evaluations: int
) -> None:
    network = Recorded()
    z = sample(diffusion, sampler(name, evaluations), network, lambda: torch.ones(SHAPE))
    assert len(network.times) == evaluations
    assert z.shape == SHAPE
    assert z.isfinite().all()


@pytest.mark.parametrize(("diffusion", "name"), SOLVERS)
def test_the_first_question_is_asked_where_all_is_noise(
    diffusion: DiffusionRecipe, name: str
) -> None:
    network = Recorded()
    sample(diffusion, sampler(name, 6), network, lambda: torch.ones(SHAPE))
    assert network.times[0] == 999.0
    assert all(0.0 <= time <= 999.0 for time in network.times)


@pytest.mark.parametrize("evaluations", [7, 50, 999, 1000])
def test_ddim_goes_down_evenly_and_never_stands_still(evaluations: int) -> None:
    network = Recorded()
    sample(EPSILON, sampler("ddim", evaluations), network, lambda: torch.ones(1, 1, 1, 1, 1))
    steps = -torch.tensor(network.times, dtype=torch.float64).diff()
    torch.testing.assert_close(steps, torch.full_like(steps, 999 / evaluations), rtol=1e-3, atol=0)


def test_ddpm_with_all_evaluations_visits_every_place_once() -> None:
    network = Recorded()
    sample(EPSILON, sampler("ddpm", 1000), network, lambda: torch.ones(1, 1, 1, 1, 1))
    assert network.times == [float(place) for place in range(999, -1, -1)]


@pytest.mark.parametrize("spacing", ["uniform", "logsnr", "karras"])
def test_levels_fall_from_one_end_of_the_schedule_to_the_other(spacing: Spacing) -> None:
    places = schedule(EPSILON)
    stops = levels(places, spacing, 12)
    assert [stops[0].time, stops[-1].time] == pytest.approx([999.0, 0.0], abs=1e-6)
    assert all(b.log_snr > a.log_snr for a, b in pairwise(stops))
    even = {
        "uniform": [stop.time for stop in stops],
        "logsnr": [stop.log_snr for stop in stops],
        "karras": [stop.ratio ** (1 / 7) for stop in stops],
    }[spacing]
    steps = torch.tensor(even, dtype=torch.float64).diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps))


@pytest.mark.parametrize(("diffusion", "name"), [*SOLVERS, (FROM_PRIOR, "heun")])
def test_an_item_is_the_same_alone_and_in_company(
    diffusion: DiffusionRecipe, name: str, random: torch.Generator
) -> None:
    noise, prior = torch.randn(2, *SHAPE, generator=random)
    together = sample(diffusion, sampler(name, 9), linear, lambda: noise, prior)
    for item in range(len(noise)):
        own = slice(item, item + 1)

        def draw(own: slice = own) -> torch.Tensor:
            return noise[own].clone()

        alone = sample(diffusion, sampler(name, 9), linear, draw, prior[own].clone())
        assert torch.equal(alone[0], together[item])


@pytest.mark.parametrize("name", ["euler", "heun"])
def test_a_straight_line_takes_one_step(name: str, random: torch.Generator) -> None:
    clean, noise = torch.randn(2, *SHAPE, generator=random)
    z = sample(FLOW, sampler(name, 1), lambda *_: noise - clean, lambda: noise)
    torch.testing.assert_close(z, clean)


def test_a_flow_from_the_prior_starts_there_and_stays_diverse(random: torch.Generator) -> None:
    prior, a, b = torch.randn(3, *SHAPE, generator=random)

    def still(z_BCXYZ: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(z_BCXYZ)

    one, other = (
        sample(FROM_PRIOR, sampler("euler", 2), still, lambda noise=noise: noise, prior)
        for noise in (a, b)
    )
    torch.testing.assert_close(one, prior + 0.25 * a)
    torch.testing.assert_close(other, prior + 0.25 * b)


def test_a_flow_from_the_prior_needs_one() -> None:
    with pytest.raises(ValueError, match="pass `prior`"):
        sample(FROM_PRIOR, sampler("euler", 2), linear, lambda: torch.ones(SHAPE))


@pytest.mark.parametrize(("diffusion", "name"), SOLVERS)
def test_a_network_of_half_precision_is_integrated_in_float32(
    diffusion: DiffusionRecipe, name: str
) -> None:
    def half(z_BCXYZ: torch.Tensor, time_B: torch.Tensor) -> torch.Tensor:
        assert z_BCXYZ.dtype == torch.float32
        return linear(z_BCXYZ, time_B).bfloat16()

    def widened(z_BCXYZ: torch.Tensor, time_B: torch.Tensor) -> torch.Tensor:
        return half(z_BCXYZ, time_B).float()

    def draw() -> torch.Tensor:
        return torch.full(SHAPE, 0.3, dtype=torch.float64)

    z, wanted = (sample(diffusion, sampler(name, 4), each, draw) for each in (half, widened))
    assert torch.equal(z, wanted)
    assert z.dtype == torch.float32


def test_dpm_solver_looks_half_a_step_ahead_on_uneven_steps() -> None:
    """Where x moves evenly with lambda, half a step ahead is the middle of the step."""
    first, second, third = stops = [Level(0.0, lam) for lam in (-1.0, 0.0, 0.4)]
    asked = iter(stops)

    def noise(z: torch.Tensor, _: float) -> torch.Tensor:
        level = next(asked)
        return (z - level.alpha * level.log_snr) / level.sigma

    def step(z: torch.Tensor, now: Level, then: Level, clean: float) -> torch.Tensor:
        kept = then.sigma / now.sigma
        return kept * z + (then.alpha - kept * now.alpha) * clean

    start = torch.ones(2, 1)
    wanted = step(step(start, first, second, -1.0), second, third, 0.2)
    torch.testing.assert_close(dpmpp_2m_walk(start, noise, stops), wanted)


def test_large_latents_are_not_clipped() -> None:
    def far(z_BCXYZ: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return torch.full_like(z_BCXYZ, -50.0)

    z = sample(EPSILON, sampler("ddim", 3), far, lambda: torch.zeros(SHAPE))
    assert z.min() > 100.0


@pytest.mark.parametrize(
    ("diffusion", "chosen", "advice"),
    [
        (FLOW, sampler("ddim", 5), "choose one of euler, heun"),
        (FLOW, sampler("ddpm", 5), "choose one of euler, heun"),
        (FLOW, sampler("heun", 5, "karras"), "choose spacing 'uniform'"),
        (EPSILON, sampler("euler", 5), "choose one of ddpm, ddim, dpmpp_2m, heun"),
        (EPSILON, sampler("ddpm", 1001), "choose at most 1000"),
    ],
)
def test_a_solver_of_another_diffusion_is_refused(
    diffusion: DiffusionRecipe, chosen: SamplerRecipe, advice: str
) -> None:
    with pytest.raises(ValueError, match=advice):
        demand_match(diffusion, chosen)
    with pytest.raises(ValueError, match=advice):
        sample(diffusion, chosen, linear, lambda: torch.ones(SHAPE))


@pytest.mark.parametrize("name", ["ddpm", "euler"])
def test_a_spacing_that_a_solver_cannot_take_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="choose spacing 'uniform'"):
        sampler(name, 5, "karras")


def test_sampling_keeps_no_graph() -> None:
    weight = torch.ones((), requires_grad=True)
    z = sample(FLOW, sampler("euler", 2), lambda z, _: z * weight, lambda: torch.ones(SHAPE))
    assert not z.requires_grad


@pytest.mark.parametrize(("diffusion", "name"), SOLVERS)
def test_a_walk_never_looks_at_a_value(diffusion: DiffusionRecipe, name: str) -> None:
    """On the meta device tensors have none; on a GPU, looking would stall every step."""

    def draw() -> torch.Tensor:
        return torch.ones(SHAPE, device="meta")

    z = sample(diffusion, sampler(name, 5), linear, draw)
    assert z.shape == SHAPE

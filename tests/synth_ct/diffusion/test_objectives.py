import numpy as np
import pytest
import torch
from pydantic import ValidationError

from synth_ct.diffusion import DiffusionRecipe, training_pair

EPSILON = DiffusionRecipe()
FLOW = DiffusionRecipe(objective="flow")
FROM_PRIOR = DiffusionRecipe(objective="flow", start="prior", prior_noise=0.25)
SHAPE = (3, 2, 4, 4, 4)


@pytest.fixture
def latents(random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    clean, noise, prior = torch.randn(3, *SHAPE, generator=random)
    return clean, noise, prior


def test_epsilon_noises_each_item_to_its_own_place(latents: tuple[torch.Tensor, ...]) -> None:
    clean, noise, _ = latents
    noisy, time_B, target = training_pair(
        EPSILON, clean, noise, None, torch.tensor([0.0, 0.5, 0.9999])
    )
    assert time_B.tolist() == [0.0, 500.0, 999.0]
    kept_T = np.cumprod(1 - np.linspace(0.0015**0.5, 0.0125**0.5, 1000) ** 2)
    for item, place in enumerate((0, 500, 999)):
        wanted = kept_T[place] ** 0.5 * clean[item] + (1 - kept_T[place]) ** 0.5 * noise[item]
        torch.testing.assert_close(noisy[item], wanted)
    assert target is noise


def test_unit_latents_stay_of_unit_variance(random: torch.Generator) -> None:
    clean, noise = torch.randn(2, 200_000, 1, generator=random)
    noisy = training_pair(EPSILON, clean, noise, None, torch.rand(200_000, generator=random))
    assert noisy.noisy_BCXYZ.var().item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("places", [2, 1000, 1025])
def test_the_greatest_u_is_the_last_place(places: int) -> None:
    recipe = DiffusionRecipe(places=places)
    almost_one_B = torch.full((1,), 1.0 - 2.0**-24)
    pair = training_pair(recipe, torch.ones(1, 1), torch.ones(1, 1), None, almost_one_B)
    assert pair.time_B.item() == pytest.approx(999.0)


def test_a_flow_is_data_at_0_and_its_start_at_1(latents: tuple[torch.Tensor, ...]) -> None:
    clean, noise, _ = latents
    noisy, time_B, target = training_pair(FLOW, clean, noise, None, torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(noisy[0], clean[0])
    torch.testing.assert_close(noisy[1], 0.75 * clean[1] + 0.25 * noise[1])
    torch.testing.assert_close(noisy[2], noise[2])
    assert time_B.tolist() == pytest.approx([0.0, 249.75, 999.0])
    torch.testing.assert_close(target, noise - clean)


def test_a_flow_from_the_prior_starts_there_with_the_noise_asked_for(
    latents: tuple[torch.Tensor, ...],
) -> None:
    clean, noise, prior = latents
    noisy, _, target = training_pair(FROM_PRIOR, clean, noise, prior, torch.ones(3))
    torch.testing.assert_close(noisy, prior + 0.25 * noise)
    torch.testing.assert_close(target, prior + 0.25 * noise - clean)


def test_a_flow_from_the_prior_needs_one(latents: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(ValueError, match="pass `prior`"):
        training_pair(FROM_PRIOR, latents[0], latents[1], None, torch.ones(3))


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        ({"start": "prior"}, "choose objective 'flow'"),
        ({"first_beta": 0.02}, "exchange them"),
        ({"places": 1}, "places"),
        ({"prior_noise": -0.1}, "prior_noise"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict[str, object], advice: str) -> None:
    with pytest.raises(ValidationError, match=advice):
        DiffusionRecipe.model_validate(asked)


@pytest.mark.parametrize("recipe", [EPSILON, FROM_PRIOR])
def test_a_training_pair_never_looks_at_a_value(recipe: DiffusionRecipe) -> None:
    """On the meta device tensors have none; on a GPU, looking would stall every step."""
    clean, noise, prior = torch.ones(3, *SHAPE, device="meta")
    pair = training_pair(recipe, clean, noise, prior, torch.ones(3, device="meta"))
    assert pair.noisy_BCXYZ.shape == SHAPE

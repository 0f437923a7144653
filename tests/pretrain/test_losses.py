"""Losses against references short enough to be read."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from pretrain import losses


def nt_xent_reference(first: np.ndarray, second: np.ndarray, temperature: float) -> float:
    z = np.concatenate([first, second])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    e = np.exp(z @ z.T / temperature) * (1 - np.eye(len(z)))
    other = np.roll(np.arange(len(z)), len(first))
    return float(-np.log(e[np.arange(len(z)), other] / e.sum(1)).mean())


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_equals_five_lines_of_numpy(temperature: float, rng: np.random.Generator) -> None:
    first, second = rng.normal(size=(2, 5, 7))
    ours = losses.nt_xent(torch.tensor(first), torch.tensor(second), temperature)
    assert float(ours) == pytest.approx(nt_xent_reference(first, second, temperature), rel=1e-5)


def test_a_collapsed_embedding_costs_the_log_of_the_number_of_candidates() -> None:
    same = torch.ones(6, 4)
    expected = math.log(losses.candidates(6))
    assert float(losses.nt_xent(same, same, 0.5)) == pytest.approx(expected, rel=1e-6)


def test_nt_xent_does_not_see_the_length_of_an_embedding(random: torch.Generator) -> None:
    first, second = torch.randn(2, 4, 8, generator=random).unbind(0)
    longer = losses.nt_xent(3 * first, second, 0.5)
    assert torch.allclose(longer, losses.nt_xent(first, second, 0.5))


def test_a_masked_mean_charges_masked_voxels_alone_and_items_alike() -> None:
    error = torch.arange(16.0).view(2, 1, 2, 2, 2)
    mask = torch.zeros_like(error, dtype=torch.bool)
    mask[0, 0, 0, 0, :2] = True  # errors 0 and 1
    mask[1, 0, 1] = True  # errors 12 to 15
    assert float(losses.masked_mean(error, mask)) == pytest.approx((0.5 + 13.5) / 2)
    error[0, 0, 1] = math.nan
    assert float(losses.masked_mean(error, mask)) == pytest.approx(7.0)


def test_a_mask_without_a_voxel_costs_nothing() -> None:
    error = torch.ones(1, 1, 2, 2, 2)
    assert float(losses.masked_mean(error, error < 0)) == 0


def test_the_mean_prediction_is_the_item_s_mean_over_its_mask(random: torch.Generator) -> None:
    target = torch.randn(2, 1, 3, 3, 3, generator=random)
    mask = torch.rand(target.shape, generator=random) < 0.5
    guess = losses.mean_prediction(target, mask)
    for item in range(2):
        assert torch.allclose(guess[item], target[item][mask[item]].mean(), atol=1e-6)
    loss = losses.masked_squares(guess, target, mask)
    assert float(losses.over_mean(loss, loss)) == pytest.approx(1)


def test_over_the_mean_of_pure_air_stays_finite() -> None:
    assert math.isfinite(losses.over_mean(torch.tensor(0.5), torch.tensor(0.0)))


def test_dice_is_nothing_for_certainty_and_equals_a_loop(random: torch.Generator) -> None:
    truth = torch.randint(3, (2, 3, 3, 3), generator=random)
    certain = functional.one_hot(truth, 3).movedim(-1, 1) * 100.0
    assert float(losses.dice_loss(certain, truth)) == pytest.approx(0, abs=1e-6)
    logits = torch.randn(2, 3, 3, 3, 3, generator=random)
    share = logits.softmax(1)
    terms = []
    for b in range(2):
        for k in range(3):
            g = (truth[b] == k).float()
            terms.append((2 * (share[b, k] * g).sum() + 1) / (share[b, k].sum() + g.sum() + 1))
    expected = 1 - torch.stack(terms).mean()
    assert torch.allclose(losses.dice_loss(logits, truth), expected)


def test_features_that_do_not_differ_between_items_have_no_sd(random: torch.Generator) -> None:
    one = torch.randn(1, 4, 2, 2, 2, generator=random)
    assert float(losses.feature_sd(one.expand(3, -1, -1, -1, -1))) == pytest.approx(0, abs=1e-7)
    apart = torch.cat([one * 0, one * 0 + 2])
    assert float(losses.feature_sd(apart)) == pytest.approx(1)

"""The probe finds what is in the features, and nothing that is not."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pretrain.backbones import Backbone, UNetSizes, build
from pretrain.probe import Answer, Misses, Placed, answer, features, gain, misses, ridge


class Told(Backbone):
    """A backbone whose features are what its first voxels say."""

    def encode(self, ct_B1XYZ: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (ct_B1XYZ[:, 0, 0, 0, :3].reshape(-1, 3, 1, 1, 1),)

    def decode(self, ct_B1XYZ: torch.Tensor, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        raise AssertionError("a probe decodes nothing")


def crops(count: int, seed: int, *, honest: bool) -> Placed:
    rng = np.random.default_rng(seed)
    place = rng.uniform(-1, 1, (count, 3))
    ct = torch.zeros(count, 1, 4, 4, 4)
    said = place if honest else rng.uniform(-1, 1, (count, 3))
    ct[:, 0, 0, 0, :3] = torch.from_numpy(said).float()
    return Placed(ct, place, rng.integers(0, 12, count))


def asked(*, honest: bool, count: int) -> Answer:
    found = misses(Told(), crops(count, 0, honest=honest), crops(count, 1, honest=honest))
    return answer(found, 0)


def test_features_that_say_where_they_are_are_found_out() -> None:
    found = asked(honest=True, count=60)
    assert found.r2 > 0.99
    assert found.low <= found.r2 <= found.high


def test_features_that_say_nothing_are_not_believed() -> None:
    assert asked(honest=False, count=200).low < 0.05


def test_a_gain_is_the_difference_of_two_answers_and_pairs_the_volumes() -> None:
    """What is hard about a volume is hard before and after, and widens no interval."""
    rng = np.random.default_rng(0)
    hard_V, spread_V = rng.uniform(1, 9, 40), np.full(40, 10.0)
    before, after = Misses(hard_V, spread_V), Misses(hard_V - 0.5, spread_V)
    found = gain(before, after, 0)
    assert found.r2 == pytest.approx(answer(after, 0).r2 - answer(before, 0).r2)
    assert found.r2 == pytest.approx(0.05)
    assert found.high - found.low < 1e-9
    assert answer(after, 0).high - answer(after, 0).low > 0.05
    assert gain(before, before, 0) == (0, 0, 0)


def test_the_backbone_is_left_as_it_was() -> None:
    backbone = build(UNetSizes(width=2, levels=2), 1, 0).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    some = Placed(
        torch.randn(4, 1, 8, 8, 8), np.random.default_rng(0).normal(size=(4, 3)), np.arange(4)
    )
    misses(backbone, some, some)
    assert backbone.training
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert features(backbone, some.ct_N1XYZ).shape == (4, sum(backbone.channels))


def test_ridge_is_the_textbook_formula() -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(30, 5)), rng.normal(size=(30, 3))
    asked = rng.normal(size=(7, 5))
    zs, as_ = (z - z.mean(0)) / z.std(0), (asked - z.mean(0)) / z.std(0)
    weights = np.linalg.inv(zs.T @ zs + 1e-2 * 5 * np.eye(5)) @ zs.T @ (y - y.mean(0))
    assert ridge(z, y, asked) == pytest.approx(y.mean(0) + as_ @ weights)

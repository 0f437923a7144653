"""The probe finds what is in the features, and nothing that is not."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pretrain.backbones import Backbone, UNetSizes, build
from pretrain.probe import Placed, features, probe, ridge


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


def test_features_that_say_where_they_are_are_found_out() -> None:
    answer = probe(Told(), crops(60, 0, honest=True), crops(60, 1, honest=True), 0)
    assert answer.r2 > 0.99
    assert answer.low <= answer.r2 <= answer.high


def test_features_that_say_nothing_are_not_believed() -> None:
    answer = probe(Told(), crops(200, 0, honest=False), crops(200, 1, honest=False), 0)
    assert answer.low < 0.05


def test_the_backbone_is_left_as_it_was() -> None:
    backbone = build(UNetSizes(width=2, levels=2), 1, 0).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    some = Placed(
        torch.randn(4, 1, 8, 8, 8), np.random.default_rng(0).normal(size=(4, 3)), np.arange(4)
    )
    probe(backbone, some, some, 0)
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

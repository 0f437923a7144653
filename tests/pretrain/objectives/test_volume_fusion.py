"""Volume fusion: what is seen is the mixture that the levels say."""

import math

import numpy as np
import pytest
import torch

from pretrain import views
from pretrain.backbones import UNetSizes, build
from pretrain.objectives import volume_fusion
from pretrain.objectives.volume_fusion import VolumeFusion, VolumeFusionRecipe
from pretrain.views import generators_of_items

CROP = (16, 16, 16)
RECIPE = VolumeFusionRecipe()


def test_levels_are_those_of_the_last_box_that_holds_a_voxel(random: torch.Generator) -> None:
    sides = (8, 9, 10)
    numbers = [volume_fusion.drawn(RECIPE, i, sides) for i in generators_of_items(random, 2)]
    level_BK = torch.nn.utils.rnn.pad_sequence([n.level_K for n in numbers], batch_first=True)
    levels = volume_fusion.levels_of(views.together([n.boxes for n in numbers]), level_BK, sides)
    for item, drawn in enumerate(numbers):
        expected = np.zeros(sides, int)
        corners = zip(drawn.boxes.lower_K3.tolist(), drawn.boxes.upper_K3.tolist(), strict=True)
        for (low, high), level in zip(corners, drawn.level_K.tolist(), strict=True):
            expected[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = level
        assert np.array_equal(levels[item], expected)
        assert 10 <= len(drawn.level_K) <= 40
        assert max(high for box in drawn.boxes.upper_K3.tolist() for high in box) <= 10


def test_what_is_seen_is_the_mixture_of_two_crops_of_the_batch(random: torch.Generator) -> None:
    """Of constant crops 0, 1 and 10 each mixture tells both parts."""
    value = torch.tensor([0.0, 1.0, 10.0])
    ct = value.view(3, 1, 1, 1, 1).expand(3, 1, *CROP).clone()
    before = ct.clone()
    seen, level = volume_fusion.fused(RECIPE, ct, generators_of_items(random, 3))
    assert torch.equal(ct, before)
    assert set(level.unique().tolist()) == {0, 1, 2, 3, 4}
    for item in range(3):
        share = level[item] / 4
        mixtures = [(1 - share) * value[item] + share * value[o] for o in range(3) if o != item]
        assert any(torch.allclose(seen[item, 0], m) for m in mixtures)


def test_level_0_is_the_crop_and_level_k_the_other(random: torch.Generator) -> None:
    back, front = torch.randn(2, 2, 1, 3, 3, 3, generator=random).unbind(0)
    none = torch.zeros(2, 3, 3, 3, dtype=torch.long)
    assert torch.equal(volume_fusion.mixed(back, front, none, 4), back)
    assert torch.equal(volume_fusion.mixed(back, front, none + 4, 4), front)


def test_a_step_learns_and_its_parts_sum(random: torch.Generator) -> None:
    backbone = build(UNetSizes(width=2, levels=3, norm="instance"), 5, 0)
    objective = VolumeFusion(RECIPE, backbone, CROP)
    ct = torch.rand(2, 1, *CROP, generator=random) * 2 - 1
    losses = objective(backbone, ct, random)
    losses["total"].backward()
    assert torch.allclose(losses["total"], losses["dice"] + losses["cross_entropy"])
    assert all(math.isfinite(v.detach()) for v in losses.values())
    assert all(p.grad is not None for p in backbone.parameters())
    light = VolumeFusion(VolumeFusionRecipe(decoder="head"), backbone, CROP)
    light(backbone, ct, random)["total"].backward()
    assert all(p.grad is not None for p in light.parameters())


def test_one_crop_and_a_decoder_of_other_width_are_refused(random: torch.Generator) -> None:
    backbone = build(UNetSizes(width=2, levels=3, norm="instance"), 1, 0)
    objective = VolumeFusion(RECIPE, backbone, CROP)
    with pytest.raises(ValueError, match="raise micro_batch to 2"):
        objective(backbone, torch.zeros(1, 1, *CROP), random)
    with pytest.raises(ValueError, match="build the backbone with out_channels=5"):
        objective(backbone, torch.rand(2, 1, *CROP), random)

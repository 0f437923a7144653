"""Masked autoencoding: hidden voxels alone are charged, and alone are hidden."""

import math

import numpy as np
import pytest
import torch

from pretrain.backbones import UNetSizes, build
from pretrain.heads import Decoder
from pretrain.losses import masked_squares
from pretrain.objectives.mae import Mae, MaeRecipe, block_for, masked
from pretrain.views import block_mask, generators_of_items

CROP = (16, 16, 16)
BACKBONE = build(UNetSizes(width=2, levels=3, norm="instance"), 1, 0)
RECIPE = MaeRecipe()


@pytest.fixture(name="ct_B1XYZ")
def some_crops(random: torch.Generator) -> torch.Tensor:
    return torch.rand(2, 1, *CROP, generator=random) * 2 - 1


def hidden_of(seed: int) -> torch.Tensor:
    items = generators_of_items(torch.Generator().manual_seed(seed), 2)
    return block_mask(items, CROP, block_for(RECIPE, CROP), RECIPE.hidden)


def loss(ct_B1XYZ: torch.Tensor, seed: int) -> float:
    objective = Mae(RECIPE, BACKBONE, CROP)
    return float(
        objective(BACKBONE, ct_B1XYZ, torch.Generator().manual_seed(seed))["total"].detach()
    )


def test_the_loss_is_a_loop_over_hidden_voxels(ct_B1XYZ: torch.Tensor) -> None:
    hidden = hidden_of(7)
    with torch.no_grad():
        made = BACKBONE(torch.where(hidden, 0.0, ct_B1XYZ)).double()
    squares = ((made - ct_B1XYZ) ** 2).numpy()
    each = [np.mean([squares[i][tuple(at)] for at in hidden[i].argwhere()]) for i in range(2)]
    assert loss(ct_B1XYZ, 7) == pytest.approx(np.mean(each), rel=1e-5)


def test_the_target_of_a_visible_voxel_does_not_matter_that_of_a_hidden_one_does(
    ct_B1XYZ: torch.Tensor,
) -> None:
    hidden, made = hidden_of(7), torch.zeros_like(ct_B1XYZ)
    before = masked_squares(made, ct_B1XYZ, hidden)
    visible_altered = torch.where(hidden, ct_B1XYZ, ct_B1XYZ + 5)
    assert torch.equal(masked_squares(made, visible_altered, hidden), before)
    hidden_altered = torch.where(hidden, ct_B1XYZ + 5, ct_B1XYZ)
    assert float(masked_squares(made, hidden_altered, hidden)) > float(before) + 1


def test_no_gradient_comes_from_visible_voxels(ct_B1XYZ: torch.Tensor) -> None:
    hidden, made = hidden_of(7), torch.zeros_like(ct_B1XYZ, requires_grad=True)
    masked_squares(made, ct_B1XYZ, hidden).backward()
    assert made.grad is not None
    assert torch.equal(made.grad != 0, hidden)


def test_the_network_sees_nothing_of_hidden_voxels(ct_B1XYZ: torch.Tensor) -> None:
    hidden, before = hidden_of(7), ct_B1XYZ.clone()
    altered = torch.where(hidden, -ct_B1XYZ, ct_B1XYZ)
    assert torch.equal(masked(altered, hidden), masked(ct_B1XYZ, hidden))
    assert torch.equal(masked(ct_B1XYZ, hidden)[~hidden], ct_B1XYZ[~hidden])
    assert torch.equal(ct_B1XYZ, before)
    assert loss(altered, 7) != loss(ct_B1XYZ, 7)


def test_three_quarters_are_hidden(ct_B1XYZ: torch.Tensor) -> None:
    assert hidden_of(7).float().mean((1, 2, 3, 4)).tolist() == [0.75, 0.75]
    assert not torch.equal(hidden_of(7), hidden_of(8))


@pytest.mark.parametrize(
    ("crop", "block"),
    [((96, 96, 96), (16, 16, 16)), ((64, 32, 32), (16, 8, 8)), ((16, 16, 16), (4, 4, 4))],
)
def test_small_crops_have_smaller_blocks(
    crop: tuple[int, int, int], block: tuple[int, int, int]
) -> None:
    assert block_for(RECIPE, crop) == block


def test_a_crop_that_is_no_multiple_of_the_block_is_refused() -> None:
    with pytest.raises(ValueError, match=r"72 voxels is no multiple .* 16; choose 64 or 80"):
        Mae(RECIPE, BACKBONE, (64, 64, 72))


@pytest.mark.parametrize(("decoder", "up_learns"), [("backbone", True), ("head", False)])
def test_the_backbone_s_decoder_learns_only_if_it_restores(
    decoder: Decoder, up_learns: bool, ct_B1XYZ: torch.Tensor, random: torch.Generator
) -> None:
    objective = Mae(MaeRecipe(decoder=decoder), BACKBONE, CROP)
    BACKBONE.zero_grad()
    losses = objective(BACKBONE, ct_B1XYZ, random)
    losses["total"].backward()
    assert all(math.isfinite(v.detach()) for v in losses.values())
    learning = {n for n, p in BACKBONE.named_parameters() if p.grad is not None}
    assert any(n.startswith("up.") for n in learning) == up_learns
    assert any(n.startswith("down.") for n in learning)
    assert all(p.grad is not None for p in objective.parameters())


def test_a_batch_of_one_is_enough(ct_B1XYZ: torch.Tensor) -> None:
    assert math.isfinite(loss(ct_B1XYZ[:1], 1))

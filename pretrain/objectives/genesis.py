"""Models Genesis: a crop is shuffled, deformed in intensity, painted over, and to be restored.

In this order, as its public code does: flips (of crop and target alike), a local shuffle, a
non-linear change of intensity along a Bezier curve, and blocks of noise inside or all around.
Intensities are transformed in [0, 1]; the loss is the mean square error over the whole volume.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from pretrain import views
from pretrain.backbones import Backbone
from pretrain.heads import Decoder, FullSizeOutput
from pretrain.losses import feature_sd, mean_prediction, over_mean
from synth_ct.kit.recipe import Recipe

LEAST_SIDE = 14
"""Below it an outer window leaves no margin."""
MARGIN = 3
"""Voxels between painted boxes and the faces of the crop."""
MORE = 0.95
"""Chance of one box more."""
INNER_BOXES, OUTER_BOXES = 5, 5
"""At most."""
KNOTS = 1000
"""At which a curve is evaluated; straight lines between."""


class GenesisRecipe(Recipe):
    """With what chance each transformation is applied; the defaults are the published ones."""

    kind: Literal["genesis"] = "genesis"
    decoder: Decoder = "backbone"
    flip: float = Field(default=0.4, ge=0, le=1)
    shuffle: float = Field(default=0.5, ge=0, le=1)
    shuffled_blocks: int = Field(default=10_000, gt=0)
    """Of up to a tenth of a side each."""
    nonlinear: float = Field(default=0.9, ge=0, le=1)
    paint: float = Field(default=0.9, ge=0, le=1)
    outer: float = Field(default=0.8, ge=0, le=1)
    """Of those that are painted: all but a window, instead of blocks within."""


# ---- intensity ---------------------------------------------------------------------------------


def bezier(control_B42: torch.Tensor, knots: int = KNOTS) -> tuple[torch.Tensor, torch.Tensor]:
    """(x, y)(t) = sum_i C(3, i) t^i (1 - t)^(3 - i) P_i at even t; BT and BT."""
    t_T = torch.linspace(0, 1, knots, dtype=control_B42.dtype, device=control_B42.device)
    basis = [(1 - t_T) ** 3, 3 * t_T * (1 - t_T) ** 2, 3 * t_T**2 * (1 - t_T), t_T**3]
    # Not a matrix product, which mixed precision would round to a hundred steps.
    curve_B2T = (control_B42[..., None] * torch.stack(basis)[:, None]).sum(1)
    return curve_B2T[:, 0], curve_B2T[:, 1]


def interpolated(x_BV: torch.Tensor, knot_BT: torch.Tensor, value_BT: torch.Tensor) -> torch.Tensor:
    """Piecewise linear through the knots, which ascend; constant beyond the first and the last."""
    above_BV = torch.searchsorted(knot_BT.contiguous(), x_BV.contiguous())
    above_BV = above_BV.clamp(1, knot_BT.shape[1] - 1)
    low_BV, high_BV = knot_BT.gather(1, above_BV - 1), knot_BT.gather(1, above_BV)
    part_BV = ((x_BV - low_BV) / (high_BV - low_BV).clamp(min=1e-12)).clamp(0, 1)
    return torch.lerp(value_BT.gather(1, above_BV - 1), value_BT.gather(1, above_BV), part_BV)


def bent(
    ct_B1XYZ: torch.Tensor, control_B42: torch.Tensor, inverted_B: torch.Tensor
) -> torch.Tensor:
    """y(x) of each item's curve from (0, 0) to (1, 1), or from (0, 1) to (1, 0) where inverted.

    Inverted, y(1 - t) stands over x(t).
    """
    knot_BT, value_BT = bezier(control_B42)
    value_BT = torch.where(inverted_B[:, None], value_BT.flip(1), value_BT)
    unit_BV = (ct_B1XYZ.flatten(1).float() + 1) / 2
    bent_BV = interpolated(unit_BV, knot_BT.cummax(1).values, value_BT)
    return (2 * bent_BV - 1).view_as(ct_B1XYZ).to(ct_B1XYZ.dtype)


def _bent_some(
    recipe: GenesisRecipe, ct_B1XYZ: torch.Tensor, items: Sequence[torch.Generator]
) -> torch.Tensor:
    chosen, inverted, inner = [], [], []
    for item in items:
        chosen.append(views.uniform(item) < recipe.nonlinear)
        inverted.append(views.uniform(item) < 0.5)
        inner.append(torch.rand(2, 2, generator=item))
    control_B42 = torch.stack([functional.pad(p, (0, 0, 1, 1)) for p in inner])
    control_B42[:, 3] = 1
    device = ct_B1XYZ.device
    bent_B1XYZ = bent(ct_B1XYZ, control_B42.to(device), torch.tensor(inverted, device=device))
    chosen_B = torch.tensor(chosen, device=device).view(-1, 1, 1, 1, 1)
    return torch.where(chosen_B, bent_B1XYZ, ct_B1XYZ)


# ---- shuffling ---------------------------------------------------------------------------------


def shuffled(ct_1XYZ: torch.Tensor, blocks: int, item: torch.Generator) -> torch.Tensor:
    """Within each of many small blocks the voxels of the original change places.

    Where blocks overlap, the last one stands.
    """
    device, (x, y, z) = ct_1XYZ.device, ct_1XYZ.shape[1:]
    lower_K3, length_K3 = _small_boxes(item, (x, y, z), blocks)
    widest = [int(length) for length in length_K3.amax(0)]
    lower_K3, length_K3 = lower_K3.to(device), length_K3.to(device)
    offset_M3 = torch.cartesian_prod(*(torch.arange(w, device=device) for w in widest))
    offset_M3 = offset_M3.view(-1, 3)
    inside_KM = (offset_M3 < length_K3[:, None]).all(2)
    place_KM = ((lower_K3[:, None] + offset_M3) * torch.tensor([y * z, z, 1], device=device)).sum(2)

    keys_KM = views.uniform_noise([views.seed_from(item)], inside_KM.shape, device)[0]
    orders = (keys_KM.masked_fill(~inside_KM, 2.0).argsort(1), (~inside_KM).int().argsort(1))
    count_K1 = inside_KM.sum(1, keepdim=True)
    real_KM = torch.arange(inside_KM.shape[1], device=device) < count_K1
    source_N, target_N = (place_KM.gather(1, order_KM)[real_KM] for order_KM in orders)

    block_N = torch.arange(blocks, device=device)[:, None].expand_as(real_KM)[real_KM]
    last_V = torch.full((x * y * z,), -1, device=device)
    last_V = last_V.scatter_reduce(0, target_N, block_N, "amax")
    stands_N = last_V[target_N] == block_N
    out_V = ct_1XYZ.flatten().clone()
    out_V[target_N[stands_N]] = ct_1XYZ.flatten()[source_N[stands_N]]
    return out_V.view_as(ct_1XYZ)


def _small_boxes(
    item: torch.Generator, sides: views.Sides, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower corners and lengths, K3; a length is 1 to a tenth of the side."""
    lower, length = [], []
    for side in sides:
        length_K = torch.randint(1, max(1, side // 10) + 1, (count,), generator=item)
        share_K = torch.rand(count, generator=item, dtype=torch.float64)
        lower.append((share_K * (side - length_K + 1)).long())
        length.append(length_K)
    return torch.stack(lower, 1), torch.stack(length, 1)


def _shuffled_some(
    recipe: GenesisRecipe, ct_B1XYZ: torch.Tensor, items: Sequence[torch.Generator]
) -> torch.Tensor:
    done = [
        shuffled(ct_1XYZ, recipe.shuffled_blocks, item)
        if views.uniform(item) < recipe.shuffle
        else ct_1XYZ
        for ct_1XYZ, item in zip(ct_B1XYZ, items, strict=True)
    ]
    return torch.stack(done)


# ---- painting ----------------------------------------------------------------------------------


_Corners = tuple[list[int], list[int]]
"""Lower and upper, one number an axis."""


def inner_boxes(item: torch.Generator, sides: views.Sides) -> views.Boxes:
    """Up to five boxes, each a sixth to a third of a side."""
    boxes: list[_Corners] = []
    while len(boxes) < INNER_BOXES and views.uniform(item) < MORE:
        lengths = [views.integer(item, side // 6, side // 3) for side in sides]
        boxes.append(_placed(item, sides, lengths))
    return _as_boxes(boxes)


def outer_windows(item: torch.Generator, sides: views.Sides) -> views.Boxes:
    """One to five boxes that stay visible, each three to four sevenths of a side."""
    boxes: list[_Corners] = []
    while not boxes or (len(boxes) < OUTER_BOXES and views.uniform(item) < MORE):
        lengths = [s - views.integer(item, 3 * s // 7, 4 * s // 7) for s in sides]
        boxes.append(_placed(item, sides, lengths))
    return _as_boxes(boxes)


def _placed(item: torch.Generator, sides: views.Sides, lengths: Sequence[int]) -> _Corners:
    pairs = list(zip(sides, lengths, strict=True))
    lower = [views.integer(item, MARGIN, side - length - MARGIN) for side, length in pairs]
    return lower, [low + length for low, length in zip(lower, lengths, strict=True)]


def _as_boxes(boxes: Sequence[_Corners]) -> views.Boxes:
    corners_2K3 = torch.tensor([list(part) for part in zip(*boxes, strict=True)]).view(2, -1, 3)
    return views.Boxes(*corners_2K3.long())


def _painted(
    recipe: GenesisRecipe, ct_B1XYZ: torch.Tensor, items: Sequence[torch.Generator]
) -> torch.Tensor:
    device, (x, y, z) = ct_B1XYZ.device, ct_B1XYZ.shape[2:]
    none = views.Boxes(torch.zeros(0, 3, dtype=torch.long), torch.zeros(0, 3, dtype=torch.long))
    boxes, outer, seeds = [], [], []
    for item in items:
        painted = views.uniform(item) < recipe.paint
        outer.append(painted and views.uniform(item) < recipe.outer)
        kind = outer_windows if outer[-1] else inner_boxes
        boxes.append(kind(item, (x, y, z)) if painted else none)
        seeds.append(views.seed_from(item))
    held_B1XYZ = views.covered(views.together(boxes), (x, y, z), device)
    outer_B = torch.tensor(outer, device=device).view(-1, 1, 1, 1, 1)
    noise_B1XYZ = 2 * views.uniform_noise(seeds, (1, x, y, z), device) - 1
    return torch.where(held_B1XYZ ^ outer_B, noise_B1XYZ.to(ct_B1XYZ.dtype), ct_B1XYZ)


# ---- the objective -----------------------------------------------------------------------------


def _flipped(
    recipe: GenesisRecipe, ct_B1XYZ: torch.Tensor, items: Sequence[torch.Generator]
) -> torch.Tensor:
    """Up to three flips, each along an axis drawn anew, as long as chance has it."""
    done = []
    for ct_1XYZ, item in zip(ct_B1XYZ, items, strict=True):
        turned_1XYZ, flips = ct_1XYZ, 0
        while flips < 3 and views.uniform(item) < recipe.flip:
            turned_1XYZ = turned_1XYZ.flip(1 + views.integer(item, 0, 2))
            flips += 1
        done.append(turned_1XYZ)
    return torch.stack(done)


def deformed(
    recipe: GenesisRecipe, ct_B1XYZ: torch.Tensor, items: Sequence[torch.Generator]
) -> torch.Tensor:
    """Shuffled, bent, painted: each with its chance."""
    ct_B1XYZ = _shuffled_some(recipe, ct_B1XYZ, items)
    return _painted(recipe, _bent_some(recipe, ct_B1XYZ, items), items)


class Genesis(nn.Module):
    """A light decoder where the backbone's is not to be trained; else the backbone does it all."""

    def __init__(
        self, recipe: GenesisRecipe, backbone: Backbone, crop_XYZ: tuple[int, int, int]
    ) -> None:
        super().__init__()
        backbone.demand_sides(crop_XYZ)
        if min(crop_XYZ) < LEAST_SIDE:
            raise ValueError(
                f"a crop's side of {min(crop_XYZ)} voxels leaves no margin around what is painted "
                f"over; choose {LEAST_SIDE} or more"
            )
        self.recipe, self.crop_XYZ = recipe, crop_XYZ
        self.network = FullSizeOutput(recipe.decoder, backbone, 1)

    def forward(
        self, backbone: Backbone, ct_B1XYZ: torch.Tensor, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Mean (p - x)^2 over all voxels, and diagnostics, for which all voxels count as masked."""
        assert tuple(ct_B1XYZ.shape[2:]) == self.crop_XYZ, ct_B1XYZ.shape
        items = views.generators_of_items(generator, len(ct_B1XYZ))
        target_B1XYZ = _flipped(self.recipe, ct_B1XYZ, items)
        made = self.network(backbone, deformed(self.recipe, target_B1XYZ, items))
        total = functional.mse_loss(made.out_BCXYZ.float(), target_B1XYZ.float())
        everywhere = torch.ones_like(target_B1XYZ, dtype=torch.bool)
        guess_B1XYZ = mean_prediction(target_B1XYZ, everywhere)
        return {
            "total": total,
            "masked_over_mean": over_mean(total, functional.mse_loss(guess_B1XYZ, target_B1XYZ)),
            "feature_sd": feature_sd(made.bottleneck_BCXYZ),
        }

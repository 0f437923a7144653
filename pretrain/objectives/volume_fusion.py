"""Volume fusion (MIS-FM): which voxels were mixed with another volume, and how strongly.

    x = (1 - k/K) b + (k/K) f,  k in {0, ..., K}

b is a crop, f another of the batch, k constant on random blocks that lie over one another and 0
between them. A network tells k for each voxel: a segmentation with K + 1 classes and no labels.
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import nn

from pretrain import views
from pretrain.backbones import Backbone
from pretrain.heads import Decoder, FullSizeOutput
from pretrain.losses import accuracy, cross_entropy, dice_loss, feature_sd
from synth_ct.kit.recipe import Recipe


class VolumeFusionRecipe(Recipe):
    """How volumes are fused. Numbers and sizes of blocks are assumed, not published."""

    kind: Literal["volume_fusion"] = "volume_fusion"
    decoder: Decoder = "backbone"
    levels: int = Field(default=4, gt=0)
    """K; with the unmixed background there is one class more."""
    least_blocks: int = Field(default=10, gt=0)
    most_blocks: int = Field(default=40, gt=0)
    smallest: float = Field(default=1 / 12, gt=0, le=1)
    largest: float = Field(default=3 / 8, gt=0, le=1)
    """Side of a block, as a share of the crop's."""


class Fused(NamedTuple):
    """What is seen, and the level of each voxel."""

    ct_B1XYZ: torch.Tensor
    level_BXYZ: torch.Tensor


class _Drawn(NamedTuple):
    """All that is random for one item."""

    partner: int
    boxes: views.Boxes
    level_K: torch.Tensor


def drawn(recipe: VolumeFusionRecipe, item: torch.Generator, sides: views.Sides) -> _Drawn:
    """From the item's own generator."""
    count = views.integer(item, recipe.least_blocks, max(recipe.least_blocks, recipe.most_blocks))
    lower, upper = [], []
    for side in sides:
        least = max(1, int(recipe.smallest * side))
        most = max(least, int(recipe.largest * side))
        length_K = torch.randint(least, most + 1, (count,), generator=item)
        room_K = side - length_K + 1
        lower_K = (torch.rand(count, generator=item, dtype=torch.float64) * room_K).long()
        lower.append(lower_K)
        upper.append(lower_K + length_K)
    level_K = torch.randint(1, recipe.levels + 1, (count,), generator=item)
    boxes = views.Boxes(torch.stack(lower, 1), torch.stack(upper, 1))
    return _Drawn(views.integer(item, 0, 2**31), boxes, level_K)


def levels_of(boxes: views.Boxes, level_BK: torch.Tensor, sides: views.Sides) -> torch.Tensor:
    """BXYZ: the level of the last of an item's boxes that holds the voxel, 0 outside all."""
    device = level_BK.device
    x_BKX, y_BKY, z_BKZ = views.inside(boxes, sides, device)
    level_BXYZ = torch.zeros(len(level_BK), *sides, dtype=torch.long, device=device)
    for k in range(level_BK.shape[1]):
        plane_BXY = x_BKX[:, k, :, None] & y_BKY[:, k, None, :]
        box_BXYZ = plane_BXY[..., None] & z_BKZ[:, k, None, None, :]
        level_BXYZ = torch.where(box_BXYZ, level_BK[:, k, None, None, None], level_BXYZ)
    return level_BXYZ


def mixed(
    back_B1XYZ: torch.Tensor, front_B1XYZ: torch.Tensor, level_BXYZ: torch.Tensor, levels: int
) -> torch.Tensor:
    """(1 - k/K) b + (k/K) f."""
    share_B1XYZ = (level_BXYZ[:, None] / levels).to(back_B1XYZ.dtype)
    return (1 - share_B1XYZ) * back_B1XYZ + share_B1XYZ * front_B1XYZ


def fused(
    recipe: VolumeFusionRecipe, ct_B1XYZ: torch.Tensor, items: list[torch.Generator]
) -> Fused:
    """Each crop with another of the batch."""
    device, (x, y, z) = ct_B1XYZ.device, ct_B1XYZ.shape[2:]
    batch = len(items)
    numbers = [drawn(recipe, item, (x, y, z)) for item in items]
    others = [(i + 1 + n.partner % (batch - 1)) % batch for i, n in enumerate(numbers)]
    level_BK = torch.nn.utils.rnn.pad_sequence([n.level_K for n in numbers], batch_first=True)
    boxes = views.together([n.boxes for n in numbers])
    level_BXYZ = levels_of(boxes, level_BK.to(device), (x, y, z))
    return Fused(mixed(ct_B1XYZ, ct_B1XYZ[others], level_BXYZ, recipe.levels), level_BXYZ)


class VolumeFusion(nn.Module):
    """A light decoder where the backbone's is not to be trained; else the backbone does it all."""

    def __init__(
        self, recipe: VolumeFusionRecipe, backbone: Backbone, crop_XYZ: tuple[int, int, int]
    ) -> None:
        super().__init__()
        backbone.demand_sides(crop_XYZ)
        self.recipe, self.crop_XYZ = recipe, crop_XYZ
        self.network = FullSizeOutput(recipe.decoder, backbone, recipe.levels + 1)

    def forward(
        self, backbone: Backbone, ct_B1XYZ: torch.Tensor, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Dice loss + cross-entropy of the levels, and diagnostics."""
        assert tuple(ct_B1XYZ.shape[2:]) == self.crop_XYZ, ct_B1XYZ.shape
        if len(ct_B1XYZ) < 2:
            raise ValueError(
                "a micro-batch of one crop has nothing to be fused with; raise micro_batch to 2 "
                "or more"
            )
        items = views.generators_of_items(generator, len(ct_B1XYZ))
        example = fused(self.recipe, ct_B1XYZ, items)
        made = self.network(backbone, example.ct_B1XYZ)
        dice = dice_loss(made.out_BCXYZ, example.level_BXYZ)
        entropy = cross_entropy(made.out_BCXYZ, example.level_BXYZ)
        return {
            "total": dice + entropy,
            "dice": dice,
            "cross_entropy": entropy,
            "level_accuracy": accuracy(made.out_BCXYZ, example.level_BXYZ),
            "feature_sd": feature_sd(made.bottleneck_BCXYZ),
        }

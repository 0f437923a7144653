"""Masked autoencoding: most of a crop is hidden in blocks, and is to be told from the rest.

Hidden voxels are set to 0, the middle of the window, at the input; the mean square error is taken
over them alone. That is one scheme for both backbones: a UNet restores through its own decoder;
for a Swin UNETR, whose encoder keeps its grid of tokens, it is SimMIM with masked input in place
of mask tokens, through its decoder or (`decoder = "head"`) a light one, which trains the encoder
alone.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from pretrain import views
from pretrain.backbones import Backbone
from pretrain.heads import Decoder, FullSizeOutput
from pretrain.losses import feature_sd, masked_squares, mean_prediction, over_mean
from synth_ct.kit.recipe import Recipe

HIDDEN = 0.0
"""What is seen of a hidden voxel."""
LEAST_BLOCKS = 4
"""A side of a crop has at least so many blocks; smaller crops have smaller blocks."""


class MaeRecipe(Recipe):
    """How much is hidden, and in blocks of what size."""

    kind: Literal["mae"] = "mae"
    decoder: Decoder = "backbone"
    block: int = Field(default=16, gt=0)
    """Voxels along a side of a hidden block, where the crop has room for four."""
    hidden: float = Field(default=0.75, gt=0, lt=1)
    """Share of the blocks."""


def block_for(recipe: MaeRecipe, crop_XYZ: tuple[int, int, int]) -> views.Sides:
    """min(block, side / 4) for each side; refused where a side is no multiple of it."""
    x, y, z = (max(min(recipe.block, side // LEAST_BLOCKS), 1) for side in crop_XYZ)
    bad = [(side, b) for side, b in zip(crop_XYZ, (x, y, z), strict=True) if side % b]
    if bad:
        side, block = bad[0]
        raise ValueError(
            f"a crop's side of {side} voxels is no multiple of the mask's block of {block}; "
            f"choose {side - side % block} or {side + block - side % block} voxels, or another "
            "block"
        )
    return x, y, z


def masked(ct_B1XYZ: torch.Tensor, hidden_B1XYZ: torch.Tensor) -> torch.Tensor:
    """x where visible, 0 where hidden."""
    return ct_B1XYZ.masked_fill(hidden_B1XYZ, HIDDEN)


class Mae(nn.Module):
    """Masks, and a light decoder where the backbone's is not to be trained."""

    def __init__(
        self, recipe: MaeRecipe, backbone: Backbone, crop_XYZ: tuple[int, int, int]
    ) -> None:
        super().__init__()
        backbone.demand_sides(crop_XYZ)
        self.recipe, self.crop_XYZ = recipe, crop_XYZ
        self.block = block_for(recipe, crop_XYZ)
        self.network = FullSizeOutput(recipe.decoder, backbone, 1)

    def forward(
        self, backbone: Backbone, ct_B1XYZ: torch.Tensor, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Mean (p - x)^2 over hidden voxels, and diagnostics."""
        assert tuple(ct_B1XYZ.shape[2:]) == self.crop_XYZ, ct_B1XYZ.shape
        items = views.generators_of_items(generator, len(ct_B1XYZ))
        hidden_B1XYZ = views.block_mask(items, self.crop_XYZ, self.block, self.recipe.hidden)
        hidden_B1XYZ = hidden_B1XYZ.to(ct_B1XYZ.device)
        made = self.network(backbone, masked(ct_B1XYZ, hidden_B1XYZ))
        total = masked_squares(made.out_BCXYZ, ct_B1XYZ, hidden_B1XYZ)
        guess_B1XYZ = mean_prediction(ct_B1XYZ, hidden_B1XYZ)
        return {
            "total": total,
            "masked_over_mean": over_mean(
                total, masked_squares(guess_B1XYZ, ct_B1XYZ, hidden_B1XYZ)
            ),
            "feature_sd": feature_sd(made.bottleneck_BCXYZ),
        }

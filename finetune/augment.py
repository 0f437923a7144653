"""Crops turned over, turned round, brighter and darker; on the crops' device.

What is drawn for a crop comes from a generator of its own, so it does not depend on its companions.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from synth_ct.kit.recipe import Recipe

AXES = {"x": 0, "y": 1, "z": 2}


class Augmentation(Recipe):
    """How often each happens to a crop. The defaults are those of Swin UNETR's code for BTCV."""

    flip: float = Field(default=0.2, ge=0, le=1)
    """For each of `flipped`."""
    flipped: tuple[Literal["x", "y", "z"], ...] = ("x", "y", "z")
    """The public code also swaps left and right (x), which no body does."""
    turn: float = Field(default=0.2, ge=0, le=1)
    """By 1, 2 or 3 quarters about the body's long axis."""
    scale: float = Field(default=0.1, ge=0, le=1)
    scale_by: float = Field(default=0.1, ge=0, lt=1)
    """Intensity x (1 + u), u uniform in +-."""
    shift: float = Field(default=0.1, ge=0, le=1)
    shift_by: float = Field(default=0.1, ge=0, lt=1)
    """Intensity + u; of a window that is 2 wide."""


NONE = Augmentation(flip=0, turn=0, scale=0, shift=0)


def augmented(
    ct_B1XYZ: Tensor,
    label_BXYZ: Tensor,
    recipe: Augmentation,
    items: Sequence[torch.Generator],
) -> tuple[Tensor, Tensor]:
    """Image and labels of each crop moved alike; only the image's intensity changes."""
    crops = [
        _moved(image_XYZ, label_XYZ, recipe, item)
        for (image_XYZ,), label_XYZ, item in zip(ct_B1XYZ, label_BXYZ, items, strict=True)
    ]
    gain_offset = [_contrast(recipe, item) for item in items]
    gain_B, offset_B = torch.tensor(gain_offset, device=ct_B1XYZ.device).T
    moved_B1XYZ = torch.stack([image for image, _ in crops])[:, None]
    around = (len(items), 1, 1, 1, 1)
    bright_B1XYZ = moved_B1XYZ * gain_B.view(around) + offset_B.view(around)
    return bright_B1XYZ, torch.stack([label for _, label in crops])


def _moved(
    image_XYZ: Tensor, label_XYZ: Tensor, recipe: Augmentation, item: torch.Generator
) -> tuple[Tensor, Tensor]:
    axes = [AXES[name] for name in recipe.flipped if _happens(recipe.flip, item)]
    quarters = int(torch.randint(1, 4, (1,), generator=item))
    if not _happens(recipe.turn, item) or (
        quarters != 2 and image_XYZ.shape[0] != image_XYZ.shape[1]
    ):
        quarters = 0  # a quarter turn of an oblong crop would not fit into the batch
    return (
        image_XYZ.flip(axes).rot90(quarters, (0, 1)),
        label_XYZ.flip(axes).rot90(quarters, (0, 1)),
    )


def _contrast(recipe: Augmentation, item: torch.Generator) -> tuple[float, float]:
    """Gain and offset; (1, 0) leaves the intensities alone."""
    gain = 1 + _between(recipe.scale_by, item) * _happens(recipe.scale, item)
    offset = _between(recipe.shift_by, item) * _happens(recipe.shift, item)
    return gain, offset


def _happens(share: float, item: torch.Generator) -> bool:
    return float(torch.rand(1, generator=item)) < share


def _between(reach: float, item: torch.Generator) -> float:
    return reach * (2 * float(torch.rand(1, generator=item)) - 1)

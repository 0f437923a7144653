"""Inpainting, rotation and contrast together (Tang et al. 2022), as published and mended.

`OFFICIAL` does what the public code does, which is not all that the paper says:

* inpainting is charged over the whole volume, visible voxels included;
* the volume is rotated in the Y-Z plane, about the left-right axis, where the paper has z;
* the rotation head sees the first of the bottleneck's tokens, the contrast head the second: two
  neighbouring corners of the crop, instead of the mean over all;
* noise replaces up to 30 % of a view, and blocks of another, already altered item are pasted over
  up to 30 % more;
* negatives come from one process's micro-batch, at a temperature of 0.5;
* a decoder of five upsamplings reconstructs, where the paper has one transposed convolution.

Its voxels span [0, 1], ours [-1, 1]: half our L1 is its L1. It scales each block of normal noise
by the block's own extremes; here all are scaled by 3.5 standard deviations.

`FIXED` rotates about z, hands the mean of all tokens to both heads, charges the voxels that were
cut out, cuts the paper's 30 % and pastes nothing; `negatives_among` may reach across processes.
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import nn

from pretrain import views
from pretrain.backbones import Backbone
from pretrain.heads import UpsamplingHead, pooled
from pretrain.losses import (
    accuracy,
    candidates,
    cross_entropy,
    feature_sd,
    masked_distance,
    mean_prediction,
    nt_xent,
    over_mean,
)
from synth_ct.kit import ranks
from synth_ct.kit.recipe import Recipe

NORMAL_RANGE = 3.5
"""Standard deviations of normal noise that fill half the window."""
TURNS = 4


class Swin3Recipe(Recipe):
    """What is seen, and what is charged; the defaults are `FIXED`."""

    kind: Literal["swin3"] = "swin3"
    rotation_axis: views.Axis = "z"
    tokens: Literal["corner", "pooled"] = "pooled"
    """What the rotation and contrast heads see: tokens 0 and 1, or the mean of all."""
    inpainting: Literal["whole", "masked"] = "masked"
    """The voxels over which the reconstruction is charged."""
    noise: Literal["normal", "uniform"] = "uniform"
    least_dropped: float = Field(default=0.3, ge=0, le=0.5)
    most_dropped: float = Field(default=0.3, gt=0, le=0.5)
    """Volume of the blocks replaced by noise, as a share of the crop; drawn between the two."""
    most_pasted: float = Field(default=0.0, ge=0, le=0.5)
    """Likewise of blocks pasted from another item; drawn from 0 on."""
    temperature: float = Field(default=0.5, gt=0)
    embedding: int = Field(default=512, gt=0)
    negatives_among: int | None = Field(default=None, ge=2)
    """Crops among which negatives are found: those of a micro-batch (none), or of all processes."""


FIXED = Swin3Recipe()
OFFICIAL = Swin3Recipe(
    rotation_axis="x",
    tokens="corner",
    inpainting="whole",
    noise="normal",
    least_dropped=0.0,
    most_pasted=0.3,
)


# ---- views -------------------------------------------------------------------------------------


class View(NamedTuple):
    """A rotated crop, the same with voxels replaced, which ones, and how far it was turned."""

    seen_B1XYZ: torch.Tensor
    whole_B1XYZ: torch.Tensor
    replaced_B1XYZ: torch.Tensor
    turns_B: torch.Tensor


class _Drawn(NamedTuple):
    """All that is random in one item's view."""

    turns: int
    noise_seed: int
    dropped: views.Boxes
    source: int
    pasted: views.Boxes


def drawn(recipe: Swin3Recipe, item: torch.Generator, batch: int, sides: views.Sides) -> _Drawn:
    """From the item's own generator; only the source of a paste depends on the batch's size."""
    return _Drawn(
        turns=views.integer(item, 0, TURNS - 1),
        noise_seed=views.seed_from(item),
        dropped=views.scattered_boxes(
            item, sides, views.uniform(item, recipe.least_dropped, recipe.most_dropped)
        ),
        source=views.integer(item, 0, batch - 1),
        pasted=views.scattered_boxes(item, sides, views.uniform(item, 0.0, recipe.most_pasted)),
    )


def view_of(recipe: Swin3Recipe, ct_B1XYZ: torch.Tensor, items: list[torch.Generator]) -> View:
    """One view of each crop."""
    device, (x, y, z) = ct_B1XYZ.device, ct_B1XYZ.shape[2:]
    numbers = [drawn(recipe, item, len(items), (x, y, z)) for item in items]
    turns_B = torch.tensor([n.turns for n in numbers])
    whole_B1XYZ = views.rotated(ct_B1XYZ, turns_B, recipe.rotation_axis)
    replaced_B1XYZ = views.covered(views.together([n.dropped for n in numbers]), (x, y, z), device)
    noise_B1XYZ = noise_like(recipe, whole_B1XYZ, [n.noise_seed for n in numbers])
    seen_B1XYZ = torch.where(replaced_B1XYZ, noise_B1XYZ, whole_B1XYZ)
    if recipe.most_pasted > 0:
        boxes = views.together([n.pasted for n in numbers])
        where_B1XYZ = views.covered(boxes, (x, y, z), device)
        sources = [n.source for n in numbers]
        seen_B1XYZ = views.pasted_in_turn(whole_B1XYZ, seen_B1XYZ, where_B1XYZ, sources)
        others_B = torch.tensor([s != i for i, s in enumerate(sources)], device=device)
        replaced_B1XYZ = replaced_B1XYZ | (where_B1XYZ & others_B.view(-1, 1, 1, 1, 1))
    return View(seen_B1XYZ, whole_B1XYZ, replaced_B1XYZ, turns_B.to(device))


def noise_like(recipe: Swin3Recipe, ct_B1XYZ: torch.Tensor, seeds: list[int]) -> torch.Tensor:
    """2 u - 1 with u uniform; or n / 3.5 with n normal, cut to [-1, 1]."""
    shape, device = tuple(ct_B1XYZ.shape[1:]), ct_B1XYZ.device
    if recipe.noise == "uniform":
        return (2 * views.uniform_noise(seeds, shape, device) - 1).to(ct_B1XYZ.dtype)
    normal_B1XYZ = views.normal_noise(seeds, shape, device) / NORMAL_RANGE
    return normal_B1XYZ.clamp(-1, 1).to(ct_B1XYZ.dtype)


# ---- losses ------------------------------------------------------------------------------------


class Outputs(NamedTuple):
    """Of the three heads, both views one after the other."""

    turn_logits_AK: torch.Tensor
    embedding_AE: torch.Tensor
    reconstructed_A1XYZ: torch.Tensor


def losses_of(recipe: Swin3Recipe, outputs: Outputs, both: View) -> dict[str, torch.Tensor]:
    """inpainting + rotation + contrast, each with weight 1, and what tells a dead run.

    inpainting = mean |p - t| / 2, rotation = cross-entropy of 4 classes, contrast = NT-Xent.
    """
    crops = len(both.turns_B) // 2
    mask_A1XYZ = both.replaced_B1XYZ
    charged_A1XYZ = torch.ones_like(mask_A1XYZ) if recipe.inpainting == "whole" else mask_A1XYZ
    target_A1XYZ, predicted_A1XYZ = both.whole_B1XYZ, outputs.reconstructed_A1XYZ
    inpainting = masked_distance(predicted_A1XYZ, target_A1XYZ, charged_A1XYZ)
    rotation = cross_entropy(outputs.turn_logits_AK, both.turns_B)
    first_BE, second_BE = outputs.embedding_AE.chunk(2)
    among = recipe.negatives_among or crops
    contrast = nt_xent(first_BE, second_BE, recipe.temperature, gather=among != crops)
    mean_A1XYZ = mean_prediction(target_A1XYZ, mask_A1XYZ)
    chance = torch.log(torch.tensor(float(candidates(among)), device=contrast.device))
    return {
        "total": inpainting + rotation + contrast,
        "inpainting": inpainting,
        "rotation": rotation,
        "contrastive": contrast,
        "rotation_accuracy": accuracy(outputs.turn_logits_AK, both.turns_B),
        "contrastive_over_log_n": contrast.detach() / chance,
        "masked_over_mean": over_mean(
            masked_distance(predicted_A1XYZ.detach(), target_A1XYZ, mask_A1XYZ),
            masked_distance(mean_A1XYZ, target_A1XYZ, mask_A1XYZ),
        ),
    }


class Swin3(nn.Module):
    """The three heads. Takes any backbone, of which it trains the encoder alone."""

    def __init__(
        self, recipe: Swin3Recipe, backbone: Backbone, crop_XYZ: tuple[int, int, int]
    ) -> None:
        super().__init__()
        backbone.demand_sides(crop_XYZ)
        _demand_square(recipe.rotation_axis, crop_XYZ)
        self.recipe, self.crop_XYZ = recipe, crop_XYZ
        channels = backbone.channels[-1]
        self.rotation = nn.Linear(channels, TURNS)
        self.contrast = nn.Linear(channels, recipe.embedding)
        self.reconstruction = UpsamplingHead(channels, backbone.strides[-1])

    def forward(
        self, backbone: Backbone, ct_B1XYZ: torch.Tensor, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Losses and diagnostics of a batch; both views pass through the encoder at once."""
        batch = len(ct_B1XYZ)
        assert tuple(ct_B1XYZ.shape[2:]) == self.crop_XYZ, ct_B1XYZ.shape
        _demand_negatives(self.recipe, batch)
        items = views.generators_of_items(generator, batch)
        pair = [view_of(self.recipe, ct_B1XYZ, items) for _ in range(2)]
        both = View(*(torch.cat(parts) for parts in zip(*pair, strict=True)))
        bottleneck_ACXYZ = backbone.encode(both.seen_B1XYZ)[-1]
        losses = losses_of(self.recipe, self.outputs(bottleneck_ACXYZ), both)
        return losses | {"feature_sd": feature_sd(bottleneck_ACXYZ)}

    def outputs(self, bottleneck_ACXYZ: torch.Tensor) -> Outputs:
        """What the heads make of the bottleneck."""
        if self.recipe.tokens == "corner":
            tokens_ACN = bottleneck_ACXYZ.flatten(2)
            for_rotation_AC, for_contrast_AC = tokens_ACN[..., 0], tokens_ACN[..., 1]
        else:
            for_rotation_AC = for_contrast_AC = pooled(bottleneck_ACXYZ)
        return Outputs(
            self.rotation(for_rotation_AC),
            self.contrast(for_contrast_AC),
            self.reconstruction(bottleneck_ACXYZ),
        )


def _demand_square(axis: views.Axis, crop_XYZ: tuple[int, int, int]) -> None:
    first, second = (crop_XYZ[dimension - 2] for dimension in views.PLANES[axis])
    if first != second:
        raise ValueError(
            f"a quarter turn about {axis} needs a crop that is square across it, not {first} x "
            f"{second}; choose equal sides there, or another rotation_axis"
        )


def _demand_negatives(recipe: Swin3Recipe, batch: int) -> None:
    processes = ranks.world()[1]
    if batch < 2 and recipe.negatives_among is None:
        raise ValueError(
            "contrast in a micro-batch of one crop has no negatives; raise micro_batch to 2 or "
            "more, or set negatives_among to the crops of all processes together"
        )
    if recipe.negatives_among not in {None, batch, batch * processes}:
        who = "1 process holds" if processes == 1 else f"{processes} processes hold"
        raise ValueError(
            f"negatives_among is {recipe.negatives_among} crops, but {who} {batch * processes} at "
            f"once with a micro_batch of {batch}; choose a number of processes and a micro_batch "
            f"whose product is {recipe.negatives_among}"
        )

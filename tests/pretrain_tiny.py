"""Backbones small enough for two cores, and how to make one that has learned something."""

from typing import Any

import torch

from pretrain.backbones import Backbone, SwinSizes, UNetSizes, build

SWIN = SwinSizes(feature_size=12, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), window=2)
UNET = UNetSizes(width=4, levels=3)
CROP = (64, 32, 32)
"""The smallest a Swin UNETR can train on."""


def trained(sizes: SwinSizes | UNetSizes, seed: int = 1, **options: Any) -> Backbone:
    """A backbone that no longer has anybody's initial values, constants included."""
    backbone = build(sizes, 1, seed, **options)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in backbone.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=random))
    return backbone

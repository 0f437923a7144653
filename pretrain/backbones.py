"""Both backbones behind one `build`: Swin UNETR and the 3D U-Net."""

from typing import Annotated

import torch
from pydantic import Discriminator, Tag

from pretrain.network import Backbone, Transferred
from pretrain.swin import SwinSizes, SwinUnetr
from pretrain.unet import UNet, UNetSizes
from synth_ct.kit.recipe import kind_of
from synth_ct.kit.seeds import seed_for

__all__ = ["Backbone", "BackboneSizes", "SwinSizes", "Transferred", "UNetSizes", "build"]


Swin = Annotated[SwinSizes, Tag("swin_unetr")]
Cicek = Annotated[UNetSizes, Tag("unet")]
BackboneSizes = Annotated[Swin | Cicek, Discriminator(kind_of)]


def build(
    sizes: SwinSizes | UNetSizes,
    out_channels: int,
    generator_seed: int,
    *,
    fused_windows: bool = False,
) -> Backbone:
    """A network whose initial weights depend on sizes and seed alone, and the head's on its width.

    `fused_windows`: attention in one kernel, for speed; the U-Net has none.
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed accelerators too.
        torch.default_generator.manual_seed(seed_for(generator_seed, f"{sizes.kind} weights"))
        if isinstance(sizes, SwinSizes):
            return SwinUnetr(sizes, out_channels, fused_windows)
        return UNet(sizes, out_channels)

"""The 3D U-Net of Cicek et al.: two convolutions a level, max-pooling down, skips across.

Tensor by tensor it is the network whose weights Models Genesis and SuPreM publish;
`genesis_key` says what each is called there.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.network import Backbone
from synth_ct.kit.recipe import Recipe


class UNetSizes(Recipe):
    """Level l: a convolution to `width` 2^l channels, then one to twice as many."""

    kind: Literal["unet"] = "unet"
    in_channels: int = Field(default=1, ge=1)
    width: int = Field(default=32, ge=1)
    """32 and 4 levels: 32-64, 64-128, 128-256, 256-512 channels."""
    levels: int = Field(default=4, ge=2, le=6)
    norm: Literal["batch", "instance"] = "batch"
    """Batch is the paper's; instance does not depend on the other samples."""


class Convolution(nn.Module):
    """3 x 3 x 3, norm, ReLU."""

    def __init__(self, before: int, after: int, norm: Literal["batch", "instance"]) -> None:
        super().__init__()
        self.conv = nn.Conv3d(before, after, 3, padding=1)
        self.norm = _norm(norm, after)

    def forward(self, x_BCXYZ: Tensor) -> Tensor:
        """relu(norm(conv x))."""
        return F.relu(self.norm(self.conv(x_BCXYZ)))


class Rise(nn.Module):
    """Twice the side, the skip beside it, two convolutions."""

    def __init__(self, below: int, skip: int, norm: Literal["batch", "instance"]) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(below, below, 2, stride=2)
        self.convs = nn.Sequential(
            Convolution(below + skip, skip, norm), Convolution(skip, skip, norm)
        )

    def forward(self, x_BCXYZ: Tensor, skip_BCXYZ: Tensor) -> Tensor:
        """convs([up x, skip])."""
        joined_BCXYZ = torch.cat((self.up(x_BCXYZ), skip_BCXYZ), dim=1)
        out_BCXYZ: Tensor = self.convs(joined_BCXYZ)
        return out_BCXYZ


def _norm(kind: Literal["batch", "instance"], channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    return nn.InstanceNorm3d(channels, affine=True)


class UNet(Backbone):
    """Contracting path, expanding path, and a last layer of 1 x 1 x 1."""

    encoder: ClassVar[str] = "down."
    head: ClassVar[str] = "out."

    def __init__(self, sizes: UNetSizes, out_channels: int) -> None:
        super().__init__()
        self.sizes = sizes
        first = [sizes.width * 2**level for level in range(sizes.levels)]
        self.channels = tuple(2 * width for width in first)
        self.strides = tuple(2**level for level in range(sizes.levels))
        entering = [sizes.in_channels, *self.channels]
        self.down = nn.ModuleList(
            nn.Sequential(
                Convolution(enters, width, sizes.norm), Convolution(width, 2 * width, sizes.norm)
            )
            for enters, width in zip(entering, first, strict=False)
        )
        self.up = nn.ModuleList(
            Rise(below, skip, sizes.norm)
            for skip, below in zip(self.channels, self.channels[1:], strict=False)
        )
        self.out = nn.Conv3d(self.channels[0], out_channels, 1)

    def encode(self, ct_B1XYZ: Tensor) -> tuple[Tensor, ...]:
        """What each level makes of the one above, halved; the finest has the crop's own size."""
        self.demand_sides(ct_B1XYZ.shape[2:])
        x_BCXYZ, maps = ct_B1XYZ, []
        for level, block in enumerate(self.down):
            x_BCXYZ = block(F.max_pool3d(x_BCXYZ, 2) if level else x_BCXYZ)
            maps.append(x_BCXYZ)
        return tuple(maps)

    def decode(self, ct_B1XYZ: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Up again, level by level."""
        del ct_B1XYZ  # the finest map has its size already
        x_BCXYZ = maps[-1]
        for rise, skip_BCXYZ in zip(reversed(self.up), reversed(maps[:-1]), strict=True):
            x_BCXYZ = rise(x_BCXYZ, skip_BCXYZ)
        out_BCXYZ: Tensor = self.out(x_BCXYZ)
        return out_BCXYZ


def genesis_key(key: str) -> str:
    """What Models Genesis and SuPreM call a tensor of the default sizes.

    >>> genesis_key("down.2.1.norm.running_mean")
    'down_tr256.ops.1.bn1.running_mean'
    >>> genesis_key("up.0.up.bias")
    'up_tr64.up_conv.bias'
    """
    path, _, rest = key.partition(".")
    if path == "out":
        return f"out_tr.final_conv.{rest}"
    level, _, rest = rest.partition(".")
    block = f"{path}_tr{64 * 2 ** int(level)}"
    if rest.startswith("up."):
        return f"{block}.up_conv.{rest.removeprefix('up.')}"
    index, layer, tensor = rest.removeprefix("convs.").split(".")
    return f"{block}.ops.{index}.{ {'conv': 'conv1', 'norm': 'bn1'}[layer] }.{tensor}"

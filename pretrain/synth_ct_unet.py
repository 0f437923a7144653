"""The 3D U-Net of `pretrain.unet` as nnU-Net builds and loads networks; needs PyTorch alone.

nnU-Net holds arrays as C Z Y X and skips keys with `.seg_layers.` when it loads weights. An encoder
exported to it comes with its kernels turned to these axes, and with a copy of this file.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Convolution(nn.Module):
    """relu(norm(conv x))."""

    def __init__(self, before: int, after: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv3d(before, after, 3, padding=1)
        batch = norm == "batch"
        self.norm = nn.BatchNorm3d(after) if batch else nn.InstanceNorm3d(after, affine=True)

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Of the same side."""
        return F.relu(self.norm(self.conv(x_BCZYX)))


class Rise(nn.Module):
    """convs([up x, skip])."""

    def __init__(self, below: int, skip: int, norm: str) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(below, below, 2, stride=2)
        self.convs = nn.Sequential(
            Convolution(below + skip, skip, norm), Convolution(skip, skip, norm)
        )

    def forward(self, x_BCZYX: Tensor, skip_BCZYX: Tensor) -> Tensor:
        """Of the skip's side."""
        out_BCZYX: Tensor = self.convs(torch.cat((self.up(x_BCZYX), skip_BCZYX), dim=1))
        return out_BCZYX


class Decoder(nn.Module):
    """The way up, and the head where nnU-Net looks for it."""

    deep_supervision = False
    """nnU-Net's trainer sets it."""

    def __init__(self, channels: list[int], classes: int, norm: str) -> None:
        super().__init__()
        self.up = nn.ModuleList(Rise(below, skip, norm) for skip, below in pairwise(channels))
        self.seg_layers = nn.ModuleList([nn.Conv3d(channels[0], classes, 1)])

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Logits of the finest side."""
        x_BCZYX = maps[-1]
        for rise, skip_BCZYX in zip(reversed(self.up), reversed(maps[:-1]), strict=True):
            x_BCZYX = rise(x_BCZYX, skip_BCZYX)
        out_BCZYX: Tensor = self.seg_layers[0](x_BCZYX)
        return out_BCZYX


class UNet(nn.Module):
    """Sides are multiples of 2^(levels - 1)."""

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        width: int = 32,
        levels: int = 4,
        norm: str = "batch",
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if deep_supervision:
            raise ValueError("it has one output: train it with nnUNetTrainerNoDeepSupervision")
        first = [width * 2**level for level in range(levels)]
        channels = [2 * each for each in first]
        entering = [input_channels, *channels]
        self.down = nn.ModuleList(
            nn.Sequential(Convolution(enters, each, norm), Convolution(each, 2 * each, norm))
            for enters, each in zip(entering, first, strict=False)
        )
        self.decoder = Decoder(channels, num_classes, norm)

    def forward(self, ct_BCZYX: Tensor) -> Tensor:
        """HU in [-1, 1] to logits."""
        x_BCZYX, maps = ct_BCZYX, []
        for level, block in enumerate(self.down):
            x_BCZYX = block(F.max_pool3d(x_BCZYX, 2) if level else x_BCZYX)
            maps.append(x_BCZYX)
        out_BCZYX: Tensor = self.decoder(maps)
        return out_BCZYX

"""Heads that objectives put on a backbone."""

from typing import Literal, NamedTuple

import torch
from torch import nn

from pretrain.backbones import Backbone

Decoder = Literal["backbone", "head"]
"""Whose decoder gives full-size outputs: the backbone's own, or a light head on its bottleneck."""
NARROWEST = 16
"""A head's channels are halved down to this part of the bottleneck's."""


def pooled(features_BCXYZ: torch.Tensor) -> torch.Tensor:
    """Mean over space, BC."""
    return features_BCXYZ.mean((2, 3, 4))


class UpsamplingHead(nn.Module):
    """From the bottleneck to full size: convolve, normalise, enlarge twofold, until it is reached.

    At a stride of 32 this is the default head of the public Swin UNETR pretraining: five times
    [3^3 convolution, InstanceNorm, LeakyReLU, trilinear x 2], then a 1^3 convolution.
    """

    def __init__(self, channels: int, stride: int, out_channels: int = 1) -> None:
        super().__init__()
        assert stride & (stride - 1) == 0, f"strides are powers of two, not {stride}"
        parts: list[nn.Module] = []
        width = channels
        for halving in range(1, stride.bit_length()):
            narrower = max(channels // min(2**halving, NARROWEST), 1)
            parts += [
                nn.Conv3d(width, narrower, 3, padding=1),
                nn.InstanceNorm3d(narrower),
                nn.LeakyReLU(),
                nn.Upsample(scale_factor=2, mode="trilinear"),
            ]
            width = narrower
        self.net = nn.Sequential(*parts, nn.Conv3d(width, out_channels, 1))

    def forward(self, features_BCXYZ: torch.Tensor) -> torch.Tensor:
        """Full-size outputs."""
        out_BCXYZ: torch.Tensor = self.net(features_BCXYZ)
        return out_BCXYZ


class FullSize(NamedTuple):
    """What a network makes of a crop, and the bottleneck it came through."""

    out_BCXYZ: torch.Tensor
    bottleneck_BCXYZ: torch.Tensor


class FullSizeOutput(nn.Module):
    """Outputs at full size through the backbone's decoder, or through a light head of its own."""

    def __init__(self, decoder: Decoder, backbone: Backbone, out_channels: int) -> None:
        super().__init__()
        self._out_channels = out_channels
        channels, stride = backbone.channels[-1], backbone.strides[-1]
        own = UpsamplingHead(channels, stride, out_channels)
        self.head: nn.Module | None = own if decoder == "head" else None

    def forward(self, backbone: Backbone, ct_B1XYZ: torch.Tensor) -> FullSize:
        """One pass."""
        maps = backbone.encode(ct_B1XYZ)
        if self.head is not None:
            return FullSize(self.head(maps[-1]), maps[-1])
        out_BCXYZ = backbone.decode(ct_B1XYZ, maps)
        if out_BCXYZ.shape[1] != self._out_channels:
            raise ValueError(
                f"the backbone's decoder gives {out_BCXYZ.shape[1]} channels, this objective needs "
                f"{self._out_channels}; build the backbone with out_channels={self._out_channels}"
            )
        return FullSize(out_BCXYZ, maps[-1])

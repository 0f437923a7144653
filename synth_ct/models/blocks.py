"""What all our convolutional networks are built of, in two and in three dimensions."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

Dims = Literal[2, 3]
CONV = {2: nn.Conv2d, 3: nn.Conv3d}


def group_norm(channels: int, groups: int = 8) -> nn.GroupNorm:
    """Zero mean and unit variance in each group of channels of each item, then scale and shift."""
    return nn.GroupNorm(groups, channels, eps=1e-6)


def conv3(dims: Dims, in_channels: int, out_channels: int) -> nn.Module:
    """A 3-wide convolution that keeps the size."""
    return CONV[dims](in_channels, out_channels, 3, padding=1)


class ResidualBlock(nn.Module):
    """x + F(x), F = (norm, SiLU, conv 3) twice; the skip is 1-wide where channels change."""

    def __init__(self, dims: Dims, in_channels: int, out_channels: int, groups: int = 8) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, groups)
        self.conv1 = conv3(dims, in_channels, out_channels)
        self.norm2 = group_norm(out_channels, groups)
        self.conv2 = conv3(dims, out_channels, out_channels)
        changes = in_channels != out_channels
        self.skip = CONV[dims](in_channels, out_channels, 1) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x: B, in_channels, then `dims` axes."""
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(functional.silu(self.norm2(h)))
        out: Tensor = self.skip(x) + h
        return out

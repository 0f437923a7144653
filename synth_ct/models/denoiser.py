"""The denoiser: a UNet on latents that convolves in one image plane and attends across it.

Its 3x3x1 convolutions never look along the remaining axis, so the slices along it are folded into
the batch once, at the door, and all the net is two-dimensional: a batched 2D convolution is the
fast and the trustworthy kernel on every device. Only attention along the axis unfolds them again.
Group norms see one slice at a time. `N` below is item times slice, `L` a row of tokens.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from synth_ct.kit.recipe import Recipe
from synth_ct.models.blocks import conv3, group_norm

Plane = Literal["axial", "coronal", "sagittal"]
AXIS = {"sagittal": 2, "coronal": 3, "axial": 4}
"""Where in BCXYZ the axis lies that is not in the plane."""

TIME_WIDTH = 4
"""Width of the time embedding, in widths of the net."""
LONGEST_PERIOD = 10_000.0


class DenoiserSizes(Recipe):
    """The network's shape."""

    latent_channels: int = Field(default=8, gt=0)
    width: int = Field(default=64, gt=0)
    multipliers: tuple[int, ...] = Field(default=(1, 2, 4, 8), min_length=1)
    """Widths of the levels, in `width`; the plane halves from each to the next."""
    plane: Plane = "axial"
    conditioning: Literal["cross", "concat"] = "cross"
    """Attend to the prior as the paper says, or stack it on the latent as its code does."""
    attend_from: int = Field(default=1, ge=0)
    """First level with attention inside the plane, and to the prior: 16x16 of a plane of 32x32."""
    heads: int = Field(default=8, gt=0)
    head_width: int = Field(default=32, gt=0)
    groups: int = Field(default=8, gt=0)
    longest: int = Field(default=32, gt=0)
    """Voxels a side of the largest latent: positions farther apart have no learned distance."""

    @model_validator(mode="after")
    def _relations(self) -> "DenoiserSizes":
        if self.width % self.groups or self.width % 2:
            raise ValueError(
                f"width {self.width} must be even and a multiple of groups {self.groups}; "
                "choose another of the two"
            )
        if self.conditioning == "cross" and self.attend_from >= len(self.multipliers):
            raise ValueError(
                f"attend_from {self.attend_from} leaves none of the {len(self.multipliers)} levels "
                "attending to the prior: it would never be seen; choose a smaller attend_from"
            )
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)


class Denoiser(nn.Module):
    """(z, t, prior) -> what is to be predicted of z: noise, or velocity."""

    def __init__(self, sizes: DenoiserSizes) -> None:
        super().__init__()
        self.sizes = sizes
        widths, time_width = sizes.widths, TIME_WIDTH * sizes.width
        stacked = 2 if sizes.conditioning == "concat" else 1
        self.time = nn.Sequential(
            nn.Linear(sizes.width, time_width), nn.SiLU(), nn.Linear(time_width, time_width)
        )
        self.patches = _patches(sizes)
        self.first = conv3(2, stacked * sizes.latent_channels, sizes.width)
        self.entry, self.exit = Across(sizes, sizes.width), Across(sizes, sizes.width)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        narrower = (sizes.width, *widths[:-1])
        for level, (narrow, wide) in enumerate(zip(narrower, widths, strict=True)):
            self.down.append(Stage(sizes, level, narrow, wide))
            self.up.append(Stage(sizes, level, 2 * wide, narrow))
        self.shrink = nn.ModuleList(nn.Conv2d(c, c, 4, 2, padding=1) for c in widths[:-1])
        self.grow = nn.ModuleList(nn.ConvTranspose2d(c, c, 4, 2, padding=1) for c in widths[:-1])
        self.middle = Stage(sizes, len(widths) - 1, widths[-1], widths[-1])
        self.last_block = TimedBlock(2 * sizes.width, sizes.width, sizes)
        self.last_norm = group_norm(sizes.width, sizes.groups)
        self.last = conv3(2, sizes.width, sizes.latent_channels)
        _zero(self.last)

    def forward(self, z_BCXYZ: Tensor, time_B: Tensor, prior_BCXYZ: Tensor) -> Tensor:
        """Times lie in [0, 1000)."""
        self._demand_fit(z_BCXYZ, prior_BCXYZ)
        axis = AXIS[self.sizes.plane]
        items, slices = z_BCXYZ.shape[0], z_BCXYZ.shape[axis]
        z_NCHW, prior_NCHW = fold(z_BCXYZ, axis), fold(prior_BCXYZ, axis)
        time_NK = self._time(time_B, slices)
        contexts = {int(level): tokens(cut(prior_NCHW)) for level, cut in self.patches.items()}
        if self.sizes.conditioning == "concat":
            z_NCHW = torch.cat([z_NCHW, prior_NCHW], 1)

        plane = z_NCHW.shape[2:]
        first = x = image(self.entry(tokens(self.first(z_NCHW)), slices), plane)
        skips = []
        for level, stage in enumerate(self.down):
            x = self.shrink[level - 1](x) if level else x
            x = stage(x, time_NK, slices, contexts.get(level))
            skips.append(x)
        x = self.middle(x, time_NK, slices, contexts.get(len(self.down) - 1))
        for level, stage in reversed(list(enumerate(self.up))):
            x = stage(torch.cat([x, skips[level]], 1), time_NK, slices, contexts.get(level))
            x = self.grow[level - 1](x) if level else x
        x = self.last_block(torch.cat([x, first], 1), time_NK)
        x = image(self.exit(tokens(x), slices), plane)
        x = self.last(functional.silu(self.last_norm(x)))
        return unfold(x, axis, items)

    def _time(self, time_B: Tensor, slices: int) -> Tensor:
        """The embedding of each item's time, for each of its slices."""
        waves_BK = sinusoids(time_B, self.sizes.width).to(next(self.parameters()).dtype)
        time_BK: Tensor = functional.silu(self.time(waves_BK))
        return time_BK.unsqueeze(1).expand(-1, slices, -1).flatten(0, 1)

    def _demand_fit(self, z_BCXYZ: Tensor, prior_BCXYZ: Tensor) -> None:
        if z_BCXYZ.shape != prior_BCXYZ.shape:
            raise ValueError(
                f"a latent of {list(z_BCXYZ.shape)} cannot be denoised towards a prior of "
                f"{list(prior_BCXYZ.shape)}; both come from volume and film of one size"
            )
        sides = z_BCXYZ.shape[2:]
        halvings = len(self.sizes.multipliers) - 1
        in_plane = [side for n, side in enumerate(sides, 2) if n != AXIS[self.sizes.plane]]
        if any(side % 2**halvings or side < 2 ** (halvings + 1) for side in in_plane):
            raise ValueError(
                f"a plane of {in_plane[0]}x{in_plane[1]} cannot be halved {halvings} times and "
                f"stay 2x2 or larger; use fewer than {halvings + 1} multipliers, or larger volumes"
            )
        if max(sides) > self.sizes.longest:
            raise ValueError(
                f"a latent of {max(sides)} voxels a side is larger than longest "
                f"{self.sizes.longest}; build the denoiser with longest {max(sides)}"
            )


def _patches(sizes: DenoiserSizes) -> nn.ModuleDict:
    """For each level that attends to the prior: patches of it, one for each pixel there."""
    levels = range(sizes.attend_from, len(sizes.multipliers))
    convolutions = {
        str(level): nn.Conv2d(sizes.latent_channels, sizes.width, 2**level, 2**level)
        for level in levels
    }
    return nn.ModuleDict(convolutions if sizes.conditioning == "cross" else {})


def _zero(layer: nn.Module) -> None:
    """The untrained net then predicts zero, the mean of what it has to predict."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


# ---- folding -----------------------------------------------------------------------------------


def fold(x_BCXYZ: Tensor, axis: int) -> Tensor:
    """Each slice across `axis` becomes an item of the batch: N = B * slices."""
    slices_BSCHW = x_BCXYZ.movedim(axis, 1)
    return slices_BSCHW.flatten(0, 1).contiguous()


def unfold(x_NCHW: Tensor, axis: int, items: int) -> Tensor:
    """The inverse of `fold`."""
    slices_BSCHW: Tensor = x_NCHW.unflatten(0, (items, -1))
    return slices_BSCHW.movedim(1, axis).contiguous()


def tokens(x_NCHW: Tensor) -> Tensor:
    """The pixels of each slice, row after row, as N, L, C."""
    return x_NCHW.flatten(2).transpose(1, 2)


def image(x_NLC: Tensor, grid: Sequence[int]) -> Tensor:
    """The inverse of `tokens`."""
    x_NCHW: Tensor = x_NLC.transpose(1, 2).unflatten(2, tuple(grid))
    return x_NCHW


def sinusoids(time_B: Tensor, width: int) -> Tensor:
    """sin(t w_k), cos(t w_k) with w_k = 10000^(-k / K), k < K = width / 2."""
    half = width // 2
    k = torch.arange(half, device=time_B.device, dtype=torch.float32)
    phase_BK = time_B.float().unsqueeze(1) * torch.exp(k * (-math.log(LONGEST_PERIOD) / half))
    return torch.cat([phase_BK.sin(), phase_BK.cos()], 1)


# ---- parts -------------------------------------------------------------------------------------


class TimedBlock(nn.Module):
    """skip(x) + F(x), F = norm, SiLU, conv, norm, scale and shift by time, SiLU, conv."""

    def __init__(self, in_channels: int, out_channels: int, sizes: DenoiserSizes) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels, sizes.groups)
        self.conv1 = conv3(2, in_channels, out_channels)
        self.film = nn.Linear(TIME_WIDTH * sizes.width, 2 * out_channels)
        self.norm2 = group_norm(out_channels, sizes.groups)
        self.conv2 = conv3(2, out_channels, out_channels)
        changes = in_channels != out_channels
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if changes else nn.Identity()

    def forward(self, x_NCHW: Tensor, time_NK: Tensor) -> Tensor:
        """`time_NK` is the embedding after its activation."""
        scale_NC11, shift_NC11 = self.film(time_NK)[:, :, None, None].chunk(2, 1)
        h_NCHW = self.conv1(functional.silu(self.norm1(x_NCHW)))
        h_NCHW = torch.addcmul(shift_NC11, self.norm2(h_NCHW), 1 + scale_NC11)
        out_NCHW: Tensor = self.skip(x_NCHW) + self.conv2(functional.silu(h_NCHW))
        return out_NCHW


class Stage(nn.Module):
    """Two residual blocks at one level, then attention: in the plane, to the prior, across it."""

    def __init__(
        self, sizes: DenoiserSizes, level: int, in_channels: int, out_channels: int
    ) -> None:
        super().__init__()
        attends = level >= sizes.attend_from
        side = max(1, sizes.longest >> level)
        self.block1 = TimedBlock(in_channels, out_channels, sizes)
        self.block2 = TimedBlock(out_channels, out_channels, sizes)
        self.plane = Attention(sizes, out_channels, None, (side, side)) if attends else None
        self.prior = None
        if attends and sizes.conditioning == "cross":
            self.prior = Attention(sizes, out_channels, sizes.width, (side, side))
        self.across = Across(sizes, out_channels)

    def forward(
        self, x_NCHW: Tensor, time_NK: Tensor, slices: int, context_NLC: Tensor | None
    ) -> Tensor:
        """`slices` of them make an item; `context_NLC` is the prior at this level."""
        x_NCHW = self.block2(self.block1(x_NCHW, time_NK), time_NK)
        grid = x_NCHW.shape[2:]
        x_NLC = tokens(x_NCHW)
        if self.plane is not None:
            x_NLC = x_NLC + self.plane(x_NLC, grid)
        if self.prior is not None:
            x_NLC = x_NLC + self.prior(x_NLC, grid, context_NLC)
        return image(self.across(x_NLC, slices), grid)


class Across(nn.Module):
    """x + attention of each pixel to the same pixel of all slices of its item."""

    def __init__(self, sizes: DenoiserSizes, channels: int) -> None:
        super().__init__()
        self.attention = Attention(sizes, channels, None, (sizes.longest,))

    def forward(self, x_NLC: Tensor, slices: int) -> Tensor:
        """`slices` of them make an item."""
        x_BSLC = x_NLC.unflatten(0, (-1, slices))
        seen_BLSC: Tensor = self.attention(x_BSLC.transpose(1, 2), (slices,))
        out_NLC: Tensor = (x_BSLC + seen_BLSC.transpose(1, 2)).flatten(0, 1)
        return out_NLC


class Attention(nn.Module):
    """softmax(q k / sqrt(d) + b) v in each head; b is learned for each distance on a grid."""

    def __init__(
        self,
        sizes: DenoiserSizes,
        channels: int,
        context_channels: int | None,
        longest: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.heads, inner = sizes.heads, sizes.heads * sizes.head_width
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, inner, bias=False)
        self.key_value = nn.Linear(context_channels or channels, 2 * inner, bias=False)
        self.out = nn.Linear(inner, channels)
        self.distances = nn.ParameterList(
            nn.Parameter(torch.zeros(sizes.heads, 2 * side - 1)) for side in longest
        )

    def forward(self, x: Tensor, grid: Sequence[int], context: Tensor | None = None) -> Tensor:
        """x: any axes, then tokens that lie on `grid` and channels; context likewise, or x."""
        x = self.norm(x)
        q = self._heads(self.query(x))
        k, v = self.key_value(x if context is None else context).chunk(2, -1)
        bias_1HLL = self._bias(grid)[None].to(q.dtype)
        out = functional.scaled_dot_product_attention(q, self._heads(k), self._heads(v), bias_1HLL)
        shaped: Tensor = self.out(out.transpose(1, 2).flatten(2)).view_as(x)
        return shaped

    def _heads(self, x: Tensor) -> Tensor:
        """..., L, H * D -> N, H, L, D."""
        return x.reshape(-1, x.shape[-2], self.heads, x.shape[-1] // self.heads).transpose(1, 2)

    def _bias(self, grid: Sequence[int]) -> Tensor:
        """b_h(i, j) = sum over the grid's axes of a table of j - i."""
        if len(grid) == 1:
            return sliding(self.distances[0], grid[0]).flip(1)
        rows_HUU, columns_HVV = map(sliding, self.distances, grid)
        bias_HUVUV: Tensor = rows_HUU[:, :, None, :, None] + columns_HVV[:, None, :, None, :]
        return bias_HUVUV.flip(1, 2).flatten(3).flatten(1, 2)


def sliding(table_HK: Tensor, length: int) -> Tensor:
    """Row i holds table(j - (length - 1 - i)) for every j: flip the rows, and it is table(j - i).

    Distance 0 stands in the table's middle. A window on it costs no kernel, unlike a gather.
    """
    middle = table_HK.shape[1] // 2
    return table_HK[:, middle - length + 1 : middle + length].unfold(1, length, 1)

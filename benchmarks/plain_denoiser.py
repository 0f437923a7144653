"""The denoiser as its equations are usually written: the same weights, another program.

One five-dimensional tensor throughout, (1, 3, 3) convolutions, norms and activations by hand, every
attention with its full matrix of scores. It is what `synth_ct.models.denoiser` is raced against,
and an independent check of it.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from synth_ct.models.denoiser import (
    AXIS,
    Across,
    Attention,
    Denoiser,
    Stage,
    TimedBlock,
    sinusoids,
)


class PlainDenoiser(nn.Module):
    """A denoiser's weights, run the usual way. S are the slices, H and W their rows and columns."""

    def __init__(self, net: Denoiser) -> None:
        super().__init__()
        self.net = net

    def forward(self, z_BCXYZ: Tensor, time_B: Tensor, prior_BCXYZ: Tensor) -> Tensor:
        """The same numbers as the denoiser's, but for rounding."""
        net, axis = self.net, AXIS[self.net.sizes.plane]
        x, prior = z_BCXYZ.movedim(axis, 2), prior_BCXYZ.movedim(axis, 2)
        time_BK = swish(net.time(sinusoids(time_B, net.sizes.width)))
        contexts = {int(k): rows(convolved(c, prior)) for k, c in net.patches.items()}
        if net.sizes.conditioning == "concat":
            x = torch.cat([x, prior], 1)
        first = x = across(net.entry, convolved(net.first, x))
        skips = []
        for level, stage in enumerate(net.down):
            x = convolved(net.shrink[level - 1], x) if level else x
            x = staged(stage, x, time_BK, contexts.get(level))
            skips.append(x)
        x = staged(net.middle, x, time_BK, contexts.get(len(skips) - 1))
        for level in reversed(range(len(skips))):
            x = torch.cat([x, skips[level]], 1)
            x = staged(net.up[level], x, time_BK, contexts.get(level))
            x = convolved(net.grow[level - 1], x) if level else x
        x = across(net.exit, block(net.last_block, torch.cat([x, first], 1), time_BK))
        x = convolved(net.last, swish(group_normed(net.last_norm, x)))
        return x.movedim(2, axis)


def staged(stage: nn.Module, x: Tensor, time_BK: Tensor, context: Tensor | None) -> Tensor:
    """Two blocks, then attention in the plane, to the prior, across it."""
    assert isinstance(stage, Stage)
    x = block(stage.block2, block(stage.block1, x, time_BK), time_BK)
    grid = x.shape[3:]
    seen = rows(x)
    if stage.plane is not None:
        seen = seen + attended(stage.plane, seen, tuple(grid), None)
    if stage.prior is not None:
        seen = seen + attended(stage.prior, seen, tuple(grid), context)
    return across(stage.across, seen.unflatten(2, tuple(grid)).permute(0, 4, 1, 2, 3))


def across(layer: Across, x: Tensor) -> Tensor:
    """x + attention of each pixel along S."""
    lines_BHWSC = x.permute(0, 3, 4, 2, 1)
    slices = (lines_BHWSC.shape[3],)
    lines_BHWSC = lines_BHWSC + attended(layer.attention, lines_BHWSC, slices, None)
    return lines_BHWSC.permute(0, 4, 3, 1, 2)


def rows(x: Tensor) -> Tensor:
    """BCSHW -> B, S, HW, C."""
    return x.permute(0, 2, 3, 4, 1).flatten(2, 3)


def block(layer: TimedBlock, x: Tensor, time_BK: Tensor) -> Tensor:
    """skip(x) + F(x)."""
    scale, shift = layer.film(time_BK)[:, :, None, None, None].chunk(2, 1)
    h = convolved(layer.conv1, swish(group_normed(layer.norm1, x)))
    h = swish(group_normed(layer.norm2, h) * (scale + 1) + shift)
    skip = convolved(layer.skip, x) if isinstance(layer.skip, nn.Conv2d) else x
    return skip + convolved(layer.conv2, h)


def convolved(layer: nn.Module, x: Tensor) -> Tensor:
    """A 2D layer as (1, k, k) in three dimensions."""
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    up = isinstance(layer, nn.ConvTranspose2d)
    convolve = functional.conv_transpose3d if up else functional.conv3d
    stride, padding = (1, *layer.stride), (0, *(int(p) for p in layer.padding))
    out: Tensor = convolve(x, layer.weight[:, :, None], layer.bias, stride=stride, padding=padding)
    return out


def swish(x: Tensor) -> Tensor:
    """x s(x)."""
    return x * torch.sigmoid(x)


def group_normed(layer: nn.GroupNorm, x: Tensor) -> Tensor:
    """(x - mean) / sqrt(var + eps) over the group's channels in one slice."""
    grouped = x.unflatten(1, (layer.num_groups, -1))
    mean = grouped.mean((2, 4, 5), keepdim=True)
    variance = (grouped - mean).square().mean((2, 4, 5), keepdim=True)
    normal: Tensor = ((grouped - mean) / torch.sqrt(variance + layer.eps)).flatten(1, 2)
    return normal * layer.weight.view(-1, 1, 1, 1) + layer.bias.view(-1, 1, 1, 1)


def layer_normed(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """(x - mean) / sqrt(var + eps) over channels."""
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + layer.eps) * layer.weight + layer.bias


def attended(layer: Attention, x: Tensor, grid: tuple[int, ...], context: Tensor | None) -> Tensor:
    """softmax(q k / sqrt(d) + b) v, all scores in memory."""
    x = layer_normed(layer.norm, x)
    q, (k, v) = layer.query(x), layer.key_value(x if context is None else context).chunk(2, -1)
    q, k, v = (t.unflatten(-1, (layer.heads, -1)).transpose(-2, -3) for t in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + looked_up(layer, grid)
    seen: Tensor = layer.out((scores.softmax(-1) @ v).transpose(-2, -3).flatten(-2))
    return seen


def looked_up(layer: Attention, grid: tuple[int, ...]) -> Tensor:
    """b(i, j), each entry fetched from the table of distances."""
    device = layer.out.weight.device
    places_LA = torch.cartesian_prod(*(torch.arange(n, device=device) for n in grid))
    places_LA = places_LA.view(-1, len(grid))
    distance_LLA = places_LA[None] - places_LA[:, None]
    bias_HLL = torch.zeros((), device=device)
    for axis, table_HK in enumerate(layer.distances):
        bias_HLL = bias_HLL + table_HK[:, distance_LLA[..., axis] + table_HK.shape[1] // 2]
    return bias_HLL

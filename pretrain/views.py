"""Views of crops: rotated, cut out, pasted over, masked; on the crops' device, the batch at once.

Everything drawn for an item comes from a generator of its own, so that its view does not depend
on the companions it happens to have in a batch. Few numbers are drawn on the CPU (boxes, turns);
noise, of which there is much, is computed on the device from an item's seed, bit for bit the same
on any device. No function changes what it is given.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

Axis = Literal["x", "y", "z"]
Sides = tuple[int, int, int]

PLANES = {"x": (3, 4), "y": (2, 4), "z": (2, 3)}
"""The dimensions of a BCXYZ tensor in which a rotation about an axis turns."""
SMALLEST_BLOCK, LARGEST_BLOCK = 0.05, 0.25
"""Of a side; blocks that are cut out or pasted lie between."""
BLOCKS_AT_ONCE = 256


def generators_of_items(generator: torch.Generator, count: int) -> list[torch.Generator]:
    """One generator for each item; the first k are the same for every count of at least k."""
    seeds = torch.randint(2**62, (count,), generator=generator).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def seed_from(item: torch.Generator) -> int:
    """For noise on the device."""
    return int(torch.randint(2**62, (1,), generator=item))


def integer(item: torch.Generator, low: int, high: int) -> int:
    """One of low, ..., high."""
    return int(torch.randint(low, high + 1, (1,), generator=item))


def uniform(item: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """One number of [low, high)."""
    return low + (high - low) * float(torch.rand(1, generator=item))


# ---- rotation ----------------------------------------------------------------------------------


def rotated(ct_BCXYZ: torch.Tensor, turns_B: torch.Tensor, axis: Axis) -> torch.Tensor:
    """Each item turned by its own number of quarters; `turns_B` lies on the CPU."""
    turned_BCXYZ = torch.empty_like(ct_BCXYZ)
    for quarters in range(4):
        items = torch.nonzero(turns_B % 4 == quarters)[:, 0].to(ct_BCXYZ.device)
        turned_BCXYZ[items] = ct_BCXYZ[items].rot90(quarters, PLANES[axis])
    return turned_BCXYZ


# ---- noise -------------------------------------------------------------------------------------


def uniform_noise(
    seeds: Sequence[int], shape: tuple[int, ...], device: torch.device
) -> torch.Tensor:
    """Numbers of [0, 1) for each seed: the mixed bits of seed + counter, of which 24 are kept."""
    count = int(torch.Size(shape).numel())
    seed_B1 = torch.tensor(seeds, device=device)[:, None]
    counter_V = torch.arange(1, count + 1, device=device) * _signed(0x9E3779B97F4A7C15)
    bits_BV = _mixed(seed_B1 + counter_V)
    return (_shifted(bits_BV, 40).float() * 2.0**-24).view(len(seeds), *shape)


def normal_noise(
    seeds: Sequence[int], shape: tuple[int, ...], device: torch.device
) -> torch.Tensor:
    """Normal deviates: sqrt(-2 ln(1 - u)) cos(2 pi v)."""
    pair_B2 = uniform_noise(seeds, (2, *shape), device)
    u, v = pair_B2.unbind(1)
    return (-2 * torch.log1p(-u)).sqrt() * torch.cos(2 * torch.pi * v)


def _signed(bits: int) -> int:
    return bits - 2**64 if bits >= 2**63 else bits


def _shifted(bits: torch.Tensor, by: int) -> torch.Tensor:
    """A shift to the right that brings in zeros, not the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _mixed(bits: torch.Tensor) -> torch.Tensor:
    """The finalising steps of splitmix64; products wrap at 64 bits."""
    bits = (bits ^ _shifted(bits, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ _shifted(bits, 27)) * _signed(0x94D049BB133111EB)
    return bits ^ _shifted(bits, 31)


# ---- boxes -------------------------------------------------------------------------------------


class Boxes(NamedTuple):
    """Boxes of one item, or with a leading B of a batch: voxels lower <= v < upper."""

    lower_K3: torch.Tensor
    upper_K3: torch.Tensor


def scattered_boxes(item: torch.Generator, sides: Sides, share: float) -> Boxes:
    """Random boxes, one after another until their volumes sum to `share` of the crop.

    Each is 5 to 25 % of a side long, and cut where it leaves the crop; overlaps count twice.
    """
    target = share * sides[0] * sides[1] * sides[2]
    lower_K3 = upper_K3 = torch.empty(0, 3, dtype=torch.long)
    while True:
        before_K = torch.cumsum((upper_K3 - lower_K3).prod(1), 0)
        if target <= 0 or (len(before_K) and before_K[-1] >= target):
            kept = int((before_K < target).sum()) + 1 if target > 0 else 0
            return Boxes(lower_K3[:kept], upper_K3[:kept])
        more = _boxes_at_random(item, sides)
        lower_K3 = torch.cat([lower_K3, more.lower_K3])
        upper_K3 = torch.cat([upper_K3, more.upper_K3])


def _boxes_at_random(item: torch.Generator, sides: Sides) -> Boxes:
    lower, upper = [], []
    for side in sides:
        least = max(1, int(SMALLEST_BLOCK * side))
        beyond = max(least + 1, int(LARGEST_BLOCK * side))
        start_K = torch.randint(0, side - least, (BLOCKS_AT_ONCE,), generator=item)
        length_K = torch.randint(least, beyond, (BLOCKS_AT_ONCE,), generator=item)
        lower.append(start_K)
        upper.append((start_K + length_K).clamp(max=side))
    return Boxes(torch.stack(lower, 1), torch.stack(upper, 1))


def together(boxes: Sequence[Boxes]) -> Boxes:
    """BK3 from the boxes of each item, filled up with empty ones."""
    pad = torch.nn.utils.rnn.pad_sequence
    return Boxes(
        pad([b.lower_K3 for b in boxes], batch_first=True),
        pad([b.upper_K3 for b in boxes], batch_first=True),
    )


def inside(boxes: Boxes, sides: Sides, device: torch.device) -> list[torch.Tensor]:
    """For each axis BKS: whether a place along it lies between a box's faces."""
    lower_BK3, upper_BK3 = (part.to(device) for part in boxes)
    within = []
    for axis, side in enumerate(sides):
        place_S = torch.arange(side, device=device)
        after_BKS = place_S >= lower_BK3[..., axis, None]
        within.append(after_BKS & (place_S < upper_BK3[..., axis, None]))
    return within


def covered(boxes: Boxes, sides: Sides, device: torch.device) -> torch.Tensor:
    """B1XYZ: whether at least one of the item's boxes holds the voxel."""
    x_BKX, y_BKY, z_BKZ = (w.float() for w in inside(boxes, sides, device))
    count_BXYZ = torch.einsum("bkx,bky,bkz->bxyz", x_BKX, y_BKY, z_BKZ)
    return (count_BXYZ > 0)[:, None]


# ---- masks -------------------------------------------------------------------------------------


def block_mask(
    items: Sequence[torch.Generator], sides: Sides, block: Sides, share: float
) -> torch.Tensor:
    """B1XYZ on the CPU: the same share of the blocks of a regular grid in each item."""
    grid = [side // length for side, length in zip(sides, block, strict=True)]
    blocks = grid[0] * grid[1] * grid[2]
    hidden = round(share * blocks)
    masks = []
    for item in items:
        order_K = torch.randperm(blocks, generator=item)
        mask_XYZ = torch.zeros(blocks, dtype=torch.bool).index_fill(0, order_K[:hidden], True)
        mask_XYZ = mask_XYZ.view(grid)
        for axis, length in enumerate(block):
            mask_XYZ = mask_XYZ.repeat_interleave(length, axis)
        masks.append(mask_XYZ)
    return torch.stack(masks)[:, None]


# ---- pasting -----------------------------------------------------------------------------------


def pasted_in_turn(
    clean_B1XYZ: torch.Tensor,
    noisy_B1XYZ: torch.Tensor,
    where_B1XYZ: torch.Tensor,
    sources: Sequence[int],
) -> torch.Tensor:
    """Item after item takes another's voxels there: finished ones of an earlier item, clean ones
    of a later. An item whose source is itself stays as it is."""
    done: list[torch.Tensor] = []
    for item, source in enumerate(sources):
        own = noisy_B1XYZ[item]
        if source == item:
            done.append(own)
            continue
        other = done[source] if source < item else clean_B1XYZ[source]
        done.append(torch.where(where_B1XYZ[item], other, own))
    return torch.stack(done)

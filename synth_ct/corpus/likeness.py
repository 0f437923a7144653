"""How alike two volumes, or two films, are, whatever was done to one of them to hide it.

All thoraces look alike, so the mean of all that is compared is taken away first. What is left of
two patients hardly correlates; what is left of one patient does, after another grid, a small crop,
a small shift, a flip, and noise (docs/corpus.md has the margin).
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from synth_ct.kit.axes import HuArray

CELLS = 16
"""A side of a volume's descriptor; a film's has twice as many."""
WINDOWS = (
    ((1.0, 1.0, 1.0), 0.0),
    ((0.95, 0.95, 0.95), 0.0),
    ((1.0, 1.0, 1.05), 0.027),
    ((1.0, 1.0, 1.05), -0.027),
    ((1.0, 1.0, 0.95), 0.027),
    ((1.0, 1.0, 0.95), -0.027),
)
"""Widths of the window along X, Y, Z, and how far it is moved along Z, in its length: the most
alike undoes a crop of one of the two, on all sides or at one end of the body."""
REACH = 1.6
"""Half the window, in standard deviations of where the body is."""
SHOWN_HU = (-1000.0, 300.0)
BODY_HU = -500.0
SHIFT = 1
"""Cells by which two may be displaced."""
SUSPECT = 0.4
"""Correlation in place above which shifts are tried."""
LEAST_KNOWN = 8
"""With fewer to take the mean of, what two patients share is not known."""

Image = Float[ndarray, "..."]
Images = Float[ndarray, "n ..."]


class Alike(NamedTuple):
    """Numbers of two that are one, and how alike they are."""

    first: int
    second: int
    likeness: float


def descriptors(hu_XYZ: HuArray) -> list[Image]:
    """The body in a few cells a side, in a window as wide as it is, and in narrower ones."""
    shown_XYZ = np.clip(hu_XYZ.astype(np.float32), *SHOWN_HU)
    inside = hu_XYZ > BODY_HU
    places = [middle_and_deviation(inside, axis) for axis in range(3)]
    return [cell_means(shown_XYZ, _window(places, *window)) for window in WINDOWS]


def _window(
    places: Sequence[tuple[float, float]], scales: Sequence[float], moved: float
) -> list[tuple[float, float]]:
    """Middle and length along each axis."""
    lengths = [2 * REACH * sd * by for (_, sd), by in zip(places, scales, strict=True)]
    moves = (0.0, 0.0, moved * lengths[2])
    return [(m + by, n) for (m, _), by, n in zip(places, moves, lengths, strict=True)]


def middle_and_deviation(inside: ndarray, axis: int) -> tuple[float, float]:
    """Of the body along an axis, in voxels: they change by little where a box would jump."""
    share = inside.sum(tuple(a for a in range(inside.ndim) if a != axis), dtype=np.float64)
    place = np.arange(share.size)
    if not share.any():
        share = np.ones_like(share)
    middle = float((share * place).sum() / share.sum())
    return middle, float(np.sqrt((share * (place - middle) ** 2).sum() / share.sum()) or 1.0)


def cell_means(image: Image, windows: Sequence[tuple[float, float]]) -> Image:
    """Along each axis, cells in a window (middle, length): tents as wide as they are apart."""
    for axis, (middle, length) in enumerate(windows):
        size = image.shape[axis]
        centre = middle + length * ((np.arange(CELLS)[:, None] + 0.5) / CELLS - 0.5)
        width = max(1.0, length / CELLS)
        distance = np.abs(centre.clip(0, size - 1) - np.arange(size))
        weight = np.maximum(0, 1 - distance / width)
        weight = (weight / weight.sum(1, keepdims=True)).astype(np.float32)
        image = np.moveaxis(np.tensordot(weight, image, (1, axis)), 0, axis)
    return image


# ---- comparison --------------------------------------------------------------------------------


def alike(
    ours: Sequence[Sequence[Image]], theirs: Sequence[Image], least: float
) -> Iterator[Alike]:
    """Every pair of one of ours (in several windows) and one of theirs that is too much alike.

    r = max over crops, flips and shifts of corr(upright ours - mean, flipped theirs - mean)
    """
    if not ours or not theirs or len(ours) + len(theirs) < LEAST_KNOWN:
        return
    mean = np.mean([*(crops[0] for crops in ours), *theirs], axis=0)
    flips = list(flipped(mean.ndim))
    table = np.stack([unit(image[flip] - mean).ravel() for image in theirs for flip in flips])
    for n, crops in enumerate(ours):
        turn = most_like(mean, crops[0])
        parts = [unit(image[turn] - mean) for image in crops]
        likeness = np.stack([table @ part.ravel() for part in parts])
        likeness = likeness.reshape(len(parts), len(theirs), len(flips)).transpose(1, 0, 2)
        for m in np.flatnonzero(likeness.max((1, 2)) >= SUSPECT):
            part, flip = np.unravel_index(int(likeness[m].argmax()), likeness[m].shape)
            other = table[m * len(flips) + flip].reshape(mean.shape)
            r = shifted_likeness(parts[part], other)
            if r >= least:
                yield Alike(n, int(m), round(r, 4))


def most_like(mean: Image, image: Image) -> tuple[slice, ...]:
    """The flip that makes an image most like the mean: else the mean would stay in both of two
    that are turned alike, and they would look related.
    """
    usual = unit(mean)
    return max(flipped(mean.ndim), key=lambda flip: float((unit(image[flip]) * usual).sum()))


def flipped(axes: int) -> Iterator[tuple[slice, ...]]:
    """Every way to turn axes around."""
    return product((slice(None), slice(None, None, -1)), repeat=axes)


def unit(image: Image) -> Image:
    """Mean 0, length 1: the product of two is their correlation."""
    centred = image - image.mean()
    length = float(np.linalg.norm(centred))
    scaled: Image = centred / length if length > 0 else centred
    return scaled


def shifted_likeness(a: Image, b: Image) -> float:
    """Correlation of what overlaps after the best shift by a cell or none."""
    shifts: Iterable[tuple[int, ...]] = product(range(-SHIFT, SHIFT + 1), repeat=a.ndim)
    return max(_overlapping(a, b, shift) for shift in shifts)


def _overlapping(a: Image, b: Image, shift: tuple[int, ...]) -> float:
    in_a = tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(shift, a.shape, strict=True))
    in_b = tuple(slice(max(0, -s), n + min(0, -s)) for s, n in zip(shift, b.shape, strict=True))
    return float((unit(a[in_a]) * unit(b[in_b])).sum())

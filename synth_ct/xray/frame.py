"""Any radiograph to the model's input: one function for real films, phantom films and DRRs.

Geometry. A coarse picture of the upright frontal thorax (`THORAX`) is laid over the film wherever
it correlates best: position and size are searched along U and V apart, so a film that was squashed
(all of ChestXray2017 at 224 x 224 is, by an amount nobody recorded) ends at the same place as one
that was not. What the window covers becomes the input; the lung field then reaches from about 6 %
to 90 % of its height and from 15 % to 87 % of its width. The price is that absolute size and the
aspect of the chest are lost: the scale of what a model makes of a radiograph is nominal. Where no
thorax is found, the whole film is taken and the result carries the note `no_lung_field`.

Intensity. Bright is dense. The 1st and 99th percentile of the inner 80 % of the window (lungs,
heart, spine) become -0.8 and 0.8, linearly; beyond that, down to air and up to metal and markers,
values are clipped at -1 and 1. Line integrals, 8-bit and 16-bit films are treated alike.

Orientation is never changed here: rows run superior -> inferior, columns patient right -> left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import rankdata

from synth_ct.kit.axes import FilmArray, FilmBatch

PIXELS = 128
INNER = (0.1, 0.9)
"""The part of a framed film whose percentiles set the scale, along U and V."""
DARK, BRIGHT = -0.8, 0.8
PERCENTILES = (1.0, 99.0)
LEAST_LIKENESS = 0.3
"""Below this correlation with `THORAX` no thorax was found (measured: docs/radiographs.md)."""

COARSE = 64
"""Films are searched at this many pixels a side."""
USUAL = (0.49, 0.78, 0.495, 0.92)
"""Where the thorax usually is: centre and length along U, centre and length along V."""
SPREAD = (0.15, 0.3, 0.1, 0.3)
"""How far it strays before the search is held back (lengths: in their logarithm)."""
PULL = 0.02

THORAX = """
23344555666666554332
22355565666656655432
22455644577644665422
12456433577643466421
12456333577633366421
12464323578643346421
12464323578743346421
02463234688754335521
02553224688764334620
02642224688765334620
02632235689875333630
02632235789876433530
02532234789876533530
02422234689877532430
03422224689877532330
03322234689876532330
03323455789866532330
03345677789877653330
03467788899888765341
03577888899888776441
"""
"""How dense each part is, 0 to 9: the mean of frontal films laid over one another."""

Square = Float[ndarray, "p p"]
"""A resampled film."""
Matrices = Float[ndarray, "k count size"]
Spans = Float[ndarray, "k 2"]
"""Centre and length of each span, as fractions of the film's side."""
Span = Float[ndarray, "2"]
Numbers = Float[ndarray, " k"]
Likenesses = Float[ndarray, "ku kv"]


@dataclass(frozen=True, slots=True)
class Box:
    """A window of a film, in fractions of its height and width; it may reach beyond the film."""

    top: float
    bottom: float
    left: float
    right: float


WHOLE = Box(0.0, 1.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Framed:
    """A film as the model sees it, and which part of the original it is."""

    film_UV: FilmArray
    """In [-1, 1], bright = dense."""
    box: Box
    likeness: float
    """Correlation of the film inside the box with `THORAX`."""
    notes: tuple[str, ...] = ()


def frame(film_UV: FilmArray, pixels: int = PIXELS) -> Framed:
    """Find the thorax, cut it out, resample it to `pixels` squared, and scale it to [-1, 1]."""
    box, likeness = find_thorax(film_UV)
    notes: tuple[str, ...] = ()
    if likeness < LEAST_LIKENESS:
        box, notes = WHOLE, ("no_lung_field",)
    return Framed(scale_intensity(cut(film_UV, box, pixels)), box, likeness, notes)


def frame_all(films: Sequence[ndarray], pixels: int = PIXELS) -> FilmBatch:
    """Frame several films, each of its own size, into one batch B1UV."""
    return torch.from_numpy(np.stack([frame(film, pixels).film_UV for film in films])[:, None])


def scale_intensity(film_UV: FilmArray) -> FilmArray:
    """The inner percentiles (1, 99) -> (-0.8, 0.8), clipped at -1 and 1."""
    inner = [slice(round(n * INNER[0]), round(n * INNER[1])) for n in film_UV.shape]
    low, high = np.percentile(film_UV[inner[0], inner[1]], PERCENTILES)
    share = (film_UV - low) / max(high - low, np.finfo(np.float32).tiny)
    scaled: FilmArray = (DARK + (BRIGHT - DARK) * share).clip(-1, 1).astype(np.float32)
    return scaled


# ---- resampling --------------------------------------------------------------------------------


def cut(film_UV: FilmArray, box: Box, pixels: int) -> Square:
    """Resample a window to a square, S_U F S_V^T; beyond the film its outermost pixel repeats."""
    rows, columns = film_UV.shape
    S_U = sampling(np.array([[(box.top + box.bottom) / 2, box.bottom - box.top]]), pixels, rows)
    S_V = sampling(np.array([[(box.left + box.right) / 2, box.right - box.left]]), pixels, columns)
    window: Square = S_U[0] @ film_UV.astype(np.float32) @ S_V[0].T
    return window


def sampling(spans: Spans, count: int, size: int) -> Matrices:
    """`count` samples along each span of a side of `size` pixels: w = max(0, 1 - |x - i| / r).

    The tent is as wide as the step between samples, and never narrower than a pixel, so that
    shrinking averages and enlarging interpolates.
    """
    centre, length = spans[:, :1] * size, spans[:, 1:] * size
    x = centre + length * ((np.arange(count) + 0.5) / count - 0.5) - 0.5
    radius = np.maximum(1.0, length / count)[..., None]
    distance = np.abs(x.clip(0, size - 1)[..., None] - np.arange(size))
    weights = np.maximum(0.0, 1 - distance / radius)
    matrices: Matrices = (weights / weights.sum(-1, keepdims=True)).astype(np.float32)
    return matrices


# ---- where the thorax is -----------------------------------------------------------------------


def find_thorax(film_UV: FilmArray) -> tuple[Box, float]:
    """The window most like `THORAX`, and how much it is (-1 to 1): coarse first, then finer."""
    ranks_UV = equalised(film_UV)
    likeness, u, v = most_like(ranks_UV, COARSE_SPANS, COARSE_SPANS)
    for step in (0.03, 0.01):
        likeness, u, v = most_like(ranks_UV, _around(u, step), _around(v, step))
    (top, bottom), (left, right) = ((c - n / 2, c + n / 2) for c, n in (u.tolist(), v.tolist()))
    return Box(top, bottom, left, right), likeness


def most_like(ranks_UV: FilmArray, along_U: Spans, along_V: Spans) -> tuple[float, Span, Span]:
    """The likeliest window among all pairs of spans, mildly pulled to where thoraces usually are.

    argmax_w  corr(w, thorax) - 0.02 (strain_U(w) + strain_V(w))
    """
    likeness = likenesses(ranks_UV, along_U, along_V)
    wanted = likeness - PULL * (_strain(along_U, 0)[:, None] + _strain(along_V, 2))
    i, j = np.unravel_index(int(wanted.argmax()), wanted.shape)
    return float(likeness[i, j]), along_U[i], along_V[j]


def equalised(film_UV: FilmArray) -> Square:
    """The film at `COARSE` pixels, each replaced by its rank in [0, 1]: no LUT, gamma or unit."""
    small = cut(film_UV, WHOLE, COARSE)
    ranks: Square = (rankdata(small) / small.size).reshape(small.shape).astype(np.float32)
    return ranks


def likenesses(ranks_UV: FilmArray, along_U: Spans, along_V: Spans) -> Likenesses:
    """Weighted correlation of each window with the thorax: cov(w, t) / (sd(w) sd(t))."""
    thorax, weight = template()
    cells = len(thorax)
    S_U, S_V = sampling(along_U, cells, COARSE), sampling(along_V, cells, COARSE)
    windows = S_U.reshape(-1, COARSE) @ ranks_UV @ S_V.reshape(-1, COARSE).T
    windows = windows.reshape(len(along_U), cells, len(along_V), cells).transpose(0, 2, 1, 3)
    windows = windows.reshape(len(along_U), len(along_V), -1)
    mean, square = windows @ weight.ravel(), windows**2 @ weight.ravel()
    covariance = windows @ (weight * thorax).ravel()
    found: Likenesses = covariance / np.sqrt(np.maximum(square - mean**2, 1e-6))
    return found


@cache
def template() -> tuple[FilmArray, FilmArray]:
    """`THORAX` with weighted mean 0 and deviation 1, and the weights: its rim counts less."""
    rows = THORAX.split()
    density = np.array([[int(digit) for digit in row] for row in rows], np.float32)
    weight = np.ones_like(density)
    weight[[0, -1]] *= 0.6
    weight[:, [1, -2]] *= 0.6
    weight[:, [0, -1]] *= 0.2
    weight /= weight.sum()
    density -= (weight * density).sum()
    return density / np.sqrt((weight * density**2).sum()), weight


def every(centres: Float[ndarray, " n"], lengths: Float[ndarray, " m"]) -> Spans:
    """All pairs of a centre and a length."""
    return np.stack(np.meshgrid(centres, lengths, indexing="ij"), -1).reshape(-1, 2)


COARSE_SPANS = every(np.linspace(0.3, 0.7, 9), np.linspace(0.4, 1.15, 7))


def _around(span: Span, step: float) -> Spans:
    sides = np.linspace(-step, step, 5)
    return every(span[0] + sides, span[1] + 2 * sides)


def _strain(spans: Spans, first: int) -> Numbers:
    """((c - c0) / s)^2 + (ln(l / l0) / s)^2: how unusual a span is."""
    centre, length = USUAL[first : first + 2]
    off_centre = (spans[:, 0] - centre) / SPREAD[first]
    off_length = np.log(spans[:, 1] / length) / SPREAD[first + 1]
    strain: Numbers = off_centre**2 + off_length**2
    return strain

"""A DRR made to look acquired: what physics and a radiographer add, drawn and applied apart.

Line integrals L become a film in [0, 1], bright = dense. Scatter, blur and noise act on detected
intensity exp(-L), where they arise; rotation, collimation, display and marker follow. The same
parameters give the same film.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from synth_ct.kit.axes import FilmArray
from synth_ct.xray.frame import Box

Exposed = Float[np.ndarray, "rows columns"]
"""A film of another size than the DRR."""
SCATTER_REACH = 0.07
"""Standard deviation of scatter, in widths of the film."""
DETAIL_REACH = 0.05
"""Standard deviation of what the display takes for background, in widths of the film."""
LETTER_R = ("####.", "#...#", "#...#", "####.", "#.#..", "#..#.", "#...#")
"""The side marker: patient right, at the viewer's left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """How one exposure went."""

    window: Box
    """The part of the DRR that is exposed."""
    rows: int
    """Height of the film in pixels."""
    stretch: float
    """Width of a pixel over its height, as if someone had resized the film carelessly."""
    rotation_deg: float
    scatter: float
    """Scattered over primary intensity, in order of magnitude."""
    blur_pixels: float
    photons: float
    """Quanta a pixel receives through air."""
    detail: float
    """How much the display enhances small structures (unsharp masking)."""
    black: float
    white: float
    """Percentiles of the film that the display shows as black and as white."""
    gamma: float
    margins: tuple[float, float, float, float]
    """What collimation leaves unexposed at the top, bottom, left and right, in fractions."""
    marker: tuple[float, float, float] | None
    """Top, left and height of the letter R in fractions of the film's height and width."""
    noise_seed: int


def draw_degradation(random: np.random.Generator) -> Degradation:
    """Draw how an exposure goes; ranges are wider than one hospital's."""
    uniform = random.uniform
    margins = np.where(random.random(4) < 0.4, uniform(0.0, 0.05, 4), 0.0).tolist()
    marker = (uniform(0.03, 0.25), uniform(0.02, 0.08), uniform(0.04, 0.07))
    return Degradation(
        window=Box(uniform(0, 0.02), uniform(0.72, 0.95), uniform(0, 0.05), uniform(0.95, 1)),
        rows=int(random.integers(150, 260)),
        stretch=uniform(0.9, 1.15),
        rotation_deg=float(np.clip(random.normal(0, 2.5), -6, 6)),
        scatter=uniform(0.2, 0.8),
        blur_pixels=uniform(0.4, 1.1),
        photons=10 ** uniform(3.8, 5.0),
        detail=uniform(0, 1.5),
        black=uniform(1, 12),
        white=uniform(98.5, 100),
        gamma=uniform(0.6, 1.3),
        margins=(margins[0], margins[1], margins[2], margins[3]),
        marker=marker if random.random() < 0.8 else None,
        noise_seed=int(random.integers(2**31)),
    )


def degrade(lines_UV: FilmArray, how: Degradation) -> Exposed:
    """Line integrals -> a film in [0, 1], bright = dense, as an exposure `how` would give it."""
    seen = exposed_part(lines_UV, how)
    intensity = with_scatter(seen, how.scatter)
    blurred = ndimage.gaussian_filter(intensity, how.blur_pixels, mode="nearest")
    film = displayed(with_noise(blurred, how.photons, how.noise_seed), how)
    return with_marker(collimated(film, how.margins), how.marker)


# ---- geometry ----------------------------------------------------------------------------------


def exposed_part(lines_UV: FilmArray, how: Degradation) -> Exposed:
    """The window, turned about its centre and resized: x_in = c + A R (x_out - c_out)."""
    size = np.array(lines_UV.shape, np.float64)
    low = np.array([how.window.top, how.window.left]) * size
    high = np.array([how.window.bottom, how.window.right]) * size
    height, width = high - low
    shape = np.array([how.rows, max(1, round(how.rows * width / height * how.stretch))])
    angle = np.deg2rad(how.rotation_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    resize = np.diag((high - low) / shape)
    matrix = turn @ resize
    offset = (low + high - 1) / 2 - matrix @ ((shape - 1) / 2)
    seen: Exposed = ndimage.affine_transform(
        lines_UV.astype(np.float32), matrix, offset, tuple(shape), order=1, mode="nearest"
    )
    return seen


# ---- physics -----------------------------------------------------------------------------------


def with_scatter(lines_UV: FilmArray, amount: float) -> FilmArray:
    """I = e^-L + a G * (L e^-L): quanta scattered once leave near where they were stopped."""
    primary = np.exp(-lines_UV)
    reach = SCATTER_REACH * lines_UV.shape[1]
    scattered = ndimage.gaussian_filter(lines_UV * primary, reach, mode="nearest")
    intensity: FilmArray = (primary + amount * scattered).astype(np.float32)
    return intensity


def with_noise(intensity_UV: FilmArray, photons: float, seed: int) -> FilmArray:
    """L = -ln(max(1, n) / N), n ~ Poisson(N I)."""
    counted = np.random.default_rng(seed).poisson(photons * intensity_UV.astype(np.float64))
    lines: FilmArray = -np.log(np.maximum(1, counted) / photons).astype(np.float32)
    return lines


# ---- the film ----------------------------------------------------------------------------------


def displayed(lines_UV: FilmArray, how: Degradation) -> FilmArray:
    """clip((D - black) / (white - black), 0, 1)^gamma of D = L + detail (L - G * L)."""
    coarse = ndimage.gaussian_filter(lines_UV, DETAIL_REACH * lines_UV.shape[1], mode="nearest")
    detailed = lines_UV + how.detail * (lines_UV - coarse)
    black, white = np.percentile(detailed, (how.black, how.white))
    share = ((detailed - black) / max(white - black, 1e-6)).clip(0, 1)
    film: FilmArray = (share**how.gamma).astype(np.float32)
    return film


def collimated(film_UV: FilmArray, margins: tuple[float, float, float, float]) -> FilmArray:
    """Black where the collimator stopped the beam: nothing was exposed there."""
    rows, columns = film_UV.shape
    top, bottom = round(margins[0] * rows), rows - round(margins[1] * rows)
    left, right = round(margins[2] * columns), columns - round(margins[3] * columns)
    film = np.zeros_like(film_UV)
    film[top:bottom, left:right] = film_UV[top:bottom, left:right]
    return film


def with_marker(film_UV: FilmArray, marker: tuple[float, float, float] | None) -> FilmArray:
    """The film with a white R of lead, or without."""
    if marker is None:
        return film_UV
    letter = np.array([[sign == "#" for sign in row] for row in LETTER_R])
    dot = max(1, round(marker[2] * film_UV.shape[0] / len(letter)))
    grown = np.kron(letter, np.ones((dot, dot), bool))
    top, left = (round(p * n) for p, n in zip(marker[:2], film_UV.shape, strict=True))
    film = film_UV.copy()
    place = film[top : top + grown.shape[0], left : left + grown.shape[1]]
    place[grown[: place.shape[0], : place.shape[1]]] = 1
    return film

"""What style transfer does to radiographs: nearer to DRRs, the same edges, the same disease?

The distance between two sets of films is KID in declared features, `FEATURES`, not Inception's:
histograms of grey values, gradients and curvature at three scales. They know style (contrast,
sharpness, noise, ribs against lung) and no anatomy, since a histogram forgets where a pixel was.
Compare it with nothing but itself.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from synth_ct.evaluation.frechet import KernelDistance, kernel_distance
from synth_ct.xray.frame import THORAX

FEATURES = "grey, gradient and curvature histograms at 3 scales (not Inception)"
SCALES = (1, 2, 4)
BINS = 24
STEEPEST, MOST_CURVED = 1.0, 2.0
"""Where the histograms of gradient and curvature end; what lies beyond is in the last bin."""
DARK = 4
LUNG_ROWS, LUNG_COLUMNS = slice(3, 17), slice(4, 16)
"""Of `THORAX`: inside the ribs, below the collar bones, above the diaphragm."""

Films = Float[ndarray, "n u v"]
"""Framed, in [-1, 1]."""
Features = Float[ndarray, "n c"]
Numbers = Float[ndarray, " n"]
OtherFilms = Float[ndarray, "m u v"]
OtherNumbers = Float[ndarray, " m"]
Mask = Bool[ndarray, "u v"]


# ---- nearer to DRRs? ---------------------------------------------------------------------------


def style_distance(
    films_NUV: Films, drr_films_MUV: OtherFilms, patients: list[str], drr_patients: list[str]
) -> KernelDistance:
    """KID of two sets of films in `FEATURES`, with its interval over patients."""
    a_NC, b_NC = style_features(films_NUV), style_features(drr_films_MUV)
    return kernel_distance(a_NC, b_NC, patients, drr_patients)


def style_features(films_NUV: Films) -> Features:
    """sqrt(h_1), ..., sqrt(h_H), scaled so that x . y / C = mean_i sum sqrt(h_i(x) h_i(y)).

    That is the mean affinity (Bhattacharyya) of the two films' histograms: 1 for the same film.
    """
    columns = [
        histogram(values, low, high)
        for scale in SCALES
        for values, low, high in _maps(shrunk(films_NUV, scale))
    ]
    features: Features = np.sqrt(np.concatenate(columns, 1)) * np.sqrt(BINS)
    return features


def _maps(films_NUV: Films) -> list[tuple[Films, float, float]]:
    """What is counted at each scale, and from where to where: roots, since most slopes are mild."""
    gradient = np.sqrt(gradient_magnitude(films_NUV))
    curvature = np.sqrt(np.abs(laplacian(films_NUV)))
    return [
        (films_NUV, -1.0, 1.0),
        (gradient, 0.0, np.sqrt(STEEPEST)),
        (curvature, 0.0, np.sqrt(MOST_CURVED)),
    ]


def histogram(values_NUV: Films, low: float, high: float) -> Float[ndarray, "n bins"]:
    """Each film's share of pixels in each of `BINS` equal bins; beyond the ends, in the last."""
    bins = ((values_NUV - low) / (high - low) * BINS).astype(int).clip(0, BINS - 1)
    counts = [np.bincount(film.ravel(), minlength=BINS) for film in bins]
    shares: Float[ndarray, "n bins"] = np.array(counts) / bins[0].size
    return shares


def shrunk(films_NUV: Films, factor: int) -> Float[ndarray, "n p q"]:
    """Means over blocks of `factor` squared pixels."""
    count, rows, columns = films_NUV.shape
    if rows % factor or columns % factor:
        raise ValueError(
            f"films of {rows} x {columns} pixels do not shrink {factor} times; "
            f"frame them to a multiple of {max(SCALES)}"
        )
    blocks = films_NUV.reshape(count, rows // factor, factor, columns // factor, factor)
    means: Float[ndarray, "n p q"] = blocks.mean((2, 4))
    return means


def gradient_magnitude(films_NUV: Films) -> Films:
    """|(df/du, df/dv)|, central differences, per pixel."""
    along_U, along_V = np.gradient(films_NUV, axis=(1, 2))
    magnitude: Films = np.hypot(along_U, along_V)
    return magnitude


def laplacian(films_NUV: Films) -> Films:
    """f(u-1) + f(u+1) + f(v-1) + f(v+1) - 4 f, the film repeated at its border."""
    p = np.pad(films_NUV, ((0, 0), (1, 1), (1, 1)), mode="edge")
    sides = p[:, :-2, 1:-1] + p[:, 2:, 1:-1] + p[:, 1:-1, :-2] + p[:, 1:-1, 2:]
    curved: Films = sides - 4 * films_NUV
    return curved


# ---- the same edges? ---------------------------------------------------------------------------


def structure_kept(before_NUV: Films, after_NUV: Films) -> Numbers:
    """corr(|grad x|, |grad G(x)|) of each film: 1 where every edge stays, inverted or not."""
    edges = (gradient_magnitude(films).reshape(len(films), -1) for films in (before_NUV, after_NUV))
    a_NP, b_NP = (e - e.mean(1, keepdims=True) for e in edges)
    spread_N = np.sqrt((a_NP**2).sum(1) * (b_NP**2).sum(1))
    kept: Numbers = (a_NP * b_NP).sum(1) / np.maximum(spread_N, np.finfo(np.float32).tiny)
    return kept


# ---- the same disease? -------------------------------------------------------------------------


def lung_field(pixels: int) -> Mask:
    """Where framed films show lung: the dark parts of `THORAX` inside the ribs."""
    density = np.array([[int(digit) for digit in row] for row in THORAX.split()])
    lungs = np.zeros(density.shape, bool)
    inside = LUNG_ROWS, LUNG_COLUMNS
    lungs[inside] = density[inside] <= DARK
    u, v = (np.arange(pixels) * cells // pixels for cells in density.shape)
    field: Mask = lungs[np.ix_(u, v)]
    return field


def lung_density(films_NUV: Films) -> Numbers:
    """The mean over the lung field of each film."""
    density: Numbers = films_NUV[:, lung_field(films_NUV.shape[-1])].mean(1)
    return density


def opacity_contrast(sick_N: Numbers, normal_M: OtherNumbers) -> float:
    """(m_sick - m_normal) / s, s the pooled deviation: how far lung densities are apart."""
    degrees = len(sick_N) + len(normal_M) - 2
    squares = ((sick_N - sick_N.mean()) ** 2).sum() + ((normal_M - normal_M.mean()) ** 2).sum()
    if degrees < 1 or squares == 0:
        raise ValueError(
            f"{len(sick_N)} sick and {len(normal_M)} normal films have no spread; give more films"
        )
    return float((sick_N.mean() - normal_M.mean()) / np.sqrt(squares / degrees))

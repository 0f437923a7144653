"""How unlike every training film a film is: what a generator makes of such a film is a guess."""

import numpy as np

from synth_ct.kit.axes import FilmArray
from synth_ct.quality.look import RankMaps, correlations, film_ranks


def film_novelty(film_UV: FilmArray, films_NUV: RankMaps, usual: float) -> float:
    """(1 - max_n corr(film, film_n)) / usual: 1 is as far as training films are from others."""
    nearest = correlations(film_ranks(film_UV)[None], films_NUV).max()
    return float((1 - nearest) / usual)


def usual_novelty(films_NUV: RankMaps) -> float:
    """median_n (1 - max_(m != n) corr(film_n, film_m)) of the training films."""
    alike = correlations(films_NUV, films_NUV)
    np.fill_diagonal(alike, -1)
    return float(np.maximum(np.median(1 - alike.max(1)), 1e-6))

"""What needs no model and must be beaten: the mean of the training volumes, and the nearest one."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from synth_ct.kit.axes import FilmArray, HuArray
from synth_ct.kit.volume import WINDOW_HU


def mean_volume(volumes: Iterable[ndarray]) -> HuArray:
    """The mean of windowed HU: of all answers that ignore the radiograph the least squared error.

    Volumes are read one at a time, so a memory map of thousands will do.
    """
    total_XYZ, count = np.zeros(()), 0
    for hu_XYZ in volumes:
        total_XYZ = total_XYZ + np.clip(hu_XYZ.astype(np.float64), *WINDOW_HU)
        count += 1
    if count == 0:
        raise ValueError("no training volumes, so they have no mean; the training part is empty")
    mean_XYZ: HuArray = (total_XYZ / count).astype(np.float32)
    return mean_XYZ


def nearest_by_film(film_UV: FilmArray, films_NUV: Float[ndarray, "n u v"]) -> int:
    """Which training film differs least from this one in squared grey; its CT is the answer."""
    squared_N = ((films_NUV - film_UV) ** 2).mean((1, 2))
    return int(squared_N.argmin())

"""What training volumes and their films are like: the measure that made volumes are held against.

Every limit comes from training pairs. A figure may lie as far out as six standard deviations or
the outermost half percent of them, whichever is farther; shares are taken in their logarithm, for
six deviations below a mean share would else allow nothing at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from synth_ct.kit.axes import FilmArray, HuArray
from synth_ct.quality.look import (
    CELL_HU,
    CELLS,
    PIXELS,
    Look,
    ManyCells,
    RankMaps,
    Ranks,
    correlations,
    directions,
    distances_hu,
    film_ranks,
    look_at,
    side_of,
)

RANGED = (
    "body_share",
    "lung_share",
    "lesser_lung_share",
    "lung_hu",
    "flesh_hu",
    "fat_hu",
    "soft_hu",
    "bone_hu",
)
SHARES = RANGED[:3]
SIGMAS, TAILS = 6.0, (0.5, 99.5)
LEAST_LOGGED = 1e-4
"""A share of nothing has no logarithm."""
LEAST_DIRECTION = 0.1
"""Of the median agreement of training volumes; a flipped one agrees with the opposite sign."""
STRANGERS = 99.0
"""The percentile of training volumes' agreement with other patients' films."""
MEMORY = 0.5
"""Of the median distance of a training volume to the nearest other one."""
LEAST_PAIRS = 8

Range = tuple[float, float]
StoredCells = UInt8[ndarray, "n cx cy cz"]
StoredRanks = UInt8[ndarray, "n p q"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReference:
    """Limits, and thumbnails of the training pairs in eight bits; plain data throughout."""

    size: int
    """Voxels a side: the medians of thin bones depend on it."""
    ranges: Mapping[str, Range]
    cells_NXYZ: StoredCells
    films_NUV: StoredRanks
    mean_projection_UV: Ranks
    least_directions: tuple[float, ...]
    least_gain: float
    least_distance_hu: float

    def cells_hu(self) -> ManyCells:
        """The training volumes' thumbnails."""
        low, high = CELL_HU
        return np.asarray(self.cells_NXYZ * np.float32((high - low) / 255) + np.float32(low))

    def films(self) -> RankMaps:
        """The ranks of the training films."""
        return np.asarray(self.films_NUV * np.float32(1 / 255))

    def to_arrays(self) -> dict[str, ndarray]:
        """Everything, as arrays by name."""
        return {
            "size": np.array([self.size]),
            "ranges": np.array([self.ranges[name] for name in RANGED]),
            "cells": self.cells_NXYZ,
            "films": self.films_NUV,
            "mean_projection": self.mean_projection_UV,
            "least_directions": np.array(self.least_directions),
            "least_gain": np.array([self.least_gain]),
            "least_distance_hu": np.array([self.least_distance_hu]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ndarray]) -> "QualityReference":
        """The inverse of `to_arrays`."""
        _check(arrays)
        limits = arrays["ranges"].tolist()
        return cls(
            size=int(arrays["size"][0]),
            ranges={name: (low, high) for name, (low, high) in zip(RANGED, limits, strict=True)},
            cells_NXYZ=arrays["cells"],
            films_NUV=arrays["films"],
            mean_projection_UV=arrays["mean_projection"],
            least_directions=tuple(arrays["least_directions"].tolist()),
            least_gain=float(arrays["least_gain"][0]),
            least_distance_hu=float(arrays["least_distance_hu"][0]),
        )


def _check(arrays: Mapping[str, ndarray]) -> None:
    count = len(arrays.get("cells", ()))
    wanted = {
        "size": (1,),
        "ranges": (len(RANGED), 2),
        "cells": (count, CELLS, CELLS, CELLS),
        "films": (count, PIXELS, PIXELS),
        "mean_projection": (PIXELS, PIXELS),
        "least_directions": (3,),
        "least_gain": (1,),
        "least_distance_hu": (1,),
    }
    found = {name: array.shape for name, array in arrays.items()}
    if found != wanted or not count:
        raise ValueError(
            f"these arrays are no quality reference: their shapes are {found}, not {wanted}; "
            "measure it again with reference_of"
        )


# ---- measuring it ------------------------------------------------------------------------------


def reference_of(volumes: Iterable[HuArray], films: Iterable[FilmArray]) -> QualityReference:
    """Measure training volumes (canonical cubes of HU) and the framed film of each."""
    looks, ranks, sizes = [], [], set()
    for hu_XYZ, film_UV in zip(volumes, films, strict=True):
        if not np.isfinite(hu_XYZ).all():
            raise ValueError("a training volume has NaN or infinite voxels; make the pairs again")
        sizes.add(side_of(hu_XYZ))
        looks.append(look_at(hu_XYZ))
        ranks.append(film_ranks(film_UV))
    if len(looks) < LEAST_PAIRS or len(sizes) != 1:
        raise ValueError(
            f"{len(looks)} training pairs of sizes {sorted(sizes)} give no plausible ranges; "
            f"give at least {LEAST_PAIRS}, all of one size"
        )
    cells, films_NUV = np.stack([look.cells_XYZ for look in looks]), np.stack(ranks)
    projections = np.stack([look.projection_UV for look in looks])
    low, high = CELL_HU
    return QualityReference(
        size=sizes.pop(),
        ranges={name: plausible(name, looks) for name in RANGED},
        cells_NXYZ=np.rint((cells - low) / (high - low) * 255).astype(np.uint8),
        films_NUV=np.rint(films_NUV * 255).astype(np.uint8),
        mean_projection_UV=projections.mean(0),
        least_directions=_least_directions(cells),
        least_gain=_least_gain(projections, films_NUV),
        least_distance_hu=_least_distance(cells),
    )


def plausible(name: str, looks: list[Look]) -> Range:
    """min(mean - 6 sd, 0.5th percentile) to max(mean + 6 sd, 99.5th), of log share for shares."""
    found = [value for look in looks if (value := look.figures[name]) is not None]
    if not found:
        raise ValueError(
            f"no training volume has a {name}, so none can be asked of others; "
            "look at the training volumes: they show no chest in HU"
        )
    values = np.log(np.maximum(found, LEAST_LOGGED)) if name in SHARES else np.array(found)
    low, high = np.percentile(values, TAILS)
    reach = SIGMAS * values.std()
    ends = min(values.mean() - reach, low), max(values.mean() + reach, high)
    low, high = np.exp(ends) if name in SHARES else ends
    return float(low), float(high)


def _least_directions(cells_NXYZ: ManyCells) -> tuple[float, ...]:
    """A tenth of the median agreement with the mean of the others."""
    total, others = cells_NXYZ.sum(0), len(cells_NXYZ) - 1
    agree = [directions(one, (total - one) / others) for one in cells_NXYZ]
    return tuple((LEAST_DIRECTION * np.median(agree, 0)).tolist())


def _least_gain(projections_NUV: RankMaps, films_NUV: RankMaps) -> float:
    """What strangers reach: the 99th percentile of the gain of volume i with film j, i != j."""
    C = agreement(projections_NUV, projections_NUV.mean(0), films_NUV, films_NUV.mean(0))
    strangers = ~np.eye(len(C), dtype=bool)
    usual = C.mean(1, where=strangers, keepdims=True)
    return float(np.percentile(gain(C, usual)[strangers], STRANGERS))


def gain(agreement: ndarray, strangers: ndarray) -> ndarray:
    """(a - s) / (1 - s): how much of what strangers' films leave open the own film explains."""
    return np.asarray((agreement - strangers) / np.maximum(1 - strangers, 1e-6))


def agreement(
    projections_NUV: RankMaps, mean_projection_UV: Ranks, films_MUV: RankMaps, mean_film_UV: Ranks
) -> Float[ndarray, "n m"]:
    """C[n, m] = corr(p_n - mean p, f_m - mean f).

    Any two chests agree; without the means, what is compared is how each differs from most.
    """
    return correlations(projections_NUV - mean_projection_UV, films_MUV - mean_film_UV)


def _least_distance(cells_NXYZ: ManyCells) -> float:
    """Half the median distance of a training volume to the nearest other."""
    nearest = [np.sort(distances_hu(one, cells_NXYZ))[1] for one in cells_NXYZ]
    return MEMORY * float(np.median(nearest))

"""One volume, measured: shares, medians, a thumbnail and its projection; and how two compare."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import ndimage
from scipy.stats import rankdata

from synth_ct.kit.axes import FilmArray, HuArray
from synth_ct.kit.volume import WINDOW_HU
from synth_ct.xray.frame import WHOLE, cut

AIR_HU = -400
"""Lung and outer air lie below, chest wall above, even where a voxel is 10 mm wide."""
TISSUES: Mapping[str, tuple[float, float]] = {
    "fat_hu": (-200, -30),
    "soft_hu": (-30, 150),
    "bone_hu": (200, np.inf),
}
LEAST_SHARE = 1e-3
"""A tissue with less than this share of the voxels is absent: its median is None."""
CELLS, PIXELS = 16, 32
"""Sides of what is compared: 20 mm cells of a volume, 10 mm pixels of a film."""
CELL_HU = (-1000.0, 500.0)

Mask = Bool[ndarray, "x y z"]
Cells = Float[ndarray, "cx cy cz"]
ManyCells = Float[ndarray, "n cx cy cz"]
Ranks = Float[ndarray, "p q"]
RankMaps = Float[ndarray, "_ p q"]
Figures = dict[str, float | None]


class Look(NamedTuple):
    """What is measured of one volume."""

    figures: Figures
    cells_XYZ: Cells
    projection_UV: Ranks


def look_at(hu_XYZ: HuArray) -> Look:
    """Measure a cube of HU in canonical order."""
    hu_XYZ = np.clip(hu_XYZ, *WINDOW_HU).astype(np.float32)
    air, outside = air_and_outside(hu_XYZ)
    lung = air & ~outside
    half = len(lung) // 2
    figures: Figures = {
        "body_share": float(1 - outside.mean()),
        "lung_share": float(lung.mean()),
        "lesser_lung_share": float(min(lung[:half].mean(), lung[half:].mean())),
        "lung_hu": median_hu(hu_XYZ, lung),
        "flesh_hu": median_hu(hu_XYZ, ~air),
    }
    for name, (low, high) in TISSUES.items():
        figures[name] = median_hu(hu_XYZ, (hu_XYZ > low) & (hu_XYZ < high))
    return Look(figures, cell_means(hu_XYZ), film_ranks(projection(hu_XYZ)))


def side_of(hu_XYZ: HuArray) -> int:
    """Voxels a side; only cubes that divide into cells can be judged."""
    size = len(hu_XYZ)
    if hu_XYZ.shape != (size, size, size) or size % CELLS or size < PIXELS:
        raise ValueError(
            f"a volume of {hu_XYZ.shape} voxels cannot be judged; "
            f"give a cube of {PIXELS} voxels or more a side, a multiple of {CELLS}"
        )
    return size


# ---- measures ----------------------------------------------------------------------------------


def air_and_outside(hu_XYZ: HuArray) -> tuple[Mask, Mask]:
    """All air, and that around the body: what in an axial slice reaches its rim.

    Slice by slice, because the windpipe would join the lungs to the air above.
    """
    air: Mask = hu_XYZ < AIR_HU
    in_slice = ndimage.generate_binary_structure(3, 1)
    in_slice[1, 1, [0, 2]] = False
    parts, count = ndimage.label(air, in_slice)
    touches = np.zeros(count + 1, bool)
    for rim in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        touches[rim] = True
    touches[0] = False
    return air, touches[parts]


def median_hu(hu_XYZ: HuArray, mask_XYZ: Mask) -> float | None:
    """The median HU inside a mask; None where there is next to nothing."""
    if np.count_nonzero(mask_XYZ) < LEAST_SHARE * mask_XYZ.size:
        return None
    return float(np.median(hu_XYZ[mask_XYZ]))


def cell_means(hu_XYZ: HuArray) -> Cells:
    """Mean HU, clipped, of `CELLS`^3 cells."""
    step = len(hu_XYZ) // CELLS
    means: Cells = np.clip(hu_XYZ, *CELL_HU).reshape((CELLS, step) * 3).mean((1, 3, 5))
    return means


def projection(hu_XYZ: HuArray) -> FilmArray:
    """Parallel rays along Y: I[u, v] = sum_y max(0, 1 + HU / 1000), where U = -Z and V = -X."""
    film: FilmArray = np.maximum(0, 1 + hu_XYZ / 1000).sum(1).T[::-1, ::-1]
    return film


def film_ranks(film_UV: FilmArray) -> Ranks:
    """The film at `PIXELS` a side, each pixel replaced by its rank in (0, 1]: no LUT, no gamma."""
    small = cut(film_UV, WHOLE, PIXELS)
    ranks: Ranks = (rankdata(small) / small.size).reshape(small.shape).astype(np.float32)
    return ranks


# ---- comparisons -------------------------------------------------------------------------------


def directions(cells_XYZ: Cells, mean_XYZ: Cells) -> list[float]:
    """corr(c - flip(c), m - flip(m)) along X, Y and Z: flipping the volume turns the sign."""

    def one_way(some_XYZ: Cells, axis: int) -> ndarray:
        return np.asarray(some_XYZ - np.flip(some_XYZ, axis)).reshape(1, -1)

    return [
        float(correlations(one_way(cells_XYZ, n), one_way(mean_XYZ, n))[0, 0]) for n in range(3)
    ]


def correlations(a_NP: ndarray, b_MP: ndarray) -> Float[ndarray, "n m"]:
    """cov(a, b) / (sd(a) sd(b)) of all pairs of rows; 0 where a row is constant."""

    def unit(rows: ndarray) -> ndarray:
        rows = rows.reshape(len(rows), -1).astype(np.float64)
        rows -= rows.mean(1, keepdims=True)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))

    return np.asarray(unit(a_NP) @ unit(b_MP).T)


def distances_hu(cells_XYZ: Cells, others_NXYZ: ManyCells) -> Float[ndarray, " n"]:
    """Root mean square difference to each of the others."""
    return np.asarray(np.sqrt(np.square(others_NXYZ - cells_XYZ).mean((1, 2, 3))))

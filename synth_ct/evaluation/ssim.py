"""Structural similarity (Wang et al. 2004), of volumes and of slices.

    SSIM = (2 a b + C1) (2 cov + C2) / ((a^2 + b^2 + C1) (var_a + var_b + C2))

with local means a and b, C1 = (0.01 R)^2, C2 = (0.03 R)^2 and R the range: the width of the HU
window. Only places whose whole neighbourhood lies inside count. All filters are separable.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from synth_ct.evaluation.windows import PEAK_HU, above_floor
from synth_ct.kit.axes import HuArray

Smooth = Callable[[HuArray], HuArray]
"""A local weighted mean."""

SIGMA = 1.5
RADIUS = 5
"""3.5 sigma, rounded: 11 taps."""
X2CT_SIDE = 7

C1 = (0.01 * PEAK_HU) ** 2
C2 = (0.03 * PEAK_HU) ** 2


def ssim(made_XYZ: HuArray, truth_XYZ: HuArray) -> float:
    """SSIM of volumes: 3D Gaussian neighbourhoods of sigma 1.5."""
    _demand_side(made_XYZ.shape, 2 * RADIUS + 1)
    map_XYZ = similarity(above_floor(made_XYZ), above_floor(truth_XYZ), _gaussian, 1.0)
    inside = slice(RADIUS, -RADIUS)
    return float(map_XYZ[inside, inside, inside].mean())


def ssim_x2ct(made_XYZ: HuArray, truth_XYZ: HuArray) -> float:
    """X2CT's `SSIM-avg`: slices in uniform 7 x 7 neighbourhoods; the mean over three axes."""
    _demand_side(made_XYZ.shape, X2CT_SIDE)
    pair = above_floor(made_XYZ), above_floor(truth_XYZ)
    return float(np.mean([_slices(*pair, across=axis) for axis in range(3)]))


def similarity(a_XYZ: HuArray, b_XYZ: HuArray, smooth: Smooth, unbiased: float) -> HuArray:
    """The map of SSIM; `unbiased` is what turns a neighbourhood's second moments into variances."""
    a, b = smooth(a_XYZ), smooth(b_XYZ)
    spread = unbiased * (smooth(a_XYZ**2 + b_XYZ**2) - a**2 - b**2)
    covariance = unbiased * (smooth(a_XYZ * b_XYZ) - a * b)
    top = (2 * a * b + C1) * (2 * covariance + C2)
    map_XYZ: HuArray = top / ((a**2 + b**2 + C1) * (spread + C2))
    return map_XYZ


def _slices(a_XYZ: HuArray, b_XYZ: HuArray, across: int) -> float:
    window = [X2CT_SIDE] * 3
    window[across] = 1
    members = X2CT_SIDE**2

    def uniform(array_XYZ: HuArray) -> HuArray:
        smooth_XYZ: HuArray = ndimage.uniform_filter(array_XYZ, window)
        return smooth_XYZ

    map_XYZ = similarity(a_XYZ, b_XYZ, uniform, members / (members - 1))
    edge = X2CT_SIDE // 2
    inside = [slice(edge, -edge)] * 3
    inside[across] = slice(None)
    return float(map_XYZ[tuple(inside)].mean())


def _gaussian(array_XYZ: HuArray) -> HuArray:
    smooth_XYZ: HuArray = ndimage.gaussian_filter(array_XYZ, SIGMA, radius=RADIUS)
    return smooth_XYZ


def _demand_side(shape: tuple[int, ...], least: int) -> None:
    if min(shape) < least:
        raise ValueError(
            f"a volume of {shape} voxels is smaller than the {least} that one SSIM neighbourhood "
            "spans; evaluate larger volumes"
        )

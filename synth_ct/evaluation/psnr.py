"""Peak signal-to-noise ratio, in three conventions that differ by up to 10 dB on one volume.

`psnr` is ours. The other two are those of the X2CT code, kept so that its numbers, and those of
the papers that evaluate with it, have something to stand beside.
"""

import numpy as np

from synth_ct.evaluation.windows import PEAK_HU, above_floor
from synth_ct.kit.axes import HuArray

X2CT_PEAK = 4095.0
"""The largest 12-bit number, although the window holds 2500 HU: a gift of 4.29 dB."""
X2CT_PERFECT_DB = 100.0
"""What a slice without error counts for."""


def psnr(made_XYZ: HuArray, truth_XYZ: HuArray) -> float:
    """10 log10(2500^2 / MSE), HU clipped to the window; infinite where nothing differs."""
    squared_XYZ = (above_floor(made_XYZ) - above_floor(truth_XYZ)) ** 2
    return _decibels(PEAK_HU, float(squared_XYZ.mean()))


def psnr_x2ct(made_XYZ: HuArray, truth_XYZ: HuArray) -> float:
    """X2CT's `psnr-3d`: whole numbers cut off towards zero, the peak at 4095."""
    return _decibels(X2CT_PEAK, float(_truncated_squares(made_XYZ, truth_XYZ).mean()))


def psnr_x2ct_slices(made_XYZ: HuArray, truth_XYZ: HuArray) -> float:
    """X2CT's `PSNR-avg`: the mean over three axes of the mean over slices, in dB.

    Slices of air, easy to get right, weigh as much as slices of body, so this lies well above
    the PSNR of the volume.
    """
    squared_XYZ = _truncated_squares(made_XYZ, truth_XYZ)
    planes = [squared_XYZ.mean(others) for others in ((1, 2), (0, 2), (0, 1))]
    return float(np.mean([np.mean([_slice_decibels(mse) for mse in plane]) for plane in planes]))


def _truncated_squares(made_XYZ: HuArray, truth_XYZ: HuArray) -> HuArray:
    squared_XYZ: HuArray = (np.trunc(above_floor(made_XYZ)) - np.trunc(above_floor(truth_XYZ))) ** 2
    return squared_XYZ


def _slice_decibels(mse: float) -> float:
    return X2CT_PERFECT_DB if mse == 0 else _decibels(X2CT_PEAK, mse)


def _decibels(peak: float, mse: float) -> float:
    return float("inf") if mse == 0 else float(10 * np.log10(peak**2 / mse))

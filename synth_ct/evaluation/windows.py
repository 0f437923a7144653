"""The fixed windows on which volumes are compared: HU in, distances above the window's floor out.

SSIM is not blind to a shift, so where zero lies belongs to the protocol. Here, as in the
literature, zero is the floor of the window and its width the range.
"""

import numpy as np

from synth_ct.kit.axes import HuArray
from synth_ct.kit.volume import WINDOW_HU

PEAK_HU = WINDOW_HU[1] - WINDOW_HU[0]
"""2500 HU: the range of SSIM, and the peak of PSNR."""


def above_floor(hu_XYZ: HuArray) -> HuArray:
    """clip(HU) + 1000: float64 in [0, 2500]."""
    raised: HuArray = np.clip(hu_XYZ.astype(np.float64), *WINDOW_HU) - WINDOW_HU[0]
    return raised

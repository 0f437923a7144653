"""Mean absolute error in HU, of the whole volume and of each tissue.

A volume is mostly air, which is easy; the error of a tissue says more. Tissues are bands of HU
of the truth, never of what was made: a generator that paints everything as lung must not be
judged on its lung alone. Between the bands lie mixtures that belong to none.
"""

from typing import NamedTuple

import numpy as np

from synth_ct.evaluation.windows import above_floor
from synth_ct.kit.axes import HuArray

BANDS_HU: dict[str, tuple[float, float]] = {
    "air": (-np.inf, -900.0),
    "lung": (-900.0, -500.0),
    "fat": (-150.0, -50.0),
    "soft": (-50.0, 100.0),
    "bone": (300.0, np.inf),
}
"""Lower limit included, upper one not."""


class BandError(NamedTuple):
    """How far one tissue is off, and how much of the volume it is."""

    share: float
    mae_hu: float | None
    """None where the truth holds none of it."""


def mae(made_XYZ: HuArray, truth_XYZ: HuArray) -> float:
    """mean |made - truth| in HU, both clipped to the window."""
    return float(np.abs(above_floor(made_XYZ) - above_floor(truth_XYZ)).mean())


def mae_by_tissue(made_XYZ: HuArray, truth_XYZ: HuArray) -> dict[str, BandError]:
    """The same in each band of the truth, with the band's share of the voxels."""
    error_XYZ = np.abs(above_floor(made_XYZ) - above_floor(truth_XYZ))
    rows = {}
    for tissue, (low, high) in BANDS_HU.items():
        error_N = error_XYZ[(truth_XYZ >= low) & (truth_XYZ < high)]
        share = error_N.size / error_XYZ.size
        rows[tissue] = BandError(share, float(error_N.mean()) if error_N.size else None)
    return rows

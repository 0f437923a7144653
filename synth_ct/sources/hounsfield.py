"""Are these Hounsfield units? Air must be near -1000 and soft tissue near 0, or we do not believe.

A wrong scale is the quietest fault there is: windowed, 8-bit and shifted volumes all look right
on a screen, which scales them anew.
"""

import numpy as np

from synth_ct.kit.axes import VoxelArray
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.volume import AIR_HU as AIR_HU_ON_DISK
from synth_ct.kit.volume import MAX_HU

SAMPLE = 2_000_000
"""Voxels looked at; shares of a percent need no more."""
AIR_HU = (-1100.0, -900.0)
LUNG_TOP_HU = -650.0
"""In a scan cropped to the body the commonest dark value may be lung instead of air."""
SOFT_HU = (-200.0, 300.0)
LEAST_AIR = 0.001
LEAST_SOFT = 0.01
MOST_BELOW_AIR = 0.05
"""Noise and streaks reach below -1100, but not over a twentieth of a scan."""


def hu_notes(array_XYZ: VoxelArray) -> tuple[str, ...]:
    """Return what is noteworthy about credible HU; refuse values that are not HU.

    Scanners fill what they did not see with one value far below air (-2000, -3024, ...): that
    spike is set apart before the rest is judged.
    """
    values = _sample(array_XYZ)
    notes = []
    padding = _padding(values)
    if padding is not None:
        values = values[values != padding]
        notes.append("padding_to_air")
    if not values.size or not _is_hu(values):
        low, high = float(array_XYZ.min()), float(array_XYZ.max())
        raise Refused(
            "E_HU_RANGE",
            f"values from {low:.6g} to {high:.6g} are not Hounsfield units: {_hint(values)}",
            "export it again in HU (air -1000, water 0), not windowed and not scaled",
        )
    if values.min() < AIR_HU_ON_DISK or array_XYZ.max() > MAX_HU:
        notes.append("clipped")
    return tuple(notes)


def _sample(array_XYZ: VoxelArray) -> np.ndarray:
    step = max(1, array_XYZ.size // SAMPLE)
    return array_XYZ.ravel(order="K")[::step].astype(np.float32)


def _share(values: np.ndarray, low: float, high: float) -> float:
    return float(((values >= low) & (values <= high)).mean())


def _padding(values: np.ndarray) -> float | None:
    """The one value below air that most voxels down there share, if there is one."""
    below = values[values < AIR_HU[0]]
    if not below.size:
        return None
    found, counts = np.unique(below, return_counts=True)
    return float(found[counts.argmax()]) if counts.max() >= below.size / 2 else None


def _is_hu(values: np.ndarray) -> bool:
    dark = values[(values < -500) & (values >= AIR_HU[0])]
    if not dark.size:
        return False
    counts, edges = np.histogram(dark, bins=30, range=(AIR_HU[0], -500))
    peak = edges[counts.argmax()] + 10
    return (
        bool(peak <= LUNG_TOP_HU)
        and _share(values, *AIR_HU) >= LEAST_AIR
        and _share(values, *SOFT_HU) >= LEAST_SOFT
        and float((values < AIR_HU[0]).mean()) <= MOST_BELOW_AIR
    )


def _hint(values: np.ndarray) -> str:
    if not values.size or values.min() == values.max():
        return "every voxel has the same value"
    low, high = float(values.min()), float(values.max())
    if low >= -1.5 and high <= 1.5:
        return "they look scaled to [0, 1] or [-1, 1]"
    if low >= 0 and high <= 255:
        return "they look like 8-bit grey"
    if low >= 0:
        return "they look like stored values without the rescale intercept (often -1024)"
    if low < AIR_HU[0]:
        return "they look as if the rescale slope and intercept had been applied twice"
    return "the air and soft tissue of a CT are not where they should be; perhaps a window was cut"

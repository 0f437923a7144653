"""Where the slices of a series lie: their order, their spacing, their affine, or why not.

Only ImagePositionPatient, projected on the normal of ImageOrientationPatient, decides. Instance
numbers, slice locations and file names are never believed. What is not a stack of parallel,
equally spaced, unsheared slices is refused: a volume would show organs where they are not.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from synth_ct.kit.axes import LPS_TO_RAS, Affine
from synth_ct.kit.quarantine import Refused

Points = Float[np.ndarray, "slices 3"]
Vector = Float[np.ndarray, "3"]
Line = Float[np.ndarray, " slices"]

FEWEST_SLICES = 3
SAME_PLACE_MM = 0.01
PIXEL_MM = (0.1, 5.0)
STEP_MM = (0.1, 20.0)
"""Voxel edges of any scanner; outside, the header lies or its unit is not the millimetre."""
LISTED = 20
"""So many offending files are named; of more, only how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """What the header of one slice says about its place. An absent value is an empty tuple."""

    file: str
    shape: tuple[int, int]
    """Rows, columns."""
    position: tuple[float, ...]
    """Of the centre of the first pixel, LPS millimetres."""
    orientation: tuple[float, ...]
    """Direction in which columns count up, then rows."""
    pixel_mm: tuple[float, ...]
    """Distance between rows, then between columns."""


def names(files: Sequence[str]) -> str:
    """File names for a message, at most `LISTED` of them."""
    shown = ", ".join(sorted(files)[:LISTED])
    return shown if len(files) <= LISTED else f"{shown} and {len(files) - LISTED} more"


def stack(planes: Sequence[Plane]) -> tuple[list[int], Affine]:
    """The order of the slices along their normal, and (column, row, slice) -> RAS+ millimetres."""
    if len(planes) < FEWEST_SLICES:
        cause = f"{len(planes)} slices do not make a volume ({names([p.file for p in planes])})"
        raise Refused("E_DCM_TOO_FEW", cause, "look for the rest of the series")
    check_planes(planes)
    across, down = direction_of(planes[0])
    normal = np.cross(across, down)
    positions = np.array([p.position for p in planes])
    order = np.argsort(positions @ normal, kind="stable").tolist()
    sorted_planes = [planes[i] for i in order]
    step = regular_step(positions[order] @ normal, [p.file for p in sorted_planes])
    check_sideways(positions[order], normal, 0.5 * min(planes[0].pixel_mm))
    return order, affine_of(sorted_planes[0], step)


def direction_of(plane: Plane) -> tuple[Vector, Vector]:
    """Unit vectors along which columns and rows count up, exactly orthogonal."""
    across, down = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    across = across / np.linalg.norm(across)
    down = down - (down @ across) * across
    return across, down / np.linalg.norm(down)


def affine_of(first: Plane, step: float) -> Affine:
    """x = position + column Δc across + row Δr down + slice Δs normal, then LPS -> RAS."""
    across, down = direction_of(first)
    row_mm, column_mm = first.pixel_mm
    affine = np.eye(4)
    affine[:3, 0] = across * column_mm
    affine[:3, 1] = down * row_mm
    affine[:3, 2] = np.cross(across, down) * step
    affine[:3, 3] = first.position
    return LPS_TO_RAS @ affine


# ---- each slice, and the slices among themselves -------------------------------------------------


def check_planes(planes: Sequence[Plane]) -> None:
    """Refuse slices without a place, or of another size, direction or pixel than the rest."""
    _none(planes, [p for p in planes if len(p.position) != 3], "E_DCM_NO_POSITION",
          "have no ImagePositionPatient, so their place and order are unknown")  # fmt: skip
    _none(planes, [p for p in planes if not _is_orientation(p.orientation)], "E_DCM_ORIENTATION",
          "have no usable ImageOrientationPatient (two orthogonal unit vectors)")  # fmt: skip
    _none(planes, [p for p in planes if not _is_pixel(p.pixel_mm)], "E_DCM_PIXEL_SPACING",
          "have no PixelSpacing between 0.1 and 5 mm, so nothing can be measured")  # fmt: skip
    usual = Counter(p.shape for p in planes).most_common(1)[0][0]
    _none(planes, [p for p in planes if p.shape != usual], "E_DCM_SIZE",
          f"are not {usual[0]}x{usual[1]} pixels like the rest")  # fmt: skip
    for field, code in (("orientation", "E_DCM_ORIENTATION"), ("pixel_mm", "E_DCM_PIXEL_SPACING")):
        middle = np.median([getattr(p, field) for p in planes], axis=0)
        odd = [p for p in planes if not np.allclose(getattr(p, field), middle, 0, 1e-3)]
        _none(planes, odd, code, f"have another {field.replace('_mm', ' spacing')} than the rest")


def _none(planes: Sequence[Plane], bad: Sequence[Plane], code: str, what: str) -> None:
    if bad:
        cause = f"{len(bad)} of {len(planes)} slices {what}: {names([p.file for p in bad])}"
        raise Refused(code, cause, "export the series again, or move foreign slices elsewhere")


def _is_orientation(values: tuple[float, ...]) -> bool:
    if len(values) != 6 or not np.isfinite(values).all():
        return False
    frame = np.array(values).reshape(2, 3)
    return bool(np.allclose(frame @ frame.T, np.eye(2), 0, 1e-2))


def _is_pixel(values: tuple[float, ...]) -> bool:
    return len(values) == 2 and all(PIXEL_MM[0] <= v <= PIXEL_MM[1] for v in values)


# ---- along the normal ----------------------------------------------------------------------------


def regular_step(along: Line, files: Sequence[str]) -> float:
    """Δs = (last - first) / (n - 1), if every slice lies on that grid."""
    steps = np.diff(along)
    same = np.flatnonzero(steps < SAME_PLACE_MM)
    if same.size:
        pairs = [f"{files[i]} = {files[i + 1]} at {along[i]:.2f} mm" for i in same[:LISTED]]
        cause = f"{same.size} slices lie where another does ({'; '.join(pairs)})"
        raise Refused("E_DCM_DUPLICATE_SLICE", cause, "separate the phases or copies of the series")
    missing = gaps(steps)
    if missing:
        where = "; ".join(
            f"{n} between {along[i]:.2f} mm ({files[i]}) and {along[i + 1]:.2f} mm ({files[i + 1]})"
            for i, n in list(missing.items())[:LISTED]
        )
        cause = f"{sum(missing.values())} slices are missing: {where}"
        raise Refused("E_DCM_GAP", cause, "fetch the missing slices")
    step = float((along[-1] - along[0]) / (len(along) - 1))
    off = np.abs(along - (along[0] + step * np.arange(len(along))))
    if off.max() > max(0.1, 0.05 * step):
        cause = (
            f"slices lie {steps.min():.2f} to {steps.max():.2f} mm apart, up to {off.max():.2f} mm "
            f"from an even grid (worst {files[int(off.argmax())]} at {along[off.argmax()]:.2f} mm)"
        )
        raise Refused("E_DCM_SPACING", cause, "resample it to even spacing with a tool you trust")
    if not STEP_MM[0] <= step <= STEP_MM[1]:
        cause = f"slices lie {step:.3f} mm apart, which no chest or abdomen CT does"
        raise Refused("E_DCM_SPACING", cause, "check the unit of ImagePositionPatient")
    return step


def gaps(steps: Line) -> dict[int, int]:
    """Index of a step -> slices missing in it, if the series is even but for a few wide steps.

    A wide step is a whole multiple of the median one. More than a quarter of them is a series
    of two spacings rather than one with holes.
    """
    multiple = steps / np.median(steps)
    whole = np.round(multiple)
    wide = np.flatnonzero(whole > 1)
    even = np.abs(multiple - whole) <= 0.1
    if not even.all() or wide.size > len(steps) / 4:
        return {}
    return {int(i): int(whole[i]) - 1 for i in wide}


# ---- across it -----------------------------------------------------------------------------------


def check_sideways(positions: Points, normal: Vector, tolerance_mm: float) -> None:
    """Refuse a stack that leans (gantry tilt) or jumps: its slices must lie over one another."""
    offset = positions - positions[0]
    along = offset @ normal
    drift = offset - along[:, None] * normal
    if np.linalg.norm(drift, axis=1).max() <= tolerance_mm:
        return
    slope = along @ drift / (along @ along)  # least squares: drift = along x slope
    rest = np.linalg.norm(drift - along[:, None] * slope, axis=1)
    if rest.max() <= tolerance_mm:
        degrees = np.degrees(np.arctan(np.linalg.norm(slope)))
        cause = f"the stack leans by {degrees:.1f} degrees (tilted gantry), so voxels are sheared"
        raise Refused("E_DCM_TILT", cause, "resample it to a straight stack with a tool you trust")
    at = int(np.argmax(np.linalg.norm(np.diff(drift, axis=0), axis=1)))
    cause = f"slices jump sideways, most between {along[at]:.2f} and {along[at + 1]:.2f} mm"
    raise Refused("E_DCM_SHIFT", f"{cause} from the first", "split the series where it jumps")

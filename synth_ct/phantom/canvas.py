"""The grid a patient is painted on: later solids cover earlier ones, edges share their voxels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synth_ct.kit.axes import LabelArray
from synth_ct.phantom.shapes import (
    Field,
    Form,
    Millimetres,
    Number,
    Points,
    Turn,
    Vector,
    blob,
    capsule,
    smooth_min,
)

Box = tuple[slice, slice, slice]
Path = Sequence[Vector]


@dataclass(frozen=True, slots=True)
class Canvas:
    """HU and labels being painted, and where each voxel lies in the patient frame."""

    points: Points
    hu: Field
    label: LabelArray
    origin: Millimetres
    """Patient coordinate of the first voxel, before the warp."""
    step: Millimetres
    """Voxel edges in the patient frame."""
    reach_mm: float
    """The warp moves no point farther than this."""

    @property
    def voxel_mm(self) -> float:
        """Mean voxel edge in the patient frame."""
        return sum(self.step) / 3


def box_between(canvas: Canvas, low: Vector, high: Vector) -> Box:
    """The voxels that may lie between two corners of the patient frame, whatever the warp."""
    margin = canvas.reach_mm + canvas.voxel_mm
    grid = zip(low, high, canvas.origin, canvas.step, canvas.hu.shape, strict=True)
    limits = [
        (int((a - margin - o) // s), int((b + margin - o) // s) + 2, n) for a, b, o, s, n in grid
    ]
    x, y, z = (slice(max(0, min(i, n)), max(0, min(j, n))) for i, j, n in limits)
    return x, y, z


def whole(canvas: Canvas) -> Box:
    """Every voxel."""
    return (slice(None), slice(None), slice(None))


def is_empty(canvas: Canvas, box: Box) -> bool:
    """Whether a box misses the grid."""
    return canvas.hu[box].size == 0


def look(canvas: Canvas, box: Box) -> Points:
    """The patient coordinates of a box."""
    x, y, z = canvas.points
    return x[box], y[box], z[box]


def coverage(canvas: Canvas, distance: Field) -> Field:
    """The part of a voxel inside a surface: clip(1/2 - distance / edge, 0, 1)."""
    edge = np.float32(canvas.voxel_mm)
    return np.clip(np.float32(0.5) - distance / edge, np.float32(0), np.float32(1))


def paint(
    canvas: Canvas, box: Box, distance: Field, hu: Number | Field, label: int | None = None
) -> None:
    """Lay a solid over what is there; `label=None` leaves the label map alone."""
    blend(canvas, box, coverage(canvas, distance), hu)
    if label is not None:
        canvas.label[box][distance < 0] = label


def blend(canvas: Canvas, box: Box, alpha: Field, hu: Number | Field) -> None:
    """HU <- HU + alpha (new - HU)."""
    region = canvas.hu[box]
    value = np.float32(hu) if isinstance(hu, float | int) else hu
    region += alpha * (value - region)


def paint_blob(
    canvas: Canvas,
    centre: Vector,
    radii: Vector,
    hu: Number,
    shape: tuple[Form, Turn | None] = (Form(), None),
) -> None:
    """Paint one unlabelled ellipsoid-like solid."""
    form, turn = shape
    reach = [1.25 * (r if turn is None else max(radii)) for r in radii]
    low, high = ([c + s * r for c, r in zip(centre, reach, strict=True)] for s in (-1, 1))
    box = box_between(canvas, low, high)
    if is_empty(canvas, box):
        return
    paint(canvas, box, blob(look(canvas, box), centre, radii, form, turn), hu, 0)


def thin(radius: Number, voxel_mm: float) -> float:
    """How much of `coverage` a tube thinner than a voxel deserves: its area over the voxel's."""
    share = np.pi * radius**2 / voxel_mm**2
    return float(min(1.0, share / min(1.0, 0.5 + radius / voxel_mm)))


def stroke(
    canvas: Canvas,
    path: Path,
    radii: Vector | Number,
    hu: Number,
    label: int | None = None,
) -> None:
    """Paint a tube along a path, segment by segment."""
    sizes = [radii] * len(path) if isinstance(radii, float | int) else list(radii)
    for start, stop, first, last in zip(path[:-1], path[1:], sizes[:-1], sizes[1:], strict=True):
        box = path_box(canvas, (start, stop), max(first, last))
        if is_empty(canvas, box):
            continue
        distance = capsule(look(canvas, box), start, stop, (first, last))
        alpha = coverage(canvas, distance) * np.float32(thin(max(first, last), canvas.voxel_mm))
        blend(canvas, box, alpha, hu)
        if label is not None:
            canvas.label[box][distance < 0] = label


def path_box(canvas: Canvas, path: Path, margin: Number) -> Box:
    """The box around a path."""
    corners = np.array(path, float)
    low, high = corners.min(0) - margin, corners.max(0) + margin
    return box_between(canvas, low.tolist(), high.tolist())


def tube(points: Points, path: Path, radii: Vector, seam: float = 6.0) -> Field:
    """The distance to a tube as one solid: capsules with rounded seams."""
    distance: Field | None = None
    for start, stop, first, last in zip(path[:-1], path[1:], radii[:-1], radii[1:], strict=True):
        part = capsule(points, start, stop, (first, last))
        distance = part if distance is None else smooth_min(distance, part, seam)
    assert distance is not None, "a tube needs two points"
    return distance

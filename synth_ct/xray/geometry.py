"""Where source, detector and patient stand: a cone beam in RAS+ millimetres.

The film's axes never depend on the beam: rows U run superior -> inferior; columns V run patient
right -> left on a frontal film, AP and PA alike, as if the viewer faced the patient. A lateral is
a left lateral (the patient's left at the detector), shown as usual with the patient facing the
viewer's left: V runs anterior -> posterior.

The default is a supine AP exposure of a 320 mm field: the detector lies close behind the patient,
so magnification at the isocentre is only 1.2, and 128 pixels of 3 mm are 320 mm there. What lies
nearer to the source is magnified more: its outermost millimetres can fall beside the detector,
as they do on film.
"""

from dataclasses import dataclass, replace
from math import cos, radians, sin
from typing import Literal

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from synth_ct.kit.axes import Affine, Grid, Millimetres3
from synth_ct.kit.volume import spacing_mm

View = Literal["frontal", "lateral"]
Beam = Literal["AP", "PA"]
Point = Float64[ndarray, "3"]
Targets = Float64[ndarray, "u v 3"]
Rotation = Float64[ndarray, "3 3"]

DOWN = np.array([0.0, 0.0, -1.0])
TO_PATIENT_LEFT = np.array([-1.0, 0.0, 0.0])
TO_BACK = np.array([0.0, -1.0, 0.0])


@dataclass(frozen=True, slots=True)
class Geometry:
    """A cone-beam exposure. `beam` is the side a frontal beam enters; a lateral ignores it."""

    view: View = "frontal"
    beam: Beam = "AP"
    source_to_isocentre_mm: float = 850.0
    source_to_detector_mm: float = 1020.0
    pixels: tuple[int, int] = (128, 128)
    """Rows and columns."""
    pitch_mm: float = 3.0
    isocentre_mm: Millimetres3 | None = None
    """World position the central ray passes; None is the centre of the volume."""
    rotation_deg: Millimetres3 = (0.0, 0.0, 0.0)
    """The patient turned about the world axes X, then Y, then Z through the isocentre, ..."""
    translation_mm: Millimetres3 = (0.0, 0.0, 0.0)
    """... and then moved. Source and detector stay."""

    def __post_init__(self) -> None:
        if not 0 < self.source_to_isocentre_mm < self.source_to_detector_mm:
            raise ValueError(
                f"the isocentre, {self.source_to_isocentre_mm} mm from the source, must lie before "
                f"the detector, {self.source_to_detector_mm} mm from it; check the two distances"
            )
        if min(self.pixels) < 1 or self.pitch_mm <= 0:
            raise ValueError(
                f"a detector of {self.pixels} pixels of {self.pitch_mm} mm has no area; "
                "give at least one pixel and a positive pitch"
            )

    @property
    def magnification(self) -> float:
        """M = SDD / SID: size on the detector of 1 mm at the isocentre."""
        return self.source_to_detector_mm / self.source_to_isocentre_mm


@dataclass(frozen=True, slots=True)
class Rays:
    """One exposure: every ray runs from the source to the centre of a pixel.

    target(u, v) = corner + u * row_step + v * column_step
    """

    source: Point
    corner: Point
    row_step: Point
    column_step: Point
    pixels: tuple[int, int]

    def targets(self) -> Targets:
        """The pixel centres."""
        u, v = (np.arange(n)[:, None] for n in self.pixels)
        points: Targets = self.corner + (u * self.row_step)[:, None] + v * self.column_step
        return points

    def in_voxels(self, affine: Affine) -> "Rays":
        """World millimetres -> voxel indices of a grid."""
        back = np.linalg.inv(affine)
        turn, shift = back[:3, :3], back[:3, 3]
        return Rays(
            source=turn @ self.source + shift,
            corner=turn @ self.corner + shift,
            row_step=turn @ self.row_step,
            column_step=turn @ self.column_step,
            pixels=self.pixels,
        )


def rays(geometry: Geometry, volume_centre: Point) -> Rays:
    """Source and pixels as the patient sees them: x_patient = R^T (x_room - c - t) + c."""
    across, along = _film_directions(geometry)
    iso = volume_centre if geometry.isocentre_mm is None else np.array(geometry.isocentre_mm)
    turn_back = rotation(geometry.rotation_deg).T
    source = -geometry.source_to_isocentre_mm * along
    middle = source + geometry.source_to_detector_mm * along
    row_step, column_step = geometry.pitch_mm * DOWN, geometry.pitch_mm * across
    rows, columns = geometry.pixels
    corner = middle - (rows - 1) / 2 * row_step - (columns - 1) / 2 * column_step
    moved = np.array(geometry.translation_mm)
    return Rays(
        source=turn_back @ (source - moved) + iso,
        corner=turn_back @ (corner - moved) + iso,
        row_step=turn_back @ row_step,
        column_step=turn_back @ column_step,
        pixels=geometry.pixels,
    )


def _film_directions(geometry: Geometry) -> tuple[Point, Point]:
    """The direction of V and that of the central ray, in the room."""
    if geometry.view == "lateral":
        return TO_BACK, TO_PATIENT_LEFT
    return TO_PATIENT_LEFT, TO_BACK if geometry.beam == "AP" else -TO_BACK


def rotation(degrees: Millimetres3) -> Rotation:
    """R = Rz Ry Rx."""
    (cx, sx), (cy, sy), (cz, sz) = ((cos(radians(d)), sin(radians(d))) for d in degrees)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turn: Rotation = about_z @ about_y @ about_x
    return turn


def centre_of(shape: Grid, affine: Affine) -> Point:
    """World position of the middle of a grid."""
    middle: Point = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    return middle


def covering(geometry: Geometry, shape: Grid, affine: Affine, most_pixels: int = 256) -> Geometry:
    """`geometry` with a detector of the volume's own shape: one pixel per voxel at the isocentre.

    The grid must be canonical (RAS+). Each side has at most `most_pixels`.
    """
    spacing = spacing_mm(affine)
    width_axis = 0 if geometry.view == "frontal" else 1
    high, wide = (shape[axis] * spacing[axis] for axis in (2, width_axis))
    pixel = max(min(spacing[2], spacing[width_axis]), max(high, wide) / most_pixels)
    pixels = (max(1, round(high / pixel)), max(1, round(wide / pixel)))
    return replace(geometry, pixels=pixels, pitch_mm=pixel * geometry.magnification)

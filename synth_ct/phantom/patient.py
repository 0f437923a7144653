"""A patient in a scanner: `make_phantom` puts anatomy on a grid of any size.

One seed is one patient: a larger grid shows the same patient in finer voxels, and the kinds are
fields of view of that patient.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from synth_ct.kit.volume import LabelMap, Volume, to_int16
from synth_ct.phantom.abdomen import paint_organs
from synth_ct.phantom.anatomy import WARP_LIMIT_MM, WARP_STEP_MM, Anatomy, draw_anatomy
from synth_ct.phantom.canvas import Canvas
from synth_ct.phantom.scan import add_noise, add_texture
from synth_ct.phantom.shapes import Family, Millimetres
from synth_ct.phantom.skeleton import paint_cage, paint_girdles, paint_spine
from synth_ct.phantom.soft import paint_bowel, paint_deep_muscles, paint_wall
from synth_ct.phantom.thorax import (
    paint_great_vessels,
    paint_heart,
    paint_lungs,
    paint_opacities,
    paint_trees,
)
from synth_ct.phantom.tissue import AIR_HU, PHASES
from synth_ct.phantom.trunk import surfaces as trunk_surfaces
from synth_ct.phantom.warp import Axis, spline

Kind = Literal["chest", "abdomen", "spleen", "lumbar"]
SIZES = range(32, 129)
POINT_SPREAD_MM = 1.2

FIELDS: Mapping[Kind, tuple[float, Millimetres]] = {
    "chest": (320.0, (0.0, 12.0, 8.0)),
    "abdomen": (320.0, (0.0, 16.0, -112.0)),
    "spleen": (320.0, (0.0, 16.0, -98.0)),
    "lumbar": (240.0, (0.0, -18.0, -172.0)),
}
"""Edge of the field of view, and the point of the patient frame at its centre, both in mm."""


@dataclass(frozen=True, slots=True)
class Phantom:
    """A CT with the truth about it."""

    ct: Volume
    labels: LabelMap
    """BTCV's ids in `chest` and `abdomen`, 1 in `spleen`, CTSpine1K's ids in `lumbar`."""
    facts: Mapping[str, float]
    """Habitus and the like, in numbers."""


def make_phantom(
    kind: Kind, seed: int, size: int = 64, family: Family = "A", opacities: bool = False
) -> Phantom:
    """Draw the patient of a seed and scan the kind's field of view on a size^3 grid."""
    if size not in SIZES:
        raise ValueError(f"a phantom's grid has 32 to 128 voxels an edge, not {size}")
    anatomy = draw_anatomy(seed, family)
    axes = patient_axes(anatomy, kind, size)
    canvas = blank_canvas(anatomy, axes)
    lung_share = paint_patient(canvas, anatomy, kind, axes, opacities=opacities)
    edge = FIELDS[kind][0] / size
    random = anatomy.random(f"scan/{kind}/{size}")
    hu = ndimage.gaussian_filter(canvas.hu, POINT_SPREAD_MM / edge, mode="nearest", truncate=3)
    hu = add_noise(hu, anatomy, random, (edge, edge, edge))
    label = canvas.label if kind != "spleen" else (canvas.label == 1).astype(np.uint8)
    affine = np.diag([edge, edge, edge, 1.0])
    affine[:3, 3] = [axis[0] * s for axis, s in zip(axes, anatomy.scale, strict=True)]
    return Phantom(
        ct=Volume(to_int16(hu), affine),
        labels=LabelMap(label, affine),
        facts=describe(anatomy, lung_share * FIELDS[kind][0] ** 3 / 1000),
    )


def patient_axes(anatomy: Anatomy, kind: Kind, size: int) -> tuple[Axis, Axis, Axis]:
    """The patient-frame coordinate of each voxel along each axis, before the warp."""
    edge, centre = FIELDS[kind]
    steps = (np.arange(size) - (size - 1) / 2) * edge / size
    x, y, z = (c + steps / s for c, s in zip(centre, anatomy.scale, strict=True))
    return x, y, z


def blank_canvas(anatomy: Anatomy, axes: tuple[Axis, Axis, Axis]) -> Canvas:
    """Air on a warped grid: voxel p shows what lies at p + u(p)."""
    shape = (len(axes[0]), len(axes[1]), len(axes[2]))
    step_x, step_y, step_z = (float(a[1] - a[0]) for a in axes)
    moves = [spline(lattice, axes, WARP_STEP_MM) for lattice in anatomy.warp]
    grid = np.meshgrid(*(a.astype(np.float32) for a in axes), indexing="ij", sparse=True)
    x, y, z = (move + line for move, line in zip(moves, grid, strict=True))
    return Canvas(
        points=(x, y, z),
        hu=np.full(shape, AIR_HU, np.float32),
        label=np.zeros(shape, np.uint8),
        origin=(float(axes[0][0]), float(axes[1][0]), float(axes[2][0])),
        step=(step_x, step_y, step_z),
        reach_mm=WARP_LIMIT_MM,
    )


def paint_patient(
    canvas: Canvas,
    anatomy: Anatomy,
    kind: Kind,
    axes: tuple[Axis, Axis, Axis],
    *,
    opacities: bool,
) -> float:
    """From the skin inwards; what is painted later lies in front. Returns the lungs' share."""
    outlines = trunk_surfaces(anatomy.figure, canvas.points)
    paint_wall(canvas, anatomy, outlines, axes)
    paint_deep_muscles(canvas, anatomy)
    paint_bowel(canvas, anatomy, outlines, axes)
    paint_organs(canvas, anatomy, outlines)
    lung = paint_lungs(canvas, anatomy, outlines)
    if opacities:
        paint_opacities(canvas, anatomy, lung, axes)
    paint_trees(canvas, anatomy)
    paint_heart(canvas, anatomy)
    paint_great_vessels(canvas, anatomy)
    if kind == "lumbar":
        canvas.label[:] = 0
    canvas.hu[:] = add_texture(canvas.hu, anatomy, axes)
    paint_cage(canvas, anatomy)
    paint_girdles(canvas, anatomy)
    paint_spine(canvas, anatomy, axes, labelled=kind == "lumbar")
    return float(((lung < 0) & (canvas.hu < -500)).mean())


def describe(anatomy: Anatomy, lung_ml: float) -> dict[str, float]:
    """Numbers about a patient: habitus, contrast phase, and the lungs in the field of view."""
    return {
        "female": float(anatomy.female),
        "fat_mm": anatomy.fat_mm,
        "scale_x": anatomy.scale[0],
        "scale_y": anatomy.scale[1],
        "scale_z": anatomy.scale[2],
        "phase": float(PHASES.index(anatomy.phase)),
        "lung_ml": lung_ml,
    }

"""The trunk's surfaces: skin, fascia (around the muscles), cavity (inside the ribs), diaphragm.

The patient frame has its origin in the midline at the level of the right diaphragm's dome, the
eighth thoracic vertebra 46 mm behind it. Curves give a value per level z, in mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator

from synth_ct.phantom.shapes import Field, Form, Number, Points, Vector, capsule, ring, smooth_min

LOWEST_MM, STEP_MM, LEVELS = -400.0, 0.5, 1401
Curve = Float[np.ndarray, " levels"]

CAVITY = (
    (240, 20, -25, 22), (175, 22, -26, 24), (163, 28, -28, 26), (148, 50, -40, 32),
    (125, 84, -56, 56), (105, 98, -66, 79), (65, 110, -79, 96), (25, 115, -80, 103),
    (-15, 120, -74, 108), (-55, 123, -69, 109), (-95, 124, -63, 107), (-135, 122, -58, 108),
    (-200, 119, -52, 105), (-240, 112, -50, 104), (-275, 104, -55, 98), (-400, 100, -60, 95),
)  # fmt: skip
"""z, half-width, back, front of the inside of the ribs and of the abdominal wall."""

FASCIA = (
    (240, 46, -56, 44), (185, 50, -60, 46), (172, 62, -66, 50), (160, 78, -74, 58),
    (148, 94, -82, 67), (125, 116, -94, 82), (105, 127, -99, 100), (65, 131, -105, 110),
    (25, 130, -105, 115), (-15, 132, -101, 118), (-55, 134, -95, 119), (-95, 134, -87, 117),
    (-135, 133, -80, 120), (-200, 132, -76, 116), (-240, 137, -86, 113), (-275, 144, -95, 108),
    (-400, 150, -105, 105),
)  # fmt: skip
"""The same for the outside of the muscles."""

SPINE_Y = (
    (240, 14), (165, 9), (146, 6), (125, -6), (105, -22), (85, -36), (45, -49), (5, -47),
    (-35, -38), (-75, -25), (-115, -8), (-155, 5), (-200, 6), (-237, -4), (-265, -20),
    (-300, -45), (-400, -60),
)  # fmt: skip
"""z, y of the centre of the vertebral bodies."""

FAT_PROFILE = ((240, 0.5), (150, 0.6), (60, 0.8), (-40, 0.9), (-130, 1.2), (-230, 1.3), (-400, 1.4))


@dataclass(frozen=True, slots=True)
class Figure:
    """One patient's trunk: curves per level, and what departs from them."""

    cavity: tuple[Curve, Curve, Curve]
    fascia: tuple[Curve, Curve, Curve]
    spine_y: Curve
    fat: Curve
    form: Form
    domes: tuple[tuple[float, float, float, float, float], ...]
    """Centre x, y, height of the apex, radii x and y, of the diaphragm's right, left and centre."""


@dataclass(frozen=True, slots=True)
class Surfaces:
    """Distances on the grid to the trunk's surfaces, and the height above the diaphragm."""

    skin: Field
    fascia: Field
    cavity: Field
    above_diaphragm: Field


def curve(knots: Sequence[Vector], column: int = 1) -> Curve:
    """A monotone cubic through knots (z, value, ...), sampled every half millimetre."""
    table = np.array(sorted(knots, key=lambda knot: knot[0]), float)
    z = LOWEST_MM + STEP_MM * np.arange(LEVELS)
    inside = np.clip(z, table[0, 0], table[-1, 0])
    curve_mm = PchipInterpolator(table[:, 0], table[:, column])(inside)
    values: Curve = curve_mm.astype(np.float32)
    return values


def at(values: Curve, z: Field) -> Field:
    """The curve's value at each height."""
    index = np.clip((z - np.float32(LOWEST_MM)) * np.float32(1 / STEP_MM), 0, LEVELS - 1)
    taken: Field = np.take(values, index.astype(np.int32))
    return taken


def value(values: Curve, z: Number) -> float:
    """The curve's value at one height."""
    return float(values[int(np.clip((z - LOWEST_MM) / STEP_MM, 0, LEVELS - 1))])


def draw_figure(random: np.random.Generator, family: str, fat_mm: float) -> Figure:
    """A random trunk; `fat_mm` is the mean thickness of subcutaneous fat."""
    deep, wide = random.normal(1, 0.04), random.normal(1, 0.025)
    flare = random.normal(0, 4)
    stretch = np.clip([wide, deep, deep], 0.9, 1.1)
    cavity, fascia = (
        tuple(curve(knots, n + 1) * np.float32(stretch[n]) for n in range(3))
        for knots in (CAVITY, FASCIA)
    )
    if family == "A":
        form = Form(exponent=float(random.uniform(2.25, 2.6)))
    else:
        form = Form(2.1, tuple(random.normal((0.0, -0.03, 0.0), 0.012).tolist()))
    right = float(random.normal(-5, 5))
    left = right - float(random.uniform(8, 26))
    centre = min(right, left) - float(random.uniform(0, 8))
    domes = (
        (60.0, 14.0, right, 66.0, 96.0 + float(flare)),
        (-64.0, 10.0, left, 64.0, 92.0 + float(flare)),
        (-12.0, 30.0, centre, 92.0, 88.0),
    )
    sway = curve(((240, 0), (45, random.normal(0, 4)), (-160, random.normal(0, 4)), (-400, 0)))
    return Figure(
        cavity=(cavity[0], cavity[1], cavity[2]),
        fascia=(fascia[0], fascia[1], fascia[2]),
        spine_y=curve(SPINE_Y) * np.float32(stretch[1]) + sway,
        fat=curve(FAT_PROFILE) * np.float32(fat_mm),
        form=form,
        domes=domes,
    )


def cavity_distance(figure: Figure, points: Points) -> Field:
    """Distance to the inside of the ribs and of the abdominal wall."""
    x, y, z = points
    width, back, front = (at(c, z) for c in figure.cavity)
    return ring(x, y, (width, back, front), figure.form)


def height_above_diaphragm(figure: Figure, points: Points) -> Field:
    """z - max_i dome_i,   dome = apex - 95 (1 - sqrt(1 - q^2)), q the distance over the radii."""
    x, y, z = points
    top: Field | None = None
    for cx, cy, apex, rx, ry in figure.domes:
        square = ((x - np.float32(cx)) / np.float32(rx)) ** 2
        square += ((y - np.float32(cy)) / np.float32(ry)) ** 2
        fall = 1 - np.sqrt(np.maximum(1 - square, np.float32(0)))
        tilt = np.float32(0.36) * (np.float32(cy) - y).clip(0)
        dome = np.float32(apex) - 78 * fall - tilt - 20 * np.maximum(square - 1, np.float32(0))
        top = dome if top is None else -smooth_min(-top, -dome, 14.0)
    assert top is not None, "a diaphragm has domes"
    height: Field = (z - top) * np.float32(0.8)
    return height


def outer_distances(figure: Figure, points: Points) -> tuple[Field, Field]:
    """Distance to the skin and to the fascia: the trunk and the raised arms, joined smoothly."""
    x, y, z = points
    width, back, front = (at(c, z) for c in figure.fascia)
    fat = at(figure.fat, z)
    fascia = ring(x, y, (width, back, front), figure.form)
    skin = ring(x, y, (width + fat * 0.8, back - fat, front + fat * 1.25), figure.form)
    folded = np.abs(x), y, z
    arm = capsule(folded, (96, -22, 118), (122, -6, 330), (33, 30))
    fascia = smooth_min(fascia, arm, 26.0)
    return smooth_min(skin, arm - fat * np.float32(0.8), 26.0), fascia


def surfaces(figure: Figure, points: Points) -> Surfaces:
    """All surfaces of a trunk on a grid."""
    skin, fascia = outer_distances(figure, points)
    return Surfaces(
        skin=skin,
        fascia=fascia,
        cavity=cavity_distance(figure, points),
        above_diaphragm=height_above_diaphragm(figure, points),
    )

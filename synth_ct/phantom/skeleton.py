"""Bones and cartilage: vertebrae, ribs that close on the sternum, clavicles, scapulae, pelvis."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synth_ct.phantom.anatomy import Anatomy
from synth_ct.phantom.canvas import (
    Canvas,
    box_between,
    is_empty,
    look,
    paint,
    paint_blob,
    stroke,
)
from synth_ct.phantom.shapes import Field, Millimetres, Number, ring_radius
from synth_ct.phantom.trunk import at, value
from synth_ct.phantom.warp import Axis, smooth_noise

LEVELS = (
    ("C6", 6, 180.0), ("C7", 7, 163.0), ("T1", 8, 146.0), ("T2", 9, 129.0), ("T3", 10, 112.0),
    ("T4", 11, 94.5), ("T5", 12, 76.5), ("T6", 13, 57.5), ("T7", 14, 37.5), ("T8", 15, 16.5),
    ("T9", 16, -5.0), ("T10", 17, -28.0), ("T11", 18, -52.0), ("T12", 19, -78.0),
    ("L1", 20, -107.0), ("L2", 21, -139.0), ("L3", 22, -172.0), ("L4", 23, -205.0),
    ("L5", 24, -237.0), ("S1", 0, -267.0), ("S2", 0, -291.0),
)  # fmt: skip
"""Name, label (CTSpine1K's ids: T1 = 8, L5 = 24) and height of each vertebral body."""

RIBS = (
    (148, 34, 150, 122), (138, 46, 158, 104), (128, 64, 160, 85), (115, 84, 160, 67),
    (98, 98, 159, 50), (76, 106, 154, 36), (51, 112, 149, 24), (24, 114, 142, 15),
    (-3, 110, 130, 8), (-30, 100, 117, 2), (-58, 90, 98, 0), (-90, 60, 62, 0),
)  # fmt: skip
"""Height at the back, drop to the front end, angle of that end from the back in degrees, and the
height on the sternum where its cartilage ends (of ribs 8 to 10: where it joins the arch)."""

STERNUM_OFFSET_MM = 7.0


@dataclass(frozen=True, slots=True)
class Vertebra:
    """Where one vertebra is and how large."""

    label: int
    lumbar: bool
    y: float
    z: float
    width: float
    depth: float
    half_height: float
    slope: float
    """dy/dz of the spine's curve here."""

    def point(self, x: Number, back: Number, up: Number) -> Millimetres:
        """A point given from the body's centre, turned with the spine's slope."""
        cosine = 1 / np.hypot(1, self.slope)
        sine = self.slope * cosine
        y = self.y - back * cosine + up * sine
        return (x, float(y), float(self.z + up * cosine + back * sine))


def vertebrae(anatomy: Anatomy) -> list[Vertebra]:
    """The vertebrae of a patient, top down."""
    random = anatomy.random("vertebrae")
    heights = np.array([z for _, _, z in LEVELS])
    gaps = -np.gradient(heights)
    bulk = float(random.normal(1, 0.05))
    found = []
    for (name, label, z), gap in zip(LEVELS, gaps.tolist(), strict=True):
        down = np.clip((150 - z) / 400, 0, 1)
        y = value(anatomy.figure.spine_y, z)
        above, below = (value(anatomy.figure.spine_y, z + s) for s in (12.0, -12.0))
        found.append(
            Vertebra(
                label=label,
                lumbar=name[0] in "LS",
                y=y,
                z=z,
                width=float((13 + 12 * down) * bulk),
                depth=float((9.5 + 8 * down) * bulk),
                half_height=gap / 2 - float(1.8 + 3 * down),
                slope=(above - below) / 24,
            )
        )
    return found


def paint_spine(canvas: Canvas, anatomy: Anatomy, axes: Sequence[Axis], *, labelled: bool) -> None:
    """Discs, bodies, arches, processes and the canal."""
    grain = smooth_noise(anatomy.random("marrow"), axes, 4.0)
    marrow = np.float32(anatomy.hu["trabecula"]) + 65 * grain
    for vertebra in vertebrae(anatomy):
        label = vertebra.label if labelled else 0
        _paint_disc(canvas, anatomy, vertebra)
        _paint_arch(canvas, anatomy, vertebra, label)
        _paint_body(canvas, 0.75 * anatomy.hu["cortex"], marrow, vertebra, label)


def _body_distance(vertebra: Vertebra, points: tuple[Field, Field, Field]) -> Field:
    """An elliptic cylinder, waisted, turned with the spine."""
    x, y, z = points
    cosine = np.float32(1 / np.hypot(1, vertebra.slope))
    sine = np.float32(vertebra.slope) * cosine
    dy, dz = y - np.float32(vertebra.y), z - np.float32(vertebra.z)
    v, w = dy * cosine - dz * sine, dz * cosine + dy * sine
    waist = 1 - np.float32(0.1) * (1 - np.clip((w / vertebra.half_height) ** 2, 0, 1))
    hollow = np.float32(0.25) * np.clip(-v - np.float32(vertebra.depth * 0.5), 0, None)
    radial = np.hypot(x / vertebra.width, v / vertebra.depth)
    side = (radial / waist - 1) * np.float32(vertebra.depth) + hollow
    return np.maximum(side, np.abs(w) - np.float32(vertebra.half_height))


def _paint_body(
    canvas: Canvas, cortex: float, marrow: Field, vertebra: Vertebra, label: int
) -> None:
    reach = (vertebra.width + 3, vertebra.depth + 8, vertebra.half_height + 8)
    centre = (0.0, vertebra.y, vertebra.z)
    box = box_between(
        canvas,
        [c - r for c, r in zip(centre, reach, strict=True)],
        [c + r for c, r in zip(centre, reach, strict=True)],
    )
    if is_empty(canvas, box):
        return
    distance = _body_distance(vertebra, look(canvas, box))
    paint(canvas, box, distance, cortex, label)
    paint(canvas, box, distance + np.float32(1.9), marrow[box])


def _paint_disc(canvas: Canvas, anatomy: Anatomy, vertebra: Vertebra) -> None:
    below = vertebra.point(0, 0, -vertebra.half_height - 3)
    radii = (vertebra.width * 1.02, vertebra.depth * 1.02, 6.5)
    paint_blob(canvas, below, radii, anatomy.hu["disc"])


def _paint_arch(canvas: Canvas, anatomy: Anatomy, v: Vertebra, label: int) -> None:
    """Pedicles, laminae, spinous and transverse processes, and the canal they enclose."""
    bone = 0.45 * anatomy.hu["cortex"] + 30
    d, big = v.depth, 1.0 if v.lumbar else 0.78
    canal = [v.point(0, d + 9 * big, up) for up in (-v.half_height - 3, v.half_height + 3)]
    stroke(canvas, canal, 8.5 * big, anatomy.hu["canal"], 0)
    tip = v.point(0, d + (50 if v.label else 24), -9) if v.lumbar else v.point(0, d + 36, -24)
    root = v.point(0, d + 22 * big, -4)
    for up in (-4.0, 0.0, 4.0) if v.lumbar else (0.0,):
        stroke(canvas, [(p[0], p[1], p[2] + up) for p in (root, tip)], (3.8, 3.0), bone, label)
    reach = 40.0 if v.lumbar else 30.0 - 8 * np.clip((60 - v.z) / 140, 0, 1)
    behind = d + 12 if v.lumbar else d + 27
    for side in (-1.0, 1.0):
        pedicle = v.point(side * v.width * 0.68, d * 0.6, v.half_height * 0.3)
        corner = v.point(side * 13 * big, d + 12 * big, 2)
        stroke(canvas, [pedicle, corner], 4.2 * big, bone, label)
        stroke(canvas, [corner, root], 3.6 * big, bone, label)
        stroke(canvas, [corner, v.point(side * reach, behind, 4)], (4.2, 3.2), bone, label)
        facets = [v.point(side * 15 * big, d + 14 * big, up) for up in (-0.8 * v.half_height, 12)]
        stroke(canvas, facets, 4.6 * big, bone, label)


# ---- the cage ----------------------------------------------------------------------------------


def wall_point(anatomy: Anatomy, angle: Number, z: Number, outside_mm: Number) -> Millimetres:
    """The point of the cavity's wall at an angle from the back, moved outwards."""
    width, back, front = (value(c, z) for c in anatomy.figure.cavity)
    depth, form = (front - back) / 2, anatomy.figure.form
    sine, cosine = abs(np.sin(angle)), np.cos(angle)
    e = form.exponent
    reach = ((sine / width) ** e + (abs(cosine) / depth) ** e) ** (-1 / e)
    if form.harmonics:
        a = np.full((1, 1, 1), sine * reach / width, np.float32)
        b = np.full((1, 1, 1), -cosine * reach / depth, np.float32)
        reach *= float(ring_radius(a, b, form.harmonics)[0, 0, 0])
    reach += outside_mm
    return (float(np.sin(angle) * reach), float((front + back) / 2 - cosine * reach), z)


def rib_path(anatomy: Anatomy, number: int, side: Number) -> list[Millimetres]:
    """The bony rib: from its vertebra out, round the cage and down.

    z(t) = z0 - drop * s((t - first) / (end - first)), t the angle from the back; the lower a rib,
    the sooner it falls.
    """
    top, drop, end, _ = RIBS[number]
    head_y = value(anatomy.figure.spine_y, top + 2)
    first = 46 - 2.6 * number
    path = [(side * 17.0, head_y - 9, float(top) + 2)]
    for angle in np.linspace(22, end, 15 if number < 10 else 8):
        step = float(np.clip((angle - first) / max(end - first, 60), 0, 1))
        z = top - drop * (step**1.5 * (3 - step) / 2)
        x, y, height = wall_point(anatomy, float(np.radians(angle)), z, 4.5)
        path.append((side * x, y, height))
    return path


def sternum_y(anatomy: Anatomy, z: Number) -> float:
    """The sternum stands just in front of the cavity."""
    return value(anatomy.figure.cavity[2], z) + STERNUM_OFFSET_MM


def paint_cage(canvas: Canvas, anatomy: Anatomy) -> None:
    """Twelve ribs a side with their cartilages, and the sternum."""
    paths = [(n, side, rib_path(anatomy, n, side)) for n in range(12) for side in (-1.0, 1.0)]
    for number, side, path in paths:
        if number < 10:
            _paint_cartilage(canvas, anatomy, number, side, path[-1])
    for hu, thickness in (("rib_cortex", 0.0), ("rib_marrow", 1.7)):
        for number, _, path in paths:
            radius = (3.9 if number in {0, 10, 11} else 4.6) - thickness
            stroke(canvas, path, radius, anatomy.hu[hu], 0)
    _paint_sternum(canvas, anatomy)


def _paint_cartilage(
    canvas: Canvas, anatomy: Anatomy, number: int, side: float, end: Millimetres
) -> None:
    """From the rib's end up to the sternum; false ribs join the arch beside the xiphoid."""
    attach_z = float(RIBS[number][3])
    attach = (side * (13 + max(0, number - 5) * 4.5), sternum_y(anatomy, attach_z) - 1, attach_z)
    bend_z = 0.6 * end[2] + 0.4 * attach_z
    bend_x = 0.55 * end[0] + 0.45 * attach[0]
    front = value(anatomy.figure.cavity[2], bend_z)
    bend_y = max(0.5 * (end[1] + attach[1]), front - 0.0016 * bend_x**2 + 3)
    path = [end, (bend_x, bend_y, bend_z), attach]
    stroke(canvas, path, (4.6, 4.4, 4.0), anatomy.hu["cartilage"], 0)


def _paint_sternum(canvas: Canvas, anatomy: Anatomy) -> None:
    """A plate along the front: manubrium, body, xiphoid."""
    high, low = 133.0, -8.0
    box = box_between(canvas, (-30, 20, low - 4), (30, 135, high + 4))
    if is_empty(canvas, box):
        return
    x, y, z = look(canvas, box)
    width = np.interp(z, (-8, 12, 30, 95, 106, 133), (4, 13, 17, 14, 22, 25)).astype(np.float32)
    front = at(anatomy.figure.cavity[2], z) + np.float32(STERNUM_OFFSET_MM)
    ends = np.maximum(z - np.float32(high), np.float32(low) - z)
    flat = np.maximum(np.abs(x) - width, np.abs(y - front) - np.float32(5.5))
    distance = np.maximum(flat, ends)
    paint(canvas, box, distance, 0.8 * anatomy.hu["rib_cortex"], 0)
    paint(canvas, box, distance + np.float32(1.8), 0.7 * anatomy.hu["trabecula"])


# ---- girdles -----------------------------------------------------------------------------------


def paint_girdles(canvas: Canvas, anatomy: Anatomy) -> None:
    """Clavicles, scapulae and humeri of raised arms; iliac wings and sacrum."""
    for side in (-1.0, 1.0):
        _paint_shoulder(canvas, anatomy, side)
        _paint_ilium(canvas, anatomy, side)


def _paint_shoulder(canvas: Canvas, anatomy: Anatomy, side: Number) -> None:
    hu = anatomy.hu["rib_cortex"]
    medial_y = sternum_y(anatomy, 130) - 2
    clavicle = [
        (18, medial_y, 134), (45, medial_y + 2, 141), (72, 34, 150), (92, 8, 156), (104, -8, 160)
    ]  # fmt: skip
    bones: list[tuple[list[Millimetres], float]] = [([(x, y, z) for x, y, z in clavicle], 5.2)]
    inferior = _behind_cage(anatomy, 72, 42)
    for share in np.linspace(0, 1, 9):
        medial = _behind_cage(anatomy, 38 + 20 * share, 138 - 80 * share)
        lateral = tuple(
            (1 - share) * a + share * b
            for a, b in zip((104.0, -24.0, 140.0), inferior, strict=True)
        )
        bones.append(([medial, (lateral[0], lateral[1], lateral[2])], 2.2))
    spine = _behind_cage(anatomy, 40, 128)
    bones.append(([(spine[0], spine[1] - 4, spine[2]), (100.0, -44.0, 156.0)], 3.6))
    bones.append(([(104.0, -24.0, 140.0), inferior], 3.2))
    for path, radius in bones:
        stroke(canvas, [(side * x, y, z) for x, y, z in path], radius, hu, 0)
    paint_blob(canvas, (side * 107, -12, 152), (21, 21, 21), hu)
    paint_blob(canvas, (side * 107, -12, 152), (18.5, 18.5, 18.5), anatomy.hu["trabecula"])
    shaft = [(side * 108.0, -10.0, 158.0), (side * 121.0, -5.0, 320.0)]
    stroke(canvas, shaft, 11.5, anatomy.hu["cortex"] * 1.2, 0)
    stroke(canvas, shaft, 6.0, anatomy.hu["fat"], 0)


def _behind_cage(anatomy: Anatomy, angle_deg: Number, z: Number) -> Millimetres:
    return wall_point(anatomy, float(np.radians(angle_deg)), z, 17.0)


def _paint_ilium(canvas: Canvas, anatomy: Anatomy, side: Number) -> None:
    """A wing as a fan of rods from the sacroiliac joint to the crest."""
    crest = ((48, -66, -222), (78, -50, -206), (104, -22, -202), (120, 10, -210), (124, 48, -238))
    base = ((38, -60, -245), (50, -50, -268), (64, -34, -285), (76, -14, -300), (86, 6, -312))
    rods = []
    for share in np.linspace(0, 4, 26):
        upper, lower = (
            [float(np.interp(share, range(5), [p[k] for p in row])) for k in range(3)]
            for row in (crest, base)
        )
        middle = [0.5 * (p + q) for p, q in zip(upper, lower, strict=True)]
        bowed = (middle[0] + 5, middle[1] - 7, middle[2])
        rods.append([(side * x, y, z) for x, y, z in (upper, bowed, lower)])
    for radii, hu in (((5.0, 3.6, 5.0), "rib_cortex"), ((3.2, 1.8, 3.2), "trabecula")):
        for rod in rods:
            stroke(canvas, rod, radii, anatomy.hu[hu], 0)
    paint_blob(canvas, (side * 30, -46, -272), (17, 17, 24), anatomy.hu["trabecula"] + 40)

"""What lies around the organs: skin, fat, muscles, breasts; and the bowel."""

from collections.abc import Sequence

import numpy as np

from synth_ct.phantom.abdomen import room
from synth_ct.phantom.anatomy import Anatomy
from synth_ct.phantom.canvas import (
    Canvas,
    Path,
    blend,
    coverage,
    is_empty,
    look,
    paint,
    paint_blob,
    path_box,
    stroke,
    tube,
    whole,
)
from synth_ct.phantom.shapes import Field, blob, smooth_min
from synth_ct.phantom.trunk import Surfaces, value
from synth_ct.phantom.warp import Axis, smooth_noise

SKIN_MM = 2.0


def with_breasts(skin: Field, anatomy: Anatomy, canvas: Canvas) -> Field:
    """The skin of a woman's chest, lying on her back."""
    if not anatomy.female:
        return skin
    random = anatomy.random("breasts")
    size = float(random.uniform(26, 50) * (0.8 + anatomy.fat_mm / 60))
    x, y, z = canvas.points
    front = value(anatomy.figure.fascia[2], 20.0)
    folded = (np.abs(x), y, z)
    breast = blob(folded, (66, front - 18, 22), (size * 1.15, size * 0.85, size * 1.1))
    return smooth_min(skin, breast, 16.0)


def paint_wall(canvas: Canvas, anatomy: Anatomy, surfaces: Surfaces, axes: Sequence[Axis]) -> Field:
    """Skin, subcutaneous fat, a shell of muscle, and fat inside the cavity; returns the skin."""
    hu, box = anatomy.hu, whole(canvas)
    skin = with_breasts(surfaces.skin, anatomy, canvas)
    paint(canvas, box, skin, hu["skin"])
    paint(canvas, box, skin + np.float32(SKIN_MM), hu["fat"])
    random = anatomy.random("muscle")
    strands = smooth_noise(random, axes, 9.0)
    lean = np.float32(hu["muscle"]) - 12 * np.clip(strands - 0.6, 0, 2) * np.float32(1.5)
    muscle = np.maximum(surfaces.fascia, skin + np.float32(SKIN_MM + 1.5))
    paint(canvas, box, muscle, lean)
    _paint_fat_planes(canvas, anatomy, surfaces, smooth_noise(random, axes, 30.0))
    paint(canvas, box, surfaces.cavity + np.float32(0.5), hu["visceral_fat"])
    diaphragm = np.abs(surfaces.above_diaphragm) - np.float32(1.6)
    paint(canvas, box, np.maximum(diaphragm, surfaces.cavity), hu["muscle"])
    return skin


def _paint_fat_planes(canvas: Canvas, anatomy: Anatomy, surfaces: Surfaces, waves: Field) -> None:
    """Fat between the layers of the wall: sheets that wave between cavity and fascia."""
    depth = np.maximum(surfaces.cavity - surfaces.fascia, np.float32(1))
    share = surfaces.cavity / depth
    for height in (0.35, 0.68):
        sheet = np.abs(share - np.float32(height) - np.float32(0.22) * waves) * depth
        thick = np.float32(0.07) * np.clip(depth - 12, 0, 40) + np.float32(0.6) * waves
        alpha = coverage(canvas, sheet - thick) * coverage(canvas, np.float32(4) - depth / 3)
        blend(canvas, whole(canvas), alpha * np.float32(0.85), anatomy.hu["fat"])


def paint_deep_muscles(canvas: Canvas, anatomy: Anatomy) -> None:
    """Erectors of the spine, psoas, crura, rotator cuff, gluteal and neck muscles."""
    spine, hu = anatomy.figure.spine_y, anatomy.hu["muscle"]
    for side in (-1.0, 1.0):
        back = [
            (side * 24.0, value(spine, z) - 42, z)
            for z in (170.0, 80.0, -20.0, -120.0, -200.0, -280.0)
        ]
        stroke(canvas, back, (14, 13, 15, 21, 24, 20), hu)
        psoas = [(side * x, value(spine, z) + d, z) for x, d, z in
                 ((24, 0, -95.0), (34, 2, -150.0), (42, 4, -210.0), (56, 40, -290.0))]  # fmt: skip
        stroke(canvas, psoas, (6, 14, 19, 19), hu)
        lumborum = [(side * 52.0, value(spine, z) - 14, z) for z in (-110.0, -150.0, -205.0)]
        stroke(canvas, lumborum, (9, 13, 14), hu)
        crus = [(side * 9.0, value(spine, z) + 24, z) for z in (-45.0, -80.0, -125.0)]
        stroke(canvas, crus, (4.5, 5.0, 3.5), hu)
        glutei = [(side * 88.0, -58.0, -250.0), (side * 98.0, -50.0, -310.0)]
        stroke(canvas, glutei, (20, 36), hu)
        neck = [(side * 20.0, value(spine, z) + 30, z) for z in (150.0, 240.0)]
        stroke(canvas, neck, 9.0, hu)
        paint_blob(canvas, (side * 13, value(spine, 165) + 26, 158), (9, 10, 20), 110.0)
    stroke(canvas, [(0.0, 0.0, -400.0), (0.0, 0.0, -330.0)], 40.0, hu)


# ---- bowel -------------------------------------------------------------------------------------

COLON: Path = (
    (84, 20, -238), (92, 12, -205), (90, 16, -170), (86, 34, -142), (66, 66, -140), (36, 82, -150),
    (0, 86, -158), (-36, 80, -146), (-66, 62, -122), (-88, 34, -112), (-98, 10, -132),
    (-98, 0, -170), (-94, 4, -210), (-80, 12, -245), (-48, 8, -282), (-10, -20, -300),
)  # fmt: skip


def paint_bowel(canvas: Canvas, anatomy: Anatomy, surfaces: Surfaces, axes: Sequence[Axis]) -> None:
    """Small bowel loops in the mesenteric fat, framed by the colon with gas and stool."""
    random = anatomy.random("bowel")
    speckle = smooth_noise(random, axes, 7.0)
    _paint_small_bowel(canvas, anatomy, surfaces, random)
    knots = np.array(COLON, float) + random.normal(0, 5, (len(COLON), 3))
    radii = random.uniform(11, 22, len(COLON))
    for n in range(len(knots) - 1):
        path, ends = knots[n : n + 2].tolist(), radii[n : n + 2].tolist()
        box = path_box(canvas, path, 28)
        gassy = float(random.uniform(-1.2, 1.0))
        if is_empty(canvas, box):
            continue
        x, y, z = look(canvas, box)
        haustra = np.float32(1.8) * np.sin((x + y + z) * np.float32(0.24))
        distance = np.maximum(tube((x, y, z), path, ends) + haustra, room(surfaces, box))
        paint(canvas, box, distance, anatomy.hu["gut_wall"], 0)
        paint(canvas, box, distance + 2, anatomy.hu["stool"] + 25 * speckle[box])
        lift = (y - np.float32(path[0][1])) / np.float32(ends[0])
        gas = np.maximum(distance + 2, -6 * (speckle[box] + gassy + lift))
        paint(canvas, box, gas, anatomy.hu["gas"])


def _paint_small_bowel(
    canvas: Canvas, anatomy: Anatomy, surfaces: Surfaces, random: np.random.Generator
) -> None:
    """Loops: six paths wandering through the lower abdomen, drawn as wall and content."""
    low, high = np.array((-92.0, 4.0, -315.0)), np.array((88.0, 92.0, -158.0))
    for number in range(210):
        if number % 35 == 0:
            place, heading = random.uniform(low, high), random.normal(0, 1, 3)
        heading = 0.6 * heading + random.normal(0, 1, 3) + 0.006 * ((low + high) / 2 - place)
        stop = np.clip(place + 20 * heading / np.sqrt((heading**2).sum()), low, high)
        radius = float(random.uniform(7.5, 13))
        content = anatomy.hu["chyme"] + float(random.normal(0, 18))
        airy = bool(random.random() < 0.06)
        path = [place.tolist(), stop.tolist()]
        place = stop
        box = path_box(canvas, path, radius + 1)
        if is_empty(canvas, box):
            continue
        distance = np.maximum(tube(look(canvas, box), path, (radius, radius)), room(surfaces, box))
        paint(canvas, box, distance, anatomy.hu["gut_wall"], 0)
        paint(canvas, box, distance + 2, anatomy.hu["gas"] if airy else content)

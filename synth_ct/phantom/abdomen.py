"""BTCV's organs below the diaphragm. What is painted later presses into what was earlier."""

import numpy as np

from synth_ct.phantom.anatomy import Anatomy
from synth_ct.phantom.canvas import (
    Box,
    Canvas,
    Path,
    blend,
    box_between,
    coverage,
    is_empty,
    look,
    paint,
    path_box,
    stroke,
    tube,
)
from synth_ct.phantom.shapes import Field, Millimetres, Vector, blob, facing
from synth_ct.phantom.trunk import Surfaces, value

SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, GALLBLADDER = 1, 2, 3, 4
LIVER, STOMACH, PORTAL, PANCREAS, RIGHT_ADRENAL, LEFT_ADRENAL = 6, 7, 10, 11, 12, 13


def paint_organs(canvas: Canvas, anatomy: Anatomy, surfaces: Surfaces) -> None:
    """All of them, in an order that leaves each its usual neighbours."""
    _paint_liver(canvas, anatomy, surfaces)
    _paint_spleen(canvas, anatomy, surfaces)
    _paint_kidneys(canvas, anatomy, surfaces)
    _paint_stomach(canvas, anatomy, surfaces)
    _paint_pancreas(canvas, anatomy)
    _paint_gallbladder(canvas, anatomy)
    _paint_portal(canvas, anatomy)
    _paint_adrenals(canvas, anatomy)


def room(surfaces: Surfaces, box: Box, gap: float = 2.0) -> Field:
    """Distance to the abdominal cavity: inside of the wall, below the diaphragm."""
    wall = surfaces.cavity[box] + np.float32(gap)
    return np.maximum(wall, surfaces.above_diaphragm[box] + np.float32(gap - 1))


def jittered(
    anatomy: Anatomy, organ: str, centre: Vector, spread_mm: float = 4.0
) -> tuple[Millimetres, float]:
    """An organ's own place and size in this patient."""
    random = anatomy.random(organ)
    x, y, z = (np.array(centre) + np.clip(random.normal(0, spread_mm, 3), -9, 9)).tolist()
    return (x, y, z), float(np.clip(random.normal(1, 0.09), 0.8, 1.2))


def _paint_liver(canvas: Canvas, anatomy: Anatomy, surfaces: Surfaces) -> None:
    """Under the right dome, against the wall; its lower face rises from right to left."""
    box = box_between(canvas, (-75, -85, -190), (130, 120, 30))
    if is_empty(canvas, box):
        return
    random = anatomy.random("liver")
    size = float(np.clip(random.normal(1, 0.08), 0.85, 1.15))
    x, y, z = look(canvas, box)
    body = blob((x, y, z), (66, 8, -66), (82 * size, 94, 96 * size), anatomy.form("liver"))
    lobe = blob((x, y, z), (-2, 56, -42), (66 * size, 46, 46 * size), anatomy.form("left lobe"))
    distance = np.minimum(body, lobe)
    rise = np.float32(random.uniform(0.42, 0.62))
    floor = np.float32(-150 * size) + rise * (np.float32(105) - x) + np.float32(0.12) * (y - 10)
    distance = np.maximum(distance, (floor - z) * np.float32(0.85))
    hollow = blob((x, y, z), (16, 2, -98), (27, 26, 36))
    distance = np.maximum(distance, -hollow)
    distance = np.maximum(distance, room(surfaces, box))
    paint(canvas, box, distance, anatomy.hu["liver"], LIVER)
    _paint_liver_vessels(canvas, anatomy)


def _paint_liver_vessels(canvas: Canvas, anatomy: Anatomy) -> None:
    """Hepatic veins to the IVC and the portal branches, only where there is liver."""
    veins: tuple[Path, ...] = (
        ((26, 14, -16), (55, -8, -45), (92, -25, -80)),
        ((26, 16, -14), (48, 35, -45), (75, 60, -85)),
        ((24, 20, -14), (5, 40, -32), (-20, 60, -45)),
    )
    portal: tuple[Path, ...] = (
        ((36, 26, -76), (62, 6, -80), (98, 0, -95)),
        ((62, 6, -80), (80, -25, -65), (95, -35, -45)),
        ((36, 26, -76), (5, 45, -55), (-25, 62, -55)),
    )
    for paths, name in ((veins, "vena_cava"), (portal, "portal")):
        for path in paths:
            part = path_box(canvas, path, 8)
            if is_empty(canvas, part):
                continue
            distance = tube(look(canvas, part), path, (5.0, 3.6, 1.6))
            alpha = coverage(canvas, distance) * (canvas.label[part] == LIVER)
            blend(canvas, part, alpha, anatomy.hu[name])


def _paint_spleen(canvas: Canvas, anatomy: Anatomy, surfaces: Surfaces) -> None:
    """A curved body against the left wall behind the stomach."""
    centre, size = jittered(anatomy, "spleen", (-92, -24, -62))
    size = size * 1.08
    box = box_between(canvas, (-150, -100, -150), (-25, 70, 10))
    if is_empty(canvas, box):
        return
    points = look(canvas, box)
    turn = facing((-0.25, 0.55, -0.45), (-0.5, 0, 1))
    radii = (60 * size, 34 * size, 46 * size)
    distance = blob(points, centre, radii, anatomy.form("spleen"), turn)
    hilum = blob(points, (centre[0] + 40, centre[1] + 22, centre[2] - 4), (32, 30, 42))
    distance = np.maximum(np.maximum(distance, -hilum), room(surfaces, box))
    paint(canvas, box, distance, anatomy.hu["spleen"], SPLEEN)


def _paint_kidneys(canvas: Canvas, anatomy: Anatomy, surfaces: Surfaces) -> None:
    """Perirenal fat, cortex, medulla, and a sinus of fat opening towards the midline."""
    hu = anatomy.hu
    for side, label, z in ((1.0, RIGHT_KIDNEY, -138.0), (-1.0, LEFT_KIDNEY, -124.0)):
        name = f"kidney {label}"
        place, size = jittered(anatomy, name, (side * 66, 0, z), 3.0)
        centre = (place[0], value(anatomy.figure.spine_y, place[2]) - 8, place[2])
        box = box_between(canvas, [c - 82 for c in centre], [c + 82 for c in centre])
        if is_empty(canvas, box):
            continue
        points = look(canvas, box)
        turn = facing((side * 0.9, 0.45, -0.1), (-side * 0.22, -0.15, 1))
        form, inside = anatomy.form(name), room(surfaces, box, 2.0)
        outer = blob(points, centre, (30 * size, 26 * size, 55 * size), form, turn)
        hilum = [centre[0] - side * 22, centre[1] + 9, centre[2] - 2]
        sinus = blob(points, hilum, (19 * size, 11 * size, 21 * size), None, turn)
        outer = np.maximum(outer, inside)
        paint(canvas, box, np.maximum(outer - 4, inside), hu["visceral_fat"], 0)
        paint(canvas, box, outer, hu["kidney_cortex"], label)
        medulla = blob(points, centre, (19 * size, 16 * size, 42 * size), form, turn)
        pyramids = medulla + 2.5 * np.sin(points[2] * np.float32(0.42))
        paint(canvas, box, np.maximum(pyramids, outer + 5), hu["kidney_medulla"])
        paint(canvas, box, np.maximum(sinus, outer - 3), hu["visceral_fat"], 0)
        pelvis = blob(points, hilum, (9 * size, 5 * size, 12 * size), None, turn)
        paint(canvas, box, np.maximum(pelvis, outer), hu["fluid"])


def _paint_stomach(canvas: Canvas, anatomy: Anatomy, surfaces: Surfaces) -> None:
    """Fundus under the left dome, body, antrum; the patient lies on the back: gas in front."""
    random = anatomy.random("stomach")
    full = float(random.uniform(0.78, 1.15))
    shift = random.normal(0, 4, 3)
    spots = (
        (-60, 6, -42),
        (-60, 38, -66),
        (-48, 66, -96),
        (-22, 76, -118),
        (8, 70, -122),
        (26, 52, -114),
    )
    path = [(np.array(p) + shift).tolist() for p in spots]
    radii = [full * r for r in (40, 33, 27, 21, 15, 10)]
    box = path_box(canvas, path, 40)
    if is_empty(canvas, box):
        return
    points = look(canvas, box)
    distance = tube(points, path, radii, 22.0)
    distance = np.maximum(distance, room(surfaces, box))
    wall = np.float32(random.uniform(3.5, 6))
    content = anatomy.hu["chyme"] + float(random.uniform(-20, 40))
    paint(canvas, box, distance, anatomy.hu["gut_wall"], STOMACH)
    paint(canvas, box, distance + wall, content)
    level = float(random.uniform(42, 84))
    paint(
        canvas, box, np.maximum(distance + wall, np.float32(level) - points[1]), anatomy.hu["gas"]
    )


def _paint_pancreas(canvas: Canvas, anatomy: Anatomy) -> None:
    """Head in the duodenal loop, neck before the portal confluence, tail to the spleen."""
    random = anatomy.random("pancreas")
    shift, size = random.normal(0, 3, 3), float(np.clip(random.normal(1, 0.1), 0.8, 1.25))
    spots = (
        (28, 26, -146),
        (24, 32, -130),
        (8, 42, -117),
        (-22, 40, -108),
        (-50, 20, -100),
        (-72, 4, -92),
    )
    path = [(np.array(p) + shift).tolist() for p in spots]
    radii = [size * r for r in (14, 17, 12.5, 13, 13, 11)]
    box = path_box(canvas, path, 20)
    if is_empty(canvas, box):
        return
    x, y, z = look(canvas, box)
    bend, sway = 1.7 * np.sin(0.31 * y + 0.2 * z), 1.5 * np.sin(0.29 * x)
    lobes = np.sin(np.float32(0.5) * x + bend) * np.sin(np.float32(0.47) * z + sway)
    distance = tube((x, y, z), path, radii, 8.0) + np.float32(1.2) * lobes
    free = ~np.isin(canvas.label[box], (LIVER, SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY))
    distance = np.where(free, distance, np.float32(9))
    lobules = np.float32(anatomy.hu["pancreas"] - 4) - np.float32(26) * lobes
    paint(canvas, box, distance, lobules, PANCREAS)


def _paint_gallbladder(canvas: Canvas, anatomy: Anatomy) -> None:
    """A pear under the liver: a thin wall around bile."""
    centre, size = jittered(anatomy, "gallbladder", (52, 58, -104))
    turn = facing((0.2, 0.8, -0.55))
    box = box_between(canvas, [c - 42 for c in centre], [c + 42 for c in centre])
    if is_empty(canvas, box):
        return
    points = look(canvas, box)
    form = anatomy.form("gallbladder")
    distance = blob(points, centre, (27 * size, 14 * size, 14 * size), form, turn)
    paint(canvas, box, distance, anatomy.hu["gut_wall"], GALLBLADDER)
    paint(canvas, box, distance + np.float32(1.5), anatomy.hu["bile"])


def _paint_portal(canvas: Canvas, anatomy: Anatomy) -> None:
    """Superior mesenteric vein, confluence, portal vein to the liver, splenic vein."""
    size = float(np.clip(anatomy.random("portal").normal(1, 0.1), 0.8, 1.2))
    confluence = (10.0, 32.0, -114.0)
    portal = [(10.0, 40.0, -158.0), confluence, (22.0, 28.0, -96.0), (36.0, 26.0, -76.0)]
    splenic = [confluence, (-20.0, 26.0, -110.0), (-50.0, 6.0, -100.0), (-74.0, -8.0, -80.0)]
    hu = anatomy.hu["portal"]
    stroke(canvas, portal, [size * r for r in (5.5, 7.0, 7.2, 6.8)], hu, PORTAL)
    stroke(canvas, splenic, [size * r for r in (5.2, 4.8, 4.5, 4.2)], hu, PORTAL)
    artery = [(0.0, 8.0, -112.0), (2.0, 34.0, -130.0), (0.0, 42.0, -175.0)]
    stroke(canvas, artery, (4.0, 3.6, 3.0), anatomy.hu["aorta"], 0)


def _paint_adrenals(canvas: Canvas, anatomy: Anatomy) -> None:
    """A body and two limbs each: the right behind the cava, the left beside the aorta."""
    hu = anatomy.hu["adrenal"]
    for side, label, x, z in (
        (1.0, RIGHT_ADRENAL, 36.0, -84.0),
        (-1.0, LEFT_ADRENAL, -38.0, -82.0),
    ):
        (dx, dy, dz), size = jittered(anatomy, f"adrenal {label}", (0, 0, 0), 2.0)
        y = value(anatomy.figure.spine_y, z) + 14 + dy
        body = (x + dx, y + 8, z + dz)
        limbs = ((x + dx + side * 9, y - 10, z - 14 + dz), (x + dx - side * 1, y - 12, z - 12 + dz))
        for limb in limbs:
            middle = tuple(0.5 * (a + b) for a, b in zip(body, limb, strict=True))
            for up in (-5.0, 0.0, 5.0):
                path = [(p[0], p[1], p[2] + up) for p in (body, middle, limb)]
                stroke(canvas, path, [size * r for r in (4.2, 4.0, 3.3)], hu, label)

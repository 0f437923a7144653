"""Lungs with fissures, vessels and airways; heart with chambers; the great vessels."""

from collections.abc import Sequence

import numpy as np

from synth_ct.phantom.anatomy import Anatomy
from synth_ct.phantom.canvas import (
    Canvas,
    blend,
    box_between,
    coverage,
    is_empty,
    look,
    paint,
    paint_blob,
    stroke,
)
from synth_ct.phantom.shapes import Field, Points, Vector, blob, facing
from synth_ct.phantom.trees import Nodes, grow
from synth_ct.phantom.trunk import (
    Surfaces,
    at,
    cavity_distance,
    curve,
    height_above_diaphragm,
    value,
)
from synth_ct.phantom.warp import Axis, smooth_noise

OESOPHAGUS, AORTA, VENA_CAVA = 5, 8, 9
CARINA_Z = 66.0
SEPTUM = curve(((240, 60), (152, 40), (135, 33), (100, 27), (70, 24), (40, 20), (-20, 16)))
"""Half-width of the mediastinum between the lungs, apart from the heart."""
HILA = {-1.0: (-40.0, -6.0, 50.0), 1.0: (40.0, -6.0, 46.0)}


# ---- lungs -------------------------------------------------------------------------------------


def mediastinum_distance(anatomy: Anatomy, points: Points) -> Field:
    """Between the lungs: a septum, thin in front, and a column around the spine."""
    x, y, z = points
    front = np.clip((y - np.float32(40)) / 30, 0, 1) * np.clip((np.float32(118) - z) / 30, 0, 1)
    bulge = np.sqrt(np.clip(1 - ((y - np.float32(8)) / 62) ** 2, 0, 1))
    half = at(SEPTUM, z) * (np.float32(0.3) + np.float32(0.7) * bulge)
    half = half * (1 - front) + np.float32(5) * front
    septum = np.abs(x + np.float32(4)) - half
    spine_y = at(anatomy.figure.spine_y, z)
    column = np.hypot(x / 28, (y - spine_y + np.float32(12)) / 30) * 28 - np.float32(28)
    distance: Field = np.minimum(septum, column)
    return distance


def lung_distance(anatomy: Anatomy, points: Points, cavity: Field, above_diaphragm: Field) -> Field:
    """Inside the cavity, above the diaphragm, outside of the mediastinum, below the apex."""
    apex = np.hypot(np.abs(points[0]) - 44, points[1] + 8) * np.float32(0.25) + points[2]
    distance = np.maximum(cavity + np.float32(2), np.float32(2) - above_diaphragm)
    distance = np.maximum(distance, -mediastinum_distance(anatomy, points))
    lungs: Field = np.maximum(distance, apex - np.float32(157))
    return lungs


def paint_lungs(canvas: Canvas, anatomy: Anatomy, surfaces: Surfaces) -> Field:
    """Parenchyma, denser towards the back, with fissures; returns the distance to the lungs."""
    x, y, z = canvas.points
    box = (slice(None), slice(None), slice(None))
    distance = lung_distance(anatomy, canvas.points, surfaces.cavity, surfaces.above_diaphragm)
    random = anatomy.random("lungs")
    slope = float(random.uniform(0.15, 0.45))
    paint(canvas, box, distance, np.float32(anatomy.hu["lung"]) - np.float32(slope) * y)
    lean = float(random.normal(0.75, 0.08))
    oblique = (z - np.float32(36) + np.float32(lean) * (y - 8)) / np.float32(np.hypot(1, lean))
    horizontal = np.abs(z - np.float32(40) + np.float32(0.1) * y)
    horizontal = np.where((x > 0) & (oblique > 0), horizontal, np.float32(9))
    fissure = np.minimum(np.abs(oblique), horizontal) - np.float32(0.35)
    share = np.float32(0.28 * min(1.0, 2.5 / canvas.voxel_mm))
    alpha = coverage(canvas, fissure) * coverage(canvas, distance + 1) * share
    blend(canvas, box, alpha, 0.0)
    return distance


def paint_opacities(canvas: Canvas, anatomy: Anatomy, lung: Field, axes: Sequence[Axis]) -> None:
    """Pneumonia-like consolidation: patches of ground glass with a dense, ragged middle."""
    random = anatomy.random("opacities")
    ragged = smooth_noise(random, axes, 11.0)
    ragged += smooth_noise(random, axes, 26.0)
    for centre in draw_targets(anatomy, random, int(random.integers(2, 6)), None):
        radii = random.uniform(16, 42, 3).tolist()
        reach = [1.6 * r for r in radii]
        low, high = ([c + s * r for c, r in zip(centre, reach, strict=True)] for s in (-1.0, 1.0))
        box = box_between(canvas, low, high)
        if is_empty(canvas, box):
            continue
        patch = blob(look(canvas, box), centre.tolist(), radii) + 7 * ragged[box]
        density = np.clip(np.float32(0.5) - patch / 16, 0, 1) ** np.float32(1.3)
        alpha = density * coverage(canvas, lung[box]) * np.float32(random.uniform(0.6, 0.97))
        blend(canvas, box, alpha, anatomy.hu["consolidation"])


def draw_targets(
    anatomy: Anatomy, random: np.random.Generator, count: int, side: float | None
) -> Nodes:
    """Points spread at random inside the lungs, the same for every grid."""
    tries = random.uniform((-125, -95, -110), (125, 115, 155), (count * 14 + 60, 3))
    tries = tries.astype(np.float32)
    if side is not None:
        tries[:, 0] = side * np.abs(tries[:, 0])
    x, y, z = (tries[:, k].reshape(-1, 1, 1) for k in range(3))
    cavity = cavity_distance(anatomy.figure, (x, y, z))
    above = height_above_diaphragm(anatomy.figure, (x, y, z))
    inside = lung_distance(anatomy, (x, y, z), cavity, above)
    heart = blob((x, y, z), (-18.0, 38.0, 16.0), (60, 52, 52))
    kept = tries[(inside.ravel() < -5) & (heart.ravel() > 3)]
    return kept[:count].astype(np.float64)


def paint_trees(canvas: Canvas, anatomy: Anatomy) -> None:
    """Arteries and veins of both lungs, then the airways beside them."""
    blood = anatomy.hu["right_blood"]
    for side, hilum in HILA.items():
        for kind, drop in (("artery", 4.0), ("vein", -10.0)):
            random = anatomy.random(f"{kind}{side:+.0f}")
            root = np.array([[side * 14.0, 2.0, hilum[2] + drop], [*hilum[:2], hilum[2] + drop]])
            tree = grow(root, draw_targets(anatomy, random, 200, side), 8.0)
            for node in range(2, len(tree.nodes)):
                start, stop = tree.nodes[tree.parents[node]], tree.nodes[node]
                radii = [float(tree.radii[tree.parents[node]]), float(tree.radii[node])]
                radii[0] = min(radii[0], radii[1] * 1.3)
                stroke(canvas, [start.tolist(), stop.tolist()], radii, blood)
    _paint_airways(canvas, anatomy)


def _paint_airways(canvas: Canvas, anatomy: Anatomy) -> None:
    """Trachea, carina, main bronchi, and a tree of 28 bronchi a lung: wall, then lumen."""
    top = value(anatomy.figure.spine_y, 200) + 22
    carina = (1.0, value(anatomy.figure.spine_y, CARINA_Z) + 40, CARINA_Z)
    windpipe = [(0.0, top, 240.0), (0.0, carina[1] + 14, 125.0), carina]
    paths: list[tuple[list[Vector], list[float]]] = [(list(windpipe), [8.5, 8.5, 8.0])]
    for side, hilum in HILA.items():
        paths.append(([carina, (hilum[0], hilum[1], hilum[2] + 4)], [6.6, 5.8]))
        targets = draw_targets(anatomy, anatomy.random(f"airway{side:+.0f}"), 28, side)
        root = np.array([carina, (hilum[0], hilum[1], hilum[2] + 4)])
        centre = root[-1]
        tree = grow(root, centre + 0.72 * (targets - centre), 5.6)
        for node in range(2, len(tree.nodes)):
            parent = tree.parents[node]
            ends = [tree.nodes[parent].tolist(), tree.nodes[node].tolist()]
            paths.append((ends, [float(tree.radii[parent]), float(tree.radii[node])]))
    for extra, hu in ((1.1, anatomy.hu["gut_wall"]), (0.0, anatomy.hu["airway"])):
        for path, radii in paths:
            stroke(canvas, path, [r + extra * min(1.0, r / 4) for r in radii], hu)


# ---- heart and great vessels -------------------------------------------------------------------

AXIS = (-0.72, 0.48, -0.5)
"""From the heart's base to its apex: left, forward, down."""


def paint_heart(canvas: Canvas, anatomy: Anatomy) -> None:
    """Pericardial fat, myocardium, four chambers."""
    random = anatomy.random("heart")
    size = float(np.clip(random.normal(1, 0.06), 0.88, 1.14))
    rests_on = anatomy.figure.domes[2][2] + 16
    shift = random.normal((0, 0, rests_on), 2.5)
    hu, turn = anatomy.hu, facing(AXIS)
    left, right = hu["left_blood"], hu["right_blood"]
    parts: tuple[tuple[Vector, Vector, float, bool], ...] = (
        ((-26, 40, 17), (64, 46, 46), hu["visceral_fat"], True),
        ((23, 29, 18), (27, 33, 38), hu["visceral_fat"], False),
        ((-30, 41, 15), (60, 42, 41), hu["myocardium"], True),
        ((-3, 5, 38), (38, 24, 26), hu["myocardium"], False),
        ((22, 29, 20), (23, 29, 34), hu["myocardium"], False),
        ((-3, 5, 38), (35, 21, 23), left, False),
        ((22, 29, 20), (20, 26, 31), right, False),
        ((-18, 57, 18), (47, 26, 27), right, True),
        ((-42, 35, 8), (45, 30, 30), hu["myocardium"], True),
        ((-40, 34, 9), (34, 19, 20), left, True),
    )
    form = anatomy.form("heart")
    for centre, radii, value_hu, turned in parts:
        place = [c + s for c, s in zip(centre, shift.tolist(), strict=True)]
        sizes = [size * r for r in radii]
        paint_blob(canvas, place, sizes, value_hu, (form, turn if turned else None))


def paint_great_vessels(canvas: Canvas, anatomy: Anatomy) -> None:
    """Aorta and its arch, pulmonary artery, venae cavae, the arch's branches, the oesophagus."""
    spine = anatomy.figure.spine_y
    random = anatomy.random("vessels")
    width = float(np.clip(random.normal(1, 0.09), 0.8, 1.25))
    hu = anatomy.hu
    _paint_gullet(canvas, anatomy)
    descending = [
        (-24.0 + 0.09 * (70 - z), value(spine, z) + 20, z) for z in (70.0, 40.0, 5.0, -30.0)
    ]
    descending += [
        (-12.0, value(spine, z) + 28, z) for z in (-70.0, -100.0, -140.0, -180.0, -206.0)
    ]
    arch = [(6, 30, 40), (16, 36, 66), (14, 28, 90), (0, 10, 102), (-16, -10, 100), (-25, -22, 86)]
    aorta = [(float(a), float(b), float(c)) for a, b, c in arch] + descending
    radii = [
        width * r for r in (14.5, 15, 14.5, 13.5, 13, 12.5, 12, 12, 11.5, 11, 10, 9.5, 9, 8.5, 8)
    ]
    for side in (-1.0, 1.0):
        iliac = [
            aorta[-1],
            (side * 28.0, value(spine, -250) + 26, -250.0),
            (side * 60.0, 0.0, -300.0),
        ]
        stroke(canvas, iliac, (7.0, 5.5, 5.0), hu["aorta"], 0)
        stroke(canvas, [(p[0] + 10, p[1] - 8, p[2]) for p in iliac], 6.5, hu["vena_cava"], 0)
    pulmonary = [(-16, 64, 44), (-20, 46, 62), (-16, 26, 66)]
    stroke(canvas, pulmonary, (14, 13.5, 13), hu["right_blood"], 0)
    stroke(canvas, [(-16, 26, 66), (14, 12, 58), (42, 2, 54)], (11, 10, 8.5), hu["right_blood"], 0)
    stroke(canvas, [(-16, 26, 66), (-32, 4, 64), (-44, -6, 58)], (11, 9.5, 8), hu["right_blood"], 0)
    caval = [(22, 30, 40), (25, 24, 70), (26, 26, 112)]
    stroke(canvas, caval, (10.5, 9.5, 9), hu["right_blood"], 0)
    stroke(
        canvas, [(26, 26, 112), (36, 22, 150), (36, 12, 240)], (7.5, 6.5, 6), hu["right_blood"], 0
    )
    stroke(
        canvas, [(26, 26, 110), (-12, 42, 120), (-34, 24, 150)], (7.5, 7, 6), hu["right_blood"], 0
    )
    for start, stop in (((8, 18, 104), (22, 16, 150)), ((-4, 8, 106), (-22, 8, 150)),
                        ((-14, -6, 104), (-34, -6, 150))):  # fmt: skip
        stroke(canvas, [start, stop, (stop[0], stop[1], 240)], (5, 4, 3.5), hu["aorta"], 0)
    stroke(canvas, aorta, radii, hu["aorta"], AORTA)
    cava = [(22.0, value(spine, z) + d, z) for z, d in ((-212.0, 24), (-150.0, 26), (-110.0, 28))]
    cava += [(24.0, 14.0, -60.0), (22.0, 20.0, -20.0), (22.0, 26.0, 4.0)]
    stroke(canvas, cava, [width * r for r in (9, 9.5, 10, 11, 12, 12)], hu["vena_cava"], VENA_CAVA)


def _paint_gullet(canvas: Canvas, anatomy: Anatomy) -> None:
    """The oesophagus behind trachea and heart, through the diaphragm to the cardia."""
    spine = anatomy.figure.spine_y
    beside = ((240.0, 14), (150.0, 16), (100.0, 22), (60.0, 24), (20.0, 28), (-20.0, 30))
    path = [(-4.0, value(spine, z) + gap, z) for z, gap in beside]
    path = [*path, (-16.0, 2.0, -44.0), (-28.0, 10.0, -58.0)]
    stroke(canvas, path, 7.0, anatomy.hu["oesophagus"], OESOPHAGUS)
    lumen = [(x + 1, y + 1, z) for x, y, z in path[:6]]
    stroke(canvas, lumen, 1.6, anatomy.hu["gas"])

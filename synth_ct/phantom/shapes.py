"""Implicit functions: the signed distance, in mm, from points to the surface of simple solids.

Negative inside, positive outside. Exact for capsules; elsewhere measured along the ray from the
centre, which is right on the surface and close to it, where partial volume is decided.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Family = Literal["A", "B"]
Field = Float[np.ndarray, "x y z"]
Points = tuple[Field, Field, Field]
"""Where voxels are in the patient frame: right, anterior, superior, in mm."""
Number = float | int
Vector = Sequence[Number]
Millimetres = tuple[Number, Number, Number]
Turn = Float[np.ndarray, "3 3"]

HARMONICS = 9
"""Real spherical harmonics of degree 2 and 3 used to star-shape a solid (two are left out)."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a blob departs from an ellipsoid: squared off (family A) or star-shaped (family B)."""

    exponent: float = 2.0
    harmonics: tuple[float, ...] = ()


def draw_form(random: np.random.Generator, family: Family) -> Form:
    """A random departure from the ellipsoid, in the shape model of a family."""
    if family == "A":
        return Form(exponent=float(random.uniform(2.0, 2.9)))
    return Form(harmonics=tuple(random.normal(0, 0.055, HARMONICS).tolist()))


def star_radius(x: Field, y: Field, z: Field, harmonics: Vector) -> Field:
    """rho(n) = 1 + sum_k c_k Y_k(n), for n the direction of (x, y, z)."""
    length = np.sqrt(x * x + y * y + z * z) + np.float32(1e-6)
    a, b, c = x / length, y / length, z / length
    waves = (
        a * b, b * c, a * c, a * a - b * b, 3 * c * c - 1,
        a * b * c, c * (a * a - b * b), a * (5 * c * c - 1), b * (5 * c * c - 1),
    )  # fmt: skip
    rho = np.ones_like(x)
    for weight, wave in zip(harmonics, waves, strict=True):
        rho += np.float32(weight * 2) * wave
    bounded: Field = np.maximum(rho, np.float32(0.5))
    return bounded


def blob(
    points: Points,
    centre: Vector,
    radii: Vector,
    form: Form | None = None,
    turn: Turn | None = None,
) -> Field:
    """k = (|x/a|^e + |y/b|^e + |z/c|^e)^(1/e) / rho(n);   distance = |p| (1 - 1/k)."""
    form = form or Form()
    x, y, z = (p - np.float32(c) for p, c in zip(points, centre, strict=True))
    if turn is not None:
        x, y, z = turned(x, y, z, turn)
    a, b, c = (q / np.float32(r) for q, r in zip((x, y, z), radii, strict=True))
    if form.exponent == 2.0:
        k = np.sqrt(a * a + b * b + c * c)
    else:
        e = np.float32(form.exponent)
        k = (np.abs(a) ** e + np.abs(b) ** e + np.abs(c) ** e) ** (1 / e)
    if form.harmonics:
        k /= star_radius(a, b, c, form.harmonics)
    length = np.sqrt(x * x + y * y + z * z) + np.float32(0.5 * min(radii))
    distance: Field = length * (1 - 1 / (k + np.float32(1e-3)))
    return distance


def turned(x: Field, y: Field, z: Field, turn: Turn) -> Points:
    """p -> R p."""
    r = turn.astype(np.float32)
    return (
        r[0, 0] * x + r[0, 1] * y + r[0, 2] * z,
        r[1, 0] * x + r[1, 1] * y + r[1, 2] * z,
        r[2, 0] * x + r[2, 1] * y + r[2, 2] * z,
    )


def facing(axis: Vector, roll: Vector = (0.0, 0.0, 1.0)) -> Turn:
    """The rotation that takes `axis` to x, and the part of `roll` across it to z."""
    u = np.array(axis, float) / np.linalg.norm(axis)
    w = np.array(roll, float) - np.dot(roll, u) * u
    w = w / np.linalg.norm(w)
    return np.stack([u, np.cross(w, u), w])


def capsule(points: Points, start: Vector, stop: Vector, radii: tuple[Number, Number]) -> Field:
    """|p - a - t (b - a)| - r(t),   t = clip((p - a).(b - a) / |b - a|^2, 0, 1)."""
    a, b = np.array(start, np.float32), np.array(stop, np.float32)
    d = b - a
    x, y, z = (p - c for p, c in zip(points, a, strict=True))
    t = (x * d[0] + y * d[1] + z * d[2]) / max(float(d @ d), 1e-6)
    t = np.clip(t, np.float32(0), np.float32(1))
    x, y, z = x - t * d[0], y - t * d[1], z - t * d[2]
    away = np.sqrt(x * x + y * y + z * z)
    first, last = np.float32(radii[0]), np.float32(radii[1])
    distance: Field = away - (first + t * (last - first))
    return distance


def smooth_min(first: Field, second: Field, reach: float) -> Field:
    """min(a, b) - h^2 / (4 k), h = max(k - |a - b|, 0): a union with a rounded seam of width k."""
    h = np.maximum(np.float32(reach) - np.abs(first - second), np.float32(0))
    joined: Field = np.minimum(first, second) - h * h / np.float32(4 * reach)
    return joined


def ring(x: Field, y: Field, sides: tuple[Field, Field, Field], form: Form = Form()) -> Field:
    """A trunk's outline level by level: half-width a, back and front; distance as in `blob`."""
    width, back, front = sides
    depth = (front - back) / 2
    y = y - (front + back) / 2
    a, b = np.abs(x) / width, y / depth
    e = np.float32(form.exponent)
    k = (a**e + np.abs(b) ** e) ** (1 / e)
    if form.harmonics:
        k = k / ring_radius(x / width, b, form.harmonics)
    distance: Field = np.sqrt(x * x + y * y + np.float32(1)) * (1 - 1 / (k + np.float32(1e-3)))
    return distance


def ring_radius(a: Field, b: Field, harmonics: Vector) -> Field:
    """rho = 1 + c1 cos 3t + c2 cos 4t + c3 cos 5t, t the angle from the front (left = right)."""
    cosine = b / np.sqrt(a * a + b * b + np.float32(1e-6))
    square = cosine * cosine
    third = cosine * (4 * square - 3)
    fourth = 8 * square * (square - 1) + 1
    fifth = cosine * (16 * square * square - 20 * square + 5)
    rho: Field = np.ones_like(cosine)
    for weight, wave in zip(harmonics, (third, fourth, fifth), strict=True):
        rho += np.float32(weight) * wave
    return rho

"""Smooth random fields on a lattice in millimetres: the same patient on every grid.

A cubic B-spline displacement cannot fold while every coefficient stays below about 0.4 lattice
steps (Choi and Lee 2000); ours stay below 0.2.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from synth_ct.phantom.shapes import Field

Axis = Float[np.ndarray, " n"]
Lattice = Float[np.ndarray, "i j k"]

EXTENT_MM = 480.0
"""Lattices cover a cube of this edge around the patient origin."""


def cubic_weights(t: Axis) -> tuple[Axis, Axis, Axis, Axis]:
    """B-spline basis: (1-t)^3/6, (3t^3-6t^2+4)/6, (-3t^3+3t^2+3t+1)/6, t^3/6."""
    return (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )


def linear_weights(t: Axis) -> tuple[Axis, Axis]:
    """Linear basis: 1 - t, t."""
    return 1 - t, t


def spline(lattice: Lattice, axes: Sequence[Axis], step_mm: float, order: int = 3) -> Field:
    """sum_ijk c_ijk B(x/h - i) B(y/h - j) B(z/h - k), one axis after another.

    Sums of a fixed number of products in a fixed order: no BLAS, hence the same bits everywhere.
    """
    values: Field = lattice.astype(np.float32)
    for number, axis in enumerate(axes):
        place = np.clip((axis + EXTENT_MM / 2) / step_mm, 0, lattice.shape[number] - order - 1e-3)
        first = place.astype(int)
        weights = (cubic_weights if order == 3 else linear_weights)(place - first)
        shape = [1, 1, 1]
        shape[number] = len(axis)
        total: Field = np.zeros((1, 1, 1), np.float32)
        for offset, weight in enumerate(weights):
            factor = weight.astype(np.float32).reshape(shape)
            total = total + factor * np.take(values, first + offset, axis=number)
        values = total
    return values


def draw_lattice(random: np.random.Generator, step_mm: float, limit: float) -> Lattice:
    """Coefficients from a normal of half the limit, cut off at the limit."""
    nodes = int(EXTENT_MM / step_mm) + 4
    return np.clip(random.normal(0, limit / 2, (nodes,) * 3), -limit, limit)


def smooth_noise(random: np.random.Generator, axes: Sequence[Axis], step_mm: float) -> Field:
    """Noise of unit spread whose grain is `step_mm` wide, laid in millimetres."""
    nodes = int(EXTENT_MM / step_mm) + 4
    lattice = random.standard_normal((nodes,) * 3, dtype=np.float32).astype(np.float64)
    return spline(lattice, axes, step_mm, order=1) * np.float32(1.8)

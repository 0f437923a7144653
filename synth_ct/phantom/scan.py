"""How the scanner sees a patient: tissue texture, quantum noise, reconstruction kernel."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from synth_ct.phantom.anatomy import Anatomy
from synth_ct.phantom.shapes import Field
from synth_ct.phantom.warp import Axis, smooth_noise

WATER_PER_MM = 0.0195
GRAIN_HU = ((-1000, 0), (-930, 4), (-870, 32), (-700, 45), (-200, 9), (-100, 5), (0, 8), (60, 6),
            (130, 6), (1500, 10))  # fmt: skip
"""Spread of a soft tissue's own texture, by its HU; bone is painted with its own."""


def add_texture(hu: Field, anatomy: Anatomy, axes: Sequence[Axis]) -> Field:
    """Tissue is not uniform. Family A: soft grain; family B: finer, with ridges."""
    random = anatomy.random("texture")
    coarse, fine = (8.0, 4.0) if anatomy.family == "A" else (5.5, 3.0)
    grain = smooth_noise(random, axes, coarse) * np.float32(0.7)
    ripple = smooth_noise(random, axes, fine)
    if anatomy.family == "B":
        ripple = np.float32(1.6) * (np.abs(ripple) - np.float32(0.75))
    grain += np.float32(0.7) * ripple
    knots = np.array(GRAIN_HU, float).T
    table = np.interp(np.arange(-1024, 3072), knots[0], knots[1]).astype(np.float32)
    spread = table[np.clip(hu + 1024, 0, 4095).astype(np.int16)]
    textured: Field = hu + spread * grain
    return textured


def path_noise(hu: Field, step_mm: tuple[float, float, float]) -> Field:
    """sigma^2 ~ mean over two directions of exp(line integral): more through shoulders and centre.

    Rays along x see the shoulders, rays along y the depth; both are scaled so that 25 cm of water
    give 1.
    """
    attenuation = np.clip(hu * np.float32(1e-3) + 1, 0, 2.5) * np.float32(WATER_PER_MM)
    across = attenuation.sum(0, keepdims=True) * np.float32(step_mm[0])
    through = attenuation.sum(1, keepdims=True) * np.float32(step_mm[1])
    reference = np.float32(250 * WATER_PER_MM)
    share = np.float32(0.55)
    rays = np.exp(share * (across - reference)), np.exp(share * (through - reference))
    spread: Field = np.sqrt(np.clip(np.float32(0.5) * (rays[0] + rays[1]), 0.05, 6.0))
    return spread


def draw_noise(anatomy: Anatomy, random: np.random.Generator, like: Field, edge: float) -> Field:
    """Filtered white noise of unit spread: smooth kernel for A, sharper (band-pass) for B.

    A kernel of about 2 mm correlates neighbours at 2.5 mm by half, as measured.
    """
    white = random.standard_normal(like.shape, dtype=np.float32)
    wide = (1.9 if anatomy.family == "A" else 1.5) / edge
    noise = ndimage.gaussian_filter(white, (wide, wide, 1.3 * wide), mode="nearest", truncate=3)
    if anatomy.family == "B":
        low = ndimage.gaussian_filter(noise, 1.5 * wide, mode="nearest", truncate=2)
        noise = noise - np.float32(0.6) * low
    unit: Field = noise / np.float32(max(float(noise.std(dtype=np.float64)), 1e-6))
    return unit


def add_noise(
    hu: Field, anatomy: Anatomy, random: np.random.Generator, step_mm: tuple[float, float, float]
) -> Field:
    """Quantum noise of the patient's dose, filtered by the kernel."""
    edge = sum(step_mm) / 3
    dose = float(anatomy.random("dose").uniform(5, 9.5) * (1.0 if anatomy.family == "A" else 1.35))
    averaged = dose / np.sqrt(1 + (edge / 6) ** 2)
    spread = path_noise(hu, step_mm)
    noise = draw_noise(anatomy, random, hu, edge)
    streaks = ndimage.gaussian_filter1d(noise, 12 / edge, axis=0, mode="nearest", truncate=2)
    streaks *= np.float32(2.0) * np.clip(spread - np.float32(1.2), 0, 2)
    noisy: Field = hu + np.float32(averaged) * (spread * noise + streaks)
    return noisy

"""What each tissue measures in HU: medians over real CT (docs/phantom.md), varied per patient."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

Phase = Literal["native", "arterial", "portal"]
Palette = Mapping[str, float]
PHASES: tuple[Phase, ...] = ("native", "arterial", "portal")

AIR_HU = -1000.0

PLAIN: Palette = {
    "skin": 20.0,
    "fat": -104.0,
    "visceral_fat": -100.0,
    "lung": -850.0,
    "airway": -985.0,
    "gas": -960.0,
    "cartilage": 102.0,
    "cortex": 730.0,
    "rib_cortex": 480.0,
    "trabecula": 138.0,
    "rib_marrow": 110.0,
    "disc": 85.0,
    "canal": 35.0,
    "bile": 8.0,
    "fluid": 15.0,
    "chyme": 30.0,
    "stool": 5.0,
    "consolidation": 25.0,
}
"""Tissues that contrast medium does not change."""

ENHANCED: Mapping[str, tuple[float, float, float]] = {
    "muscle": (45.0, 50.0, 56.0),
    "liver": (55.0, 74.0, 106.0),
    "spleen": (45.0, 150.0, 116.0),
    "kidney_cortex": (32.0, 250.0, 188.0),
    "kidney_medulla": (28.0, 75.0, 160.0),
    "pancreas": (36.0, 92.0, 92.0),
    "adrenal": (22.0, 92.0, 75.0),
    "gut_wall": (40.0, 80.0, 85.0),
    "oesophagus": (34.0, 45.0, 55.0),
    "myocardium": (45.0, 115.0, 110.0),
    "left_blood": (42.0, 345.0, 160.0),
    "right_blood": (42.0, 300.0, 155.0),
    "aorta": (42.0, 360.0, 160.0),
    "vena_cava": (40.0, 80.0, 145.0),
    "portal": (42.0, 150.0, 170.0),
}
"""HU in the native, arterial and portal venous phase."""

SPREAD: Palette = {"fat": 4.0, "visceral_fat": 5.0, "lung": 30.0, "airway": 5.0, "gas": 10.0}
"""Standard deviation between patients, where it is not the usual share."""


def draw_palette(random: np.random.Generator, phase: Phase) -> Palette:
    """One patient's tissues: tissues and the strength of the contrast bolus vary."""
    column = PHASES.index(phase)
    bolus = float(random.uniform(0.8, 1.15))
    medians = dict(PLAIN)
    for name, values in ENHANCED.items():
        medians[name] = values[0] + bolus * (values[column] - values[0])
    return {name: _vary(random, name, hu) for name, hu in medians.items()}


def _vary(random: np.random.Generator, name: str, hu: float) -> float:
    spread = SPREAD.get(name, 3.0 + 0.06 * abs(hu))
    return float(hu + spread * np.clip(random.standard_normal(), -2, 2))

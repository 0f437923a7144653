"""One patient, drawn from a seed: everything that painters have in common, in millimetres."""

from dataclasses import dataclass

import numpy as np

from synth_ct.kit.axes import Millimetres3
from synth_ct.kit.seeds import numpy_random
from synth_ct.phantom.shapes import Family, Form, draw_form
from synth_ct.phantom.tissue import PHASES, Palette, Phase, draw_palette
from synth_ct.phantom.trunk import Figure, draw_figure
from synth_ct.phantom.warp import Lattice, draw_lattice

WARP_STEP_MM = 60.0
WARP_LIMIT_MM = 9.0
WIDEST_MM = 156.0
"""Half the field of view, less a rim of air."""

PHASE_SHARES = {"A": (0.15, 0.25, 0.6), "B": (0.3, 0.35, 0.35)}
"""How often each family is scanned native, arterial, portal venous."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """One patient. Painters draw their own details with `random(topic)`."""

    seed: int
    family: Family
    female: bool
    fat_mm: float
    scale: Millimetres3
    """Patient frame -> millimetres of this patient."""
    figure: Figure
    phase: Phase
    hu: Palette
    warp: tuple[Lattice, Lattice, Lattice]

    def random(self, topic: str) -> np.random.Generator:
        """Random numbers of one topic: another topic's draws do not move them."""
        return numpy_random(self.seed, f"phantom/{self.family}/{topic}")

    def form(self, topic: str) -> Form:
        """The random shape of one blob-like organ."""
        return draw_form(self.random(f"form/{topic}"), self.family)


def draw_anatomy(seed: int, family: Family) -> Anatomy:
    """Draw a patient."""
    random = numpy_random(seed, f"phantom/{family}/patient")
    female = bool(random.random() < 0.5)
    fat_mm = float(np.clip(random.gamma(5.0, 2.4), 4, 26) + (2 if female else 0))
    figure = draw_figure(random, family, fat_mm)
    widest = max(140.0 + 0.5 * fat_mm, float((figure.fascia[0] + 0.8 * figure.fat)[300:1000].max()))
    size = float(np.clip(random.normal(0.95 if female else 1.0, 0.035), 0.86, 1.06))
    across = min(size, WIDEST_MM / (widest + WARP_LIMIT_MM / 2))
    tall = float(np.clip(size * random.normal(1.0, 0.02), 0.88, 1.06))
    phase = PHASES[int(random.choice(3, p=PHASE_SHARES[family]))]
    palette = draw_palette(random, phase)
    lattices = [draw_lattice(random, WARP_STEP_MM, WARP_LIMIT_MM) for _ in range(3)]
    return Anatomy(
        seed=seed,
        family=family,
        female=female,
        fat_mm=fat_mm,
        scale=(across, across * float(random.uniform(0.97, 1.06)), tall),
        figure=figure,
        phase=phase,
        hu=palette,
        warp=(lattices[0], lattices[1], lattices[2]),
    )

"""Framed films of a cohort of radiographs, as networks see them."""

from collections.abc import Sequence

import numpy as np

from synth_ct.cohort import Cohort
from synth_ct.cohort.case import Case
from synth_ct.kit.progress import Tick
from synth_ct.xray.frame import frame


def framed_films(cohort: Cohort, cases: Sequence[Case], size: int, tick: Tick) -> np.ndarray:
    """Read and frame the films of these cases: N, U, V in [-1, 1]."""
    paths = cohort.source_paths()
    films = np.empty((len(cases), size, size), np.float32)
    for n, case in enumerate(cases):
        films[n] = frame(cohort.radiograph(case, paths).pixels_UV, size).film_UV
        tick()
    return films

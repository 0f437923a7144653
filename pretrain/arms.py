"""Where the volumes of an arm come from. Arms differ in this and in nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Arm = Literal[
    "scratch",
    "primitives",
    "synthetic",
    "real",
    "mixed",
    "real_degraded",
    "drr",
    "prior_only",
]
Own = Literal["own"]
"""A corpus that a person names; no run has it."""
CORPORA: Mapping[Arm | Own, tuple[str, ...]] = {
    "scratch": (),
    "primitives": (),
    "synthetic": ("corpus/synthetic",),
    "real": ("corpus/real",),
    "mixed": ("corpus/synthetic", "corpus/real"),
    "real_degraded": ("corpus/real_degraded",),
    "drr": ("corpus/drr",),
    "prior_only": ("corpus/prior_only",),
    "own": ("corpus",),
}
"""The corpora below the root that an arm reads; several take turns, crop by crop."""
MEANING: Mapping[Arm | Own, str] = {
    "scratch": "no pretraining: the untouched initial weights, through the same door",
    "primitives": "random geometric bodies, no data at all: is anatomy needed?",
    "synthetic": "the corpus made from radiographs: the question",
    "real": "CT of the generator's training patients on the same grid: the yardstick",
    "mixed": "half synthetic, half real",
    "real_degraded": "real CT through the autoencoder: what does compression cost?",
    "drr": "generated from DRRs of the generator's own CT: do radiographs add anything?",
    "prior_only": "generated without diffusion: does it add anything?",
    "own": "a corpus that a person brought",
}


def corpora_of(arm: Arm | Own, inputs: Mapping[str, Path]) -> list[Path]:
    """The folders an arm reads, in their order."""
    return [inputs[name] for name in CORPORA[arm]]

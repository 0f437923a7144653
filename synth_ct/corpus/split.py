"""Train, validation and test, by patient. The part of a patient depends on nobody else."""

from synth_ct.cohort import Split
from synth_ct.kit.seeds import seed_for

TRAIN, VAL = 0.8, 0.1
"""Expected shares of the patients; the rest is test."""


def split_of(patient: str, seed: int = 0) -> Split:
    """u(patient, seed) uniform in [0, 1): train below 0.8, val below 0.9, else test.

    A patient keeps their part when others are added or removed, and has one part alone.
    """
    u = seed_for(seed, "corpus split", patient) / 2**63
    if u < TRAIN:
        return "train"
    return "val" if u < TRAIN + VAL else "test"

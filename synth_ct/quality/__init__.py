"""Is a made volume fit to train on? Judged against the volumes its generator was trained on.

`reference_of` measures training pairs once, `judge` holds one made volume against them: a body
with two lungs, tissues at their HU, left at the left, the film it was made from when projected,
and nobody's CT by heart.
"""

from synth_ct.quality.novelty import film_novelty, usual_novelty
from synth_ct.quality.reference import LEAST_PAIRS, QualityReference, reference_of
from synth_ct.quality.verdict import REASONS, Verdict, judge

__all__ = [
    "LEAST_PAIRS",
    "REASONS",
    "QualityReference",
    "Verdict",
    "film_novelty",
    "judge",
    "reference_of",
    "usual_novelty",
]

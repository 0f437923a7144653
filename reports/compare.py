"""The Dice gaps: arms compared on the same patients, as the protocol asks.

`docs/statistics.md` says what is averaged, what is resampled, and why.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["run", "not run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GapRow:
    """arm - baseline, in points of mean organ Dice, paired by patient.

    A contrast that was not run has no numbers: all that may be None is.
    """

    dataset: str
    arch: str
    arm: str
    baseline: str
    headline: bool
    """Among the contrasts whose p are corrected together."""
    status: Status = "not run"
    n_patients: int = 0
    seeds: int = 0
    gap: float | None = None
    lo: float | None = None
    hi: float | None = None
    p: float | None = None
    """Of a sign-flip permutation over patients; two-sided."""
    p_holm: float | None = None
    """Headline contrasts only."""
    tost_p: float | None = None
    """Of the gap lying outside the margin of equivalence."""
    mde: float | None = None
    """The true gap that so many patients and seeds would show with the protocol's power."""
    p_false_claim: float | None = None
    """Probability that the one that is ahead here is not ahead in truth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One arm's mean organ Dice (0-1) over patients, seeds averaged first."""

    dataset: str
    arch: str
    arm: str
    n_patients: int
    seeds: int
    dice: float
    sd: float
    """Over patients."""
    lo: float
    hi: float
    nsd: float
    absent: int
    """Case x organ x seed without the organ in reference and prediction: excluded."""
    false_positives: int
    """Case x organ x seed predicted where the reference has none: Dice 0."""
    weak_baseline: str | None = None
    """Of scratch on real data, if published numbers lie far above: a sentence that says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganCell:
    """One organ of one arm: means over the patients who have it, seeds averaged first."""

    dataset: str
    arch: str
    arm: str
    label: int
    organ: str
    n_patients: int
    """With a score; the rest have no such organ."""
    dice: float | None
    nsd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything that is said about a study."""

    evidence: str
    """plumbing, phantom or real."""
    gaps: tuple[GapRow, ...]
    """Headline contrasts first, then every other arm against scratch."""
    cells: tuple[Cell, ...]
    organs: tuple[OrganCell, ...]
    absent: Mapping[str, int] = field(default_factory=dict)
    """dataset -> case x organ x fit that were excluded because the organ is not there."""
    missing: tuple[str, ...] = ()
    """Fits that the protocol asks for and that are not there; their arms are not compared."""

"""The Dice gaps: arms compared on the same patients, as the protocol asks.

`docs/statistics.md` says what is averaged, what is resampled, and why.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal, NamedTuple

import numpy as np

from finetune.results import Fit
from reports.baseline import weak_baseline
from reports.comparable import demand_comparable, in_order, missing_fits, names_of_cell, pairs_of
from reports.protocol import SCRATCH, Contrast, Protocol
from synth_ct.kit.seeds import numpy_random
from synth_ct.kit.statistics import (
    Seeded,
    false_claim_p,
    holm,
    seeded_equivalence_p,
    seeded_interval,
    seeded_minimum_detectable_gap,
    sign_flip_p,
)

Status = Literal["run", "not run"]
Metric = Literal["dice", "nsd"]
POINTS = 100
"""Of Dice, in a Dice of 1."""


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


class Arm(NamedTuple):
    """All fits of one arm on one data set with one network, and its endpoint."""

    dataset: str
    arch: str
    arm: str
    fits: list[Fit]
    patients: tuple[str, ...]
    dice_SN: Seeded
    """Seeds in the protocol's order, patients in that of `patients`."""


Arms = Mapping[str, Arm]
"""Those that are complete, by name: all of one data set and network."""


def comparison(fits: Sequence[Fit], protocol: Protocol) -> Comparison:
    """Compare what was fitted as the protocol asks, or refuse."""
    demand_comparable(fits, protocol)
    found = {pair: _complete_arms(several, protocol) for pair, several in pairs_of(fits)}
    evidence = str(fits[0].config["evidence"])
    arms = [arm for by_name in found.values() for arm in by_name.values()]
    return Comparison(
        evidence=evidence,
        gaps=(*_headline(found, protocol), *_others(found, protocol)),
        cells=tuple(_cell(arm, evidence, protocol) for arm in arms),
        organs=tuple(row for arm in arms for row in _organs(arm)),
        absent=_absent(fits),
        missing=tuple(missing_fits(fits, protocol)),
    )


def endpoint(fits: Sequence[Fit], metric: Metric) -> dict[str, float]:
    """patient -> mean over organs of the mean over the patient's scans.

    Sums are exact, so that the order in which fits finished changes no digit.
    """
    scores: dict[str, dict[int, list[float]]] = {}
    for fit in fits:
        for score in fit.scores:
            organs = scores.setdefault(score.patient, {})
            value = getattr(score, metric)
            if score.outcome != "absent":
                assert value is not None, "only what neither side has is without a score"
                organs.setdefault(score.label, []).append(value)
    if without := sorted(patient for patient, organs in scores.items() if not organs):
        raise ValueError(
            f"no organ of patient {', '.join(without)} was scored in {fits[0].dataset}: there is "
            "nothing to average. Take the patient out of the cohort, before folds are drawn"
        )
    return {p: fmean(fmean(values) for values in scores[p].values()) for p in sorted(scores)}


def _complete_arms(several: Sequence[Fit], protocol: Protocol) -> Arms:
    by_arm: dict[str, list[Fit]] = {}
    for fit in several:
        by_arm.setdefault(fit.arm, []).append(fit)
    first = several[0]
    complete = {
        arm: fits
        for arm, fits in by_arm.items()
        if len(fits) == len(names_of_cell(first.dataset, first.arch, arm, protocol))
    }
    return {arm: _arm(complete[arm], protocol) for arm in protocol.arms if arm in complete}


def _arm(fits: list[Fit], protocol: Protocol) -> Arm:
    rows = [endpoint([f for f in fits if f.seed == seed], "dice") for seed in protocol.seeds]
    patients = tuple(rows[0])
    dice_SN = np.array([[row[patient] for patient in patients] for row in rows])
    first = fits[0]
    return Arm(first.dataset, first.arch, first.arm, fits, patients, dice_SN)


# ---- gaps --------------------------------------------------------------------------------------


def _headline(found: Mapping[tuple[str, str], Arms], protocol: Protocol) -> list[GapRow]:
    """The contrasts of the protocol; their p are corrected together, as one family."""
    rows = [
        _gap_row(pair, contrast, arms, protocol)
        for contrast in protocol.headline
        for pair, arms in found.items()
    ]
    rows = [replace(row, headline=True) for row in rows]
    corrected = iter(holm([row.p for row in rows if row.p is not None]))
    return [row if row.p is None else replace(row, p_holm=next(corrected)) for row in rows]


def _others(found: Mapping[tuple[str, str], Arms], protocol: Protocol) -> list[GapRow]:
    """Every arm against scratch that is no headline."""
    contrasts = [Contrast(arm=a, baseline=SCRATCH) for a in protocol.arms if a != SCRATCH]
    return [
        _gap_row(pair, contrast, arms, protocol)
        for contrast in contrasts
        if contrast not in protocol.headline
        for pair, arms in found.items()
    ]


def _gap_row(pair: tuple[str, str], contrast: Contrast, arms: Arms, protocol: Protocol) -> GapRow:
    dataset, arch = pair
    arm, baseline = contrast.arm, contrast.baseline
    row = GapRow(dataset=dataset, arch=arch, arm=arm, baseline=baseline, headline=False)
    if arm not in arms or baseline not in arms:
        return row
    assert arms[arm].patients == arms[baseline].patients, "every fold was asked the same"
    gaps_SN = POINTS * (arms[arm].dice_SN - arms[baseline].dice_SN)
    return _measured(row, gaps_SN, protocol)


def _measured(row: GapRow, gaps_SN: Seeded, protocol: Protocol) -> GapRow:
    """d = 100 (arm - baseline), one row a seed and one column a patient."""
    first, second = sorted((row.arm, row.baseline))  # either way round, chance is the same
    question = f"{row.dataset}-{row.arch}-{first}-{second}"

    def random(purpose: str) -> np.random.Generator:
        return numpy_random(protocol.seed, purpose, question)

    gaps_N, level, resamples = gaps_SN.mean(0), protocol.level, protocol.resamples
    lo, hi = seeded_interval(gaps_SN, random("gap bootstrap"), level, resamples)
    margin = protocol.margin_points
    return replace(
        row,
        status="run",
        n_patients=gaps_SN.shape[1],
        seeds=gaps_SN.shape[0],
        gap=float(gaps_SN.mean()),
        lo=lo,
        hi=hi,
        p=sign_flip_p(gaps_N, random("gap signs"), resamples),
        tost_p=seeded_equivalence_p(gaps_SN, margin, random("gap bootstrap"), resamples),
        mde=seeded_minimum_detectable_gap(gaps_SN, level, protocol.power),
        p_false_claim=false_claim_p(gaps_N),
    )


# ---- cells -------------------------------------------------------------------------------------


def _cell(arm: Arm, evidence: str, protocol: Protocol) -> Cell:
    random = numpy_random(protocol.seed, "cell bootstrap", f"{arm.dataset}-{arm.arch}-{arm.arm}")
    lo, hi = seeded_interval(arm.dice_SN, random, protocol.level, protocol.resamples)
    outcomes = Counter(score.outcome for fit in arm.fits for score in fit.scores)
    dice = float(arm.dice_SN.mean())
    all_labels = all(fit.config["finetuning"]["labels"] == 1 for fit in arm.fits)
    stands_beside = evidence == "real" and arm.arm == SCRATCH and all_labels
    nsd = [fmean(endpoint(_of_seed(arm, seed), "nsd").values()) for seed in protocol.seeds]
    return Cell(
        dataset=arm.dataset,
        arch=arm.arch,
        arm=arm.arm,
        n_patients=len(arm.patients),
        seeds=len(protocol.seeds),
        dice=dice,
        sd=float(arm.dice_SN.mean(0).std(ddof=1)),
        lo=lo,
        hi=hi,
        nsd=fmean(nsd),
        absent=outcomes["absent"],
        false_positives=outcomes["false_positive"],
        weak_baseline=weak_baseline(arm.dataset, dice) if stands_beside else None,
    )


def _of_seed(arm: Arm, seed: int) -> list[Fit]:
    return [fit for fit in arm.fits if fit.seed == seed]


def _organs(arm: Arm) -> list[OrganCell]:
    names = {score.label: score.organ for fit in arm.fits for score in fit.scores}
    return [_organ(arm, label, names[label]) for label in sorted(names)]


def _organ(arm: Arm, label: int, organ: str) -> OrganCell:
    """Means over patients of the mean over each one's scans and seeds."""
    dice: dict[str, list[float]] = {}
    nsd: dict[str, list[float]] = {}
    for fit in arm.fits:
        for score in fit.scores:
            if score.label == label and score.dice is not None and score.nsd is not None:
                dice.setdefault(score.patient, []).append(score.dice)
                nsd.setdefault(score.patient, []).append(score.nsd)
    return OrganCell(
        dataset=arm.dataset,
        arch=arm.arch,
        arm=arm.arm,
        label=label,
        organ=organ,
        n_patients=len(dice),
        dice=fmean(map(fmean, dice.values())) if dice else None,
        nsd=fmean(map(fmean, nsd.values())) if nsd else None,
    )


def _absent(fits: Sequence[Fit]) -> dict[str, int]:
    counts = {fit.dataset: 0 for fit in in_order(fits)}
    for fit in fits:
        counts[fit.dataset] += sum(score.outcome == "absent" for score in fit.scores)
    return counts

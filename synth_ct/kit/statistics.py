"""What a few patients allow one to say about a mean, or about a difference of two systems.

The unit is the patient: one number each, scans of one patient averaged first. Two systems are
compared by their differences on the same patients. Intervals are bootstrap-t (Efron 1982: each
resample is measured in its own standard errors, so skewed data get skewed intervals), tests flip
signs. All chance comes from the generator passed in.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

Values = Float[ndarray, "n"]
Resampled = Float[ndarray, "b"]

LEVEL = 0.95
FEWEST = 5
"""Two values give a bootstrap three different means: an interval of no width."""
RESAMPLES = 10_000
EXACT_UP_TO = 14
"""With so many patients all 2^14 signs are tried; with more they are drawn."""


class Interval(NamedTuple):
    """Where the mean probably lies."""

    lo: float
    hi: float


class Estimate(NamedTuple):
    """A mean over patients, their spread, and where the mean probably lies.

    None where it is one number of a whole set, or of one patient.
    """

    mean: float
    sd: float | None = None
    lo: float | None = None
    hi: float | None = None


class Gap(NamedTuple):
    """A paired difference: its mean, 95 % interval, and the p of there being none."""

    mean: float
    lo: float
    hi: float
    p: float
    n: int


def by_patient(values: Mapping[str, float], patients: Mapping[str, str]) -> dict[str, float]:
    """case -> value becomes patient -> mean of the patient's cases, in order of the patients."""
    cases: dict[str, list[float]] = {}
    for case, value in values.items():
        cases.setdefault(patients[case], []).append(value)
    return {patient: float(np.mean(cases[patient])) for patient in sorted(cases)}


def mean_interval(
    values_N: Values,
    random: np.random.Generator,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Interval:
    """[m - q(1 - a/2) se, m - q(a/2) se], q the quantiles of the bootstrap's t.

    Fewer than `FEWEST` values have too few resamples to tell; Student's t then stands for them.
    """
    mean, error = _mean_and_error(values_N)
    tail = (1 - level) / 2
    if len(values_N) < FEWEST:
        reach = float(stats.t.ppf(1 - tail, len(values_N) - 1)) * error
        return Interval(mean - reach, mean + reach)
    low, high = np.quantile(_bootstrap_t(values_N, random, resamples), [tail, 1 - tail]).tolist()
    return Interval(mean - high * error, mean - low * error)


def estimate(values_N: Values, random: np.random.Generator) -> Estimate:
    """Mean, standard deviation and 95 % interval."""
    mean = float(values_N.mean())
    if len(values_N) < 2:
        return Estimate(mean)
    return Estimate(mean, float(values_N.std(ddof=1)), *mean_interval(values_N, random))


def paired_gap(
    a_N: Values, b_N: Values, random: np.random.Generator, resamples: int = RESAMPLES
) -> Gap:
    """a - b on the same patients, in the same order."""
    gaps_N = a_N - b_N
    lo, hi = mean_interval(gaps_N, random, resamples=resamples)
    return Gap(float(gaps_N.mean()), lo, hi, sign_flip_p(gaps_N, random, resamples), len(gaps_N))


def sign_flip_p(gaps_N: Values, random: np.random.Generator, draws: int = RESAMPLES) -> float:
    """How often random signs give a mean as far from zero: the two-sided permutation p.

    Drawn signs count the observed ones among them, so p is never zero.
    """
    _demand_patients(gaps_N)
    least = abs(gaps_N.sum()) * (1 - 1e-12)  # sums of the same numbers differ in the last bit
    if len(gaps_N) <= EXACT_UP_TO:
        signs_BN = np.array(list(product((1.0, -1.0), repeat=len(gaps_N))))
        return float((np.abs(signs_BN @ gaps_N) >= least).mean())
    signs_BN = random.choice([1.0, -1.0], (draws, len(gaps_N)))
    extreme = int((np.abs(signs_BN @ gaps_N) >= least).sum())
    return (1 + extreme) / (1 + draws)


def holm(p: Sequence[float]) -> list[float]:
    """p of m tests, corrected stepwise (Holm 1979): max over i <= j of (m + 1 - i) p_(i)."""
    order = np.argsort(p, kind="stable")
    steps = np.array(p)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in corrected]


def equivalence_p(
    gaps_N: Values, margin: float, random: np.random.Generator, resamples: int = RESAMPLES
) -> float:
    """The p of two one-sided tests that |mean gap| >= margin; below 0.05 the gap is negligible.

    The same bootstrap t as `mean_interval`: p < 0.05 where the 90 % interval lies within the
    margins.
    """
    if margin <= 0:
        raise ValueError(f"an equivalence margin of {margin} contains no gap; give one above 0")
    mean, error = _mean_and_error(gaps_N)
    t_B = _bootstrap_t(gaps_N, random, resamples)
    above_floor = int((mean - t_B * error <= -margin).sum())
    below_ceiling = int((mean - t_B * error >= margin).sum())
    return (1 + max(above_floor, below_ceiling)) / (1 + len(t_B))


def minimum_detectable_gap(gaps_N: Values, level: float = LEVEL, power: float = 0.8) -> float:
    """(t_(1 - a/2) + t_power) se: the true gap that so many patients show with this power."""
    _, error = _mean_and_error(gaps_N)
    quantiles = stats.t.ppf([(1 + level) / 2, power], len(gaps_N) - 1)
    return float(quantiles.sum() * error)


def _bootstrap_t(values_N: Values, random: np.random.Generator, resamples: int) -> Resampled:
    """(m* - m) / se* of resamples of the patients; those that drew one value only have no se."""
    drawn_BN = values_N[random.integers(len(values_N), size=(resamples, len(values_N)))]
    error_B = drawn_BN.std(1, ddof=1) / np.sqrt(len(values_N))
    shift_B = drawn_BN.mean(1) - values_N.mean()
    some_B = np.ptp(drawn_BN, axis=1) > 0
    t_B: Resampled = shift_B[some_B] / error_B[some_B]
    return t_B if t_B.size else np.zeros(1)


def _mean_and_error(values_N: Values) -> tuple[float, float]:
    _demand_patients(values_N)
    if np.ptp(values_N) == 0:
        return float(values_N[0]), 0.0  # rounding in the mean would leave a tiny spread
    return float(values_N.mean()), float(values_N.std(ddof=1) / np.sqrt(len(values_N)))


def _demand_patients(values_N: Values) -> None:
    if len(values_N) < 2 or not np.isfinite(values_N).all():
        raise ValueError(
            f"{len(values_N)} patients ({int(np.isfinite(values_N).sum())} with a finite value) "
            "say nothing about spread; evaluate at least two, all of them finite"
        )

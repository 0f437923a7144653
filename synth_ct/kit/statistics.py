"""What a few patients allow one to say about a mean, or about a difference of two systems.

The unit is the patient: one number each, scans of one patient averaged first. Two systems are
compared by their differences on the same patients. Intervals are bootstrap-t (Efron 1982: each
resample is measured in its own standard errors, so skewed data get skewed intervals), tests flip
signs. All chance comes from the generator passed in.

Functions that begin with `seeded_` take one row of values a seed, the patients in its columns.
Every seed meets every patient, so both are resampled, each as a whole: a seed that was lucky was
lucky with all patients, and more patients do not average its luck away.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

Values = Float[ndarray, "n"]
Seeded = Float[ndarray, "s n"]
Resampled = Float[ndarray, "b"]

LEVEL = 0.95
FEWEST = 5
"""Two values give a bootstrap three different means: an interval of no width."""
MOST_WITHOUT_SPREAD = 0.01
"""Of the resamples. Where nearly all patients agree, more drew one value only, and what the others
say is no sample of anything."""
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


class Spread(NamedTuple):
    """A mean over seeds and patients, its standard error, and what that error is worth."""

    mean: float
    error: float
    degrees: float
    """Of freedom, for Student's t."""


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
    return _interval(mean, error, _bootstrap_t(values_N, random, resamples), level)


def seeded_interval(
    values_SN: Seeded,
    random: np.random.Generator,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Interval:
    """`mean_interval` of the mean over seeds and patients; of one seed it is that very interval."""
    if len(values_SN) == 1:
        return mean_interval(values_SN[0], random, level, resamples)
    mean, error, degrees = seeded_spread(values_SN)
    if values_SN.shape[1] < FEWEST:
        reach = float(stats.t.ppf((1 + level) / 2, degrees)) * error
        return Interval(mean - reach, mean + reach)
    return _interval(mean, error, _seeded_bootstrap_t(values_SN, random, resamples), level)


def seeded_spread(values_SN: Seeded) -> Spread:
    """se^2 = var_n(mean_s)/N + [var_s(mean_n)/S - residual/(SN)]+, freedom after Satterthwaite.

    The first term is the patients', with each one's scatter between seeds; the second is what
    seeds do to all patients alike.
    """
    for values_N in values_SN:
        _demand_patients(values_N)
    seeds, patients = values_SN.shape
    if seeds == 1:
        return Spread(*_mean_and_error(values_SN[0]), patients - 1)
    if np.ptp(values_SN) == 0:
        return Spread(float(values_SN[0, 0]), 0.0, patients - 1)
    of_patients, of_seeds = (float(part[0]) for part in _variances(values_SN[None]))
    total = of_patients + of_seeds
    loss = of_patients**2 / (patients - 1) + of_seeds**2 / (seeds - 1)
    return Spread(float(values_SN.mean()), total**0.5, total**2 / loss if loss else patients - 1)


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
    return _outside(margin, mean, error, _bootstrap_t(gaps_N, random, resamples))


def seeded_equivalence_p(
    gaps_SN: Seeded, margin: float, random: np.random.Generator, resamples: int = RESAMPLES
) -> float:
    """`equivalence_p` with the bootstrap t of `seeded_interval`."""
    if len(gaps_SN) == 1:
        return equivalence_p(gaps_SN[0], margin, random, resamples)
    if margin <= 0:
        raise ValueError(f"an equivalence margin of {margin} contains no gap; give one above 0")
    mean, error, _ = seeded_spread(gaps_SN)
    return _outside(margin, mean, error, _seeded_bootstrap_t(gaps_SN, random, resamples))


def minimum_detectable_gap(gaps_N: Values, level: float = LEVEL, power: float = 0.8) -> float:
    """(t_(1 - a/2) + t_power) se: the true gap that so many patients show with this power."""
    return seeded_minimum_detectable_gap(gaps_N[None], level, power)


def seeded_minimum_detectable_gap(
    gaps_SN: Seeded, level: float = LEVEL, power: float = 0.8
) -> float:
    """The same with the error and the degrees of freedom of `seeded_spread`."""
    _, error, degrees = seeded_spread(gaps_SN)
    return float(stats.t.ppf([(1 + level) / 2, power], degrees).sum() * error)


def false_claim_p(gaps_N: Values) -> float:
    """T_(n-1)(-sqrt(n) |mean| / sd): how probably the system ahead here is not ahead in truth.

    Christodoulou et al. 2025; their variance of a difference, sA^2 + sB^2 - 2 sA sB r, is that of
    the paired gaps. At most one half, where both are level.
    """
    mean, error = _mean_and_error(gaps_N)
    if error == 0:
        return 0.0 if mean else 0.5
    return float(stats.t.cdf(-abs(mean) / error, len(gaps_N) - 1))


def _interval(mean: float, error: float, t_B: Resampled, level: float) -> Interval:
    tail = (1 - level) / 2
    low, high = np.quantile(t_B, [tail, 1 - tail]).tolist()
    return Interval(mean - high * error, mean - low * error)


def _outside(margin: float, mean: float, error: float, t_B: Resampled) -> float:
    above_floor = int((mean - t_B * error <= -margin).sum())
    below_ceiling = int((mean - t_B * error >= margin).sum())
    return (1 + max(above_floor, below_ceiling)) / (1 + len(t_B))


def _bootstrap_t(values_N: Values, random: np.random.Generator, resamples: int) -> Resampled:
    """(m* - m) / se* of resamples of the patients; Student's t where too many have no se."""
    drawn_BN = values_N[random.integers(len(values_N), size=(resamples, len(values_N)))]
    error_B = drawn_BN.std(1, ddof=1) / np.sqrt(len(values_N))
    shift_B = drawn_BN.mean(1) - values_N.mean()
    some_B = np.ptp(drawn_BN, axis=1) > 0
    if len(values_N) < FEWEST or some_B.mean() < 1 - MOST_WITHOUT_SPREAD:
        return _student(float(len(values_N) - 1), resamples)
    t_B: Resampled = shift_B[some_B] / error_B[some_B]
    return t_B


def _seeded_bootstrap_t(
    values_SN: Seeded, random: np.random.Generator, resamples: int
) -> Resampled:
    """(m* - m) / se*, whole seeds and whole patients drawn independently of each other."""
    seeds, patients = values_SN.shape
    seeds_BS = random.integers(seeds, size=(resamples, seeds))
    patients_BN = random.integers(patients, size=(resamples, patients))
    drawn_BSN = values_SN[seeds_BS[:, :, None], patients_BN[:, None, :]]
    of_patients_B, of_seeds_B = _variances(drawn_BSN)
    error_B = np.sqrt(of_patients_B + of_seeds_B)
    some_B = np.ptp(drawn_BSN, axis=(1, 2)) > 0
    some_B &= error_B > 0
    if patients < FEWEST or some_B.mean() < 1 - MOST_WITHOUT_SPREAD:
        return _student(float(seeded_spread(values_SN)[2]), resamples)
    shift_B = drawn_BSN.mean((1, 2)) - values_SN.mean()
    t_B: Resampled = shift_B[some_B] / error_B[some_B]
    return t_B


def _student(degrees: float, count: int) -> Resampled:
    """Equally probable values of Student's t."""
    t_B: Resampled = stats.t.ppf((np.arange(count) + 0.5) / count, degrees)
    return t_B


def _variances(values_BSN: Float[ndarray, "b s n"]) -> tuple[Resampled, Resampled]:
    """What patients and what seeds add to the variance of the mean: see `seeded_spread`."""
    _, seeds, patients = values_BSN.shape
    by_patient_BN, by_seed_BS = values_BSN.mean(1), values_BSN.mean(2)
    mean_B11 = values_BSN.mean((1, 2), keepdims=True)
    rest_BSN = values_BSN - by_patient_BN[:, None] - by_seed_BS[..., None] + mean_B11
    residual_B = np.square(rest_BSN).sum((1, 2)) / ((seeds - 1) * (patients - 1))
    of_seeds_B = by_seed_BS.var(1, ddof=1) / seeds - residual_B / (seeds * patients)
    return by_patient_BN.var(1, ddof=1) / patients, np.maximum(of_seeds_B, 0.0)


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

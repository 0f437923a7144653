"""Intervals cover, tests keep their level, corrections are those of the books."""

import numpy as np
import pytest
from scipy import stats

from synth_ct.kit import statistics as s

GAPS = np.array([0.9, 1.4, -0.3, 2.2, 0.6, 1.1, 0.2, -0.8])


def test_scans_of_one_patient_are_averaged_first() -> None:
    rows = s.by_patient({"c": 3.0, "a": 1.0, "b": 2.0}, {"a": "Q", "b": "Q", "c": "P"})
    assert list(rows.items()) == [("P", 3.0), ("Q", 1.5)]


def test_on_normal_data_the_interval_is_students(rng: np.random.Generator) -> None:
    values = rng.normal(5, 2, 60)
    expected = stats.t.interval(0.95, 59, values.mean(), stats.sem(values))
    np.testing.assert_allclose(s.mean_interval(values, rng), expected, atol=0.06)


def test_it_is_near_scipys_corrected_bootstrap_on_skewed_data(rng: np.random.Generator) -> None:
    values = rng.exponential(1, 80)
    other = stats.bootstrap((values,), np.mean, method="BCa", rng=rng).confidence_interval
    np.testing.assert_allclose(s.mean_interval(values, rng), other, atol=0.04)


def test_it_is_the_definition_written_out() -> None:
    drawn = np.random.default_rng(5).integers(8, size=(400, 8))
    mean, error = GAPS.mean(), stats.sem(GAPS)
    t = sorted((GAPS[row].mean() - mean) / stats.sem(GAPS[row]) for row in drawn)
    low, high = np.quantile(t, [0.05, 0.95])
    found = s.mean_interval(GAPS, np.random.default_rng(5), level=0.9, resamples=400)
    assert found == pytest.approx((mean - high * error, mean - low * error))


@pytest.mark.parametrize("patients", [10, 30])
def test_skewed_data_are_covered_about_as_often_as_promised(
    patients: int, rng: np.random.Generator
) -> None:
    hits = 0
    for _ in range(400):
        lo, hi = s.mean_interval(rng.exponential(1, patients), rng, resamples=400)
        hits += lo <= 1 <= hi
    assert 0.91 <= hits / 400 <= 0.99


def test_the_same_generator_gives_the_same_gap() -> None:
    first, second = (s.paired_gap(GAPS + 1, np.ones(8), np.random.default_rng(3)) for _ in range(2))
    assert first == second
    assert first.mean == pytest.approx(GAPS.mean())
    assert first.lo < first.mean < first.hi
    assert first.n == 8


def test_equal_gaps_have_an_interval_of_no_width(rng: np.random.Generator) -> None:
    assert s.mean_interval(np.full(5, 0.1), rng) == (0.1, 0.1)


def test_one_patient_has_a_mean_and_no_spread(rng: np.random.Generator) -> None:
    assert s.estimate(np.array([2.5]), rng) == (2.5, None, None, None)
    several = s.estimate(GAPS, np.random.default_rng(1))
    assert several[:2] == pytest.approx((GAPS.mean(), GAPS.std(ddof=1)))
    assert several[2:] == s.mean_interval(GAPS, np.random.default_rng(1))


def test_few_patients_get_the_exact_p() -> None:
    expected = stats.permutation_test(
        (GAPS,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert s.sign_flip_p(GAPS, np.random.default_rng(0)) == pytest.approx(expected)
    assert s.sign_flip_p(np.ones(5), np.random.default_rng(0)) == pytest.approx(2 / 2**5)


def test_many_patients_get_nearly_the_exact_p(rng: np.random.Generator) -> None:
    gaps = rng.normal(0.5, 1, 16)
    signs = 1.0 - 2 * (np.arange(2**16)[:, None] >> np.arange(16) & 1)
    expected = (np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-9).mean()
    assert s.sign_flip_p(gaps, rng) == pytest.approx(expected, abs=0.01)
    assert s.sign_flip_p(np.full(40, 1.0), rng, draws=99) == 0.01, "never zero"


def test_without_an_effect_one_in_twenty_is_significant(rng: np.random.Generator) -> None:
    p = np.array(
        [s.sign_flip_p(rng.exponential(1, 8) * rng.choice([-1, 1], 8), rng) for _ in range(400)]
    )
    assert 0.02 <= (p <= 0.05).mean() <= 0.08


def test_holm_by_hand() -> None:
    assert s.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert s.holm([0.6, 0.5]) == [1.0, 1.0]
    assert s.holm([]) == []


def test_equivalence_means_the_90_percent_interval_lies_within_the_margins() -> None:
    lo, hi = s.mean_interval(GAPS, np.random.default_rng(1), level=0.9)
    reach = max(-lo, hi)
    inside = s.equivalence_p(GAPS, reach * 1.01, np.random.default_rng(1))
    outside = s.equivalence_p(GAPS, reach * 0.99, np.random.default_rng(1))
    assert inside < 0.05 < outside
    mirrored = s.equivalence_p(-GAPS, reach * 0.99, np.random.default_rng(1))
    assert mirrored == pytest.approx(outside, rel=0.2)


def test_equivalence_on_normal_data_is_the_t_test(rng: np.random.Generator) -> None:
    gaps = rng.normal(0.1, 1, 60)
    one_sided = [
        stats.ttest_1samp(gaps, -0.4, alternative="greater").pvalue,
        stats.ttest_1samp(gaps, 0.4, alternative="less").pvalue,
    ]
    assert s.equivalence_p(gaps, 0.4, rng) == pytest.approx(max(one_sided), abs=0.01)


def test_a_margin_of_zero_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="above 0"):
        s.equivalence_p(GAPS, 0.0, rng)


def test_a_gap_of_the_minimum_is_found_four_times_in_five() -> None:
    least = s.minimum_detectable_gap(GAPS)
    degrees = len(GAPS) - 1
    noncentral = stats.nct(degrees, least / stats.sem(GAPS))
    assert noncentral.sf(stats.t.ppf(0.975, degrees)) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("values", [[1.0], [], [1.0, np.nan], [1.0, np.inf]])
def test_one_patient_or_an_infinite_one_is_refused(
    values: list[float], rng: np.random.Generator
) -> None:
    for question in (s.mean_interval, s.sign_flip_p):
        with pytest.raises(ValueError, match="at least two"):
            question(np.array(values), rng)


def test_two_patients_give_an_interval_wide_enough_to_mean_it(rng: np.random.Generator) -> None:
    low, high = s.mean_interval(np.array([20.0, 24.0]), rng)
    assert (low, high) == pytest.approx((22 - 12.706 * 2, 22 + 12.706 * 2), abs=0.01)


# ---- what thirty patients allow: simulated -----------------------------------------------------


def test_thirty_patients_without_an_effect(rng: np.random.Generator) -> None:
    """Two thousand studies: the interval covers zero as promised, the test keeps its level."""
    hits = found = 0
    for _ in range(2000):
        gaps = rng.normal(size=30)
        lo, hi = s.mean_interval(gaps, rng, resamples=500)
        hits += lo <= 0 <= hi
        found += s.sign_flip_p(gaps, rng, draws=500) <= 0.05
    assert 0.93 <= hits / 2000 <= 0.97
    assert found / 2000 <= 0.06


def test_thirty_patients_with_just_the_gap_that_they_can_show(rng: np.random.Generator) -> None:
    drawn = rng.normal(size=30)
    least = s.minimum_detectable_gap((drawn - drawn.mean()) / drawn.std(ddof=1))
    assert least == pytest.approx(0.53, abs=0.005)
    power = np.mean(
        [s.sign_flip_p(rng.normal(least, 1, 30), rng, 500) <= 0.05 for _ in range(2000)]
    )
    assert 0.75 <= power <= 0.85


# ---- seeds -------------------------------------------------------------------------------------

SEEDED = np.array([GAPS, GAPS[[1, 0, 2, 3, 4, 6, 5, 7]] + 0.4, GAPS[::-1] - 0.6])


def test_one_seed_is_the_case_without_seeds() -> None:
    one = GAPS[None]
    for seeded, plain in (
        (s.seeded_interval, s.mean_interval),
        (lambda g, r: s.seeded_equivalence_p(g, 1.2, r), lambda g, r: s.equivalence_p(g, 1.2, r)),
    ):
        assert seeded(one, np.random.default_rng(3)) == plain(GAPS, np.random.default_rng(3))
    assert s.seeded_minimum_detectable_gap(one) == s.minimum_detectable_gap(GAPS)
    assert s.seeded_spread(one) == pytest.approx((GAPS.mean(), stats.sem(GAPS), 7))


def test_the_error_has_the_parts_of_a_two_way_table() -> None:
    """Against mean squares: (MS_patients + MS_seeds - MS_rest) / (S N)."""
    seeds, patients = SEEDED.shape
    by_patient, by_seed, mean = SEEDED.mean(0), SEEDED.mean(1), SEEDED.mean()
    rest = [
        SEEDED[i, j] - by_patient[j] - by_seed[i] + mean
        for i in range(seeds)
        for j in range(patients)
    ]
    ms_rest = np.square(rest).sum() / ((seeds - 1) * (patients - 1))
    ms_patients = seeds * by_patient.var(ddof=1)
    ms_seeds = patients * by_seed.var(ddof=1)
    found = s.seeded_spread(SEEDED)
    assert found.error**2 == pytest.approx((ms_patients + ms_seeds - ms_rest) / SEEDED.size)
    of_patients, of_seeds = ms_patients, ms_seeds - ms_rest
    loss = of_patients**2 / (patients - 1) + of_seeds**2 / (seeds - 1)
    assert found.degrees == pytest.approx((of_patients + of_seeds) ** 2 / loss)


def test_the_seeded_interval_is_the_definition_written_out() -> None:
    random = np.random.default_rng(5)
    seeds, patients = random.integers(3, size=(300, 3)), random.integers(8, size=(300, 8))
    drawn = [SEEDED[np.ix_(i, j)] for i, j in zip(seeds, patients, strict=True)]
    mean, error, _ = s.seeded_spread(SEEDED)
    t = [(x.mean() - mean) / s.seeded_spread(x).error for x in drawn]
    low, high = np.quantile(t, [0.05, 0.95])
    found = s.seeded_interval(SEEDED, np.random.default_rng(5), level=0.9, resamples=300)
    assert found == pytest.approx((mean - high * error, mean - low * error))


def test_more_patients_do_not_average_the_luck_of_a_seed_away(rng: np.random.Generator) -> None:
    lucky = np.array([[-1.0], [0.0], [1.0]])
    errors = [s.seeded_spread(lucky + rng.normal(0, 0.1, (3, n))).error for n in (30, 3000)]
    assert errors == pytest.approx([1 / np.sqrt(3)] * 2, rel=0.1)


@pytest.mark.parametrize(("luck", "least"), [(0.0, 0.92), (0.3, 0.89), (1.0, 0.86)])
def test_seeds_that_help_all_patients_alike_are_covered(
    luck: float, least: float, rng: np.random.Generator
) -> None:
    """Patients alone would cover 95, 85 and 48 in 100."""
    hits = 0
    for _ in range(400):
        gaps = rng.normal(size=(1, 30)) + luck * rng.normal(size=(3, 1))
        gaps = gaps + 0.7 * rng.normal(size=(3, 30))
        lo, hi = s.seeded_interval(gaps, rng, resamples=300)
        hits += lo <= 0 <= hi
    assert least <= hits / 400 <= 0.98


def test_seeded_equivalence_is_the_90_percent_interval_within_the_margins() -> None:
    lo, hi = s.seeded_interval(SEEDED, np.random.default_rng(1), level=0.9)
    reach = max(-lo, hi)
    inside = s.seeded_equivalence_p(SEEDED, reach * 1.01, np.random.default_rng(1))
    outside = s.seeded_equivalence_p(SEEDED, reach * 0.99, np.random.default_rng(1))
    assert inside < 0.05 < outside
    with pytest.raises(ValueError, match="above 0"):
        s.seeded_equivalence_p(SEEDED, 0.0, np.random.default_rng(1))


def test_few_patients_and_equal_gaps_with_seeds(rng: np.random.Generator) -> None:
    mean, error, degrees = s.seeded_spread(SEEDED[:, :3])
    lo, hi = s.seeded_interval(SEEDED[:, :3], rng)
    assert (lo, hi) == pytest.approx(stats.t.interval(0.95, degrees, mean, error))
    assert s.seeded_interval(np.full((3, 6), 0.1), rng) == (0.1, 0.1)
    with pytest.raises(ValueError, match="at least two"):
        s.seeded_spread(np.array([[1.0, 2.0], [np.nan, 1.0]]))


def test_a_false_claim_is_as_probable_as_its_paper_says(rng: np.random.Generator) -> None:
    a, b = rng.normal(0.80, 0.05, 30), rng.normal(0.79, 0.04, 30)
    sa, sb, r = a.std(ddof=1), b.std(ddof=1), np.corrcoef(a, b)[0, 1]
    spread = np.sqrt(sa**2 + sb**2 - 2 * sa * sb * r)
    worse, better = sorted((a.mean(), b.mean()))
    expected = stats.t.cdf(np.sqrt(30) * (worse - better) / spread, 29)
    assert s.false_claim_p(a - b) == pytest.approx(expected)
    assert s.false_claim_p(b - a) == pytest.approx(expected)
    assert s.false_claim_p(np.zeros(5)) == 0.5
    assert s.false_claim_p(np.ones(5)) == 0.0


def test_where_nearly_all_patients_agree_the_interval_is_students() -> None:
    sparse_N = np.array([5.0] + [0.0] * 29)
    lo, hi = s.mean_interval(sparse_N, np.random.default_rng(0))
    reach = stats.t.ppf(0.975, 29) * sparse_N.std(ddof=1) / np.sqrt(30)
    np.testing.assert_allclose((lo, hi), (1 / 6 - reach, 1 / 6 + reach), rtol=1e-3)
    several_SN = np.stack([sparse_N, sparse_N])
    np.testing.assert_allclose(
        s.seeded_interval(several_SN, np.random.default_rng(0)), (lo, hi), rtol=1e-2
    )


def test_two_patients_far_apart_show_no_equivalence() -> None:
    apart_N = np.array([-50.0, 50.5])
    assert s.equivalence_p(apart_N, 1.0, np.random.default_rng(0)) > 0.4

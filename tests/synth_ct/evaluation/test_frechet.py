"""FID and KID against their definitions, and against what they must say by hand."""

import numpy as np
import pytest
from scipy import linalg, stats

from synth_ct.evaluation.frechet import frechet_distance, kernel_distance, set_distances


@pytest.fixture
def sets(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    mix = rng.normal(size=(6, 6))
    return rng.normal(size=(60, 6)) @ mix, rng.normal(0.3, 1.2, (50, 6)) @ mix.T


def test_frechet_is_the_textbooks(sets: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = sets
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(cov_a @ cov_b).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_frechet_of_one_feature_is_of_two_bells(rng: np.random.Generator) -> None:
    a, b = rng.normal(0, 1, (40, 1)), rng.normal(3, 2, (30, 1))
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_frechet_with_fewer_images_than_features(rng: np.random.Generator) -> None:
    a = rng.normal(size=(5, 40))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2) == pytest.approx(4 * 40)
    turned, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    b = rng.normal(size=(7, 40))
    assert frechet_distance(a @ turned, b @ turned) == pytest.approx(frechet_distance(a, b))


def kid(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased estimate, image by image."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (x @ y / len(x) + 1) ** 3

    within = [
        np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j])
        for s in (a, b)
    ]
    return sum(within) - 2 * np.mean([k(x, y) for x in a for y in b])


def test_kernel_distance_is_the_unbiased_estimate(sets: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = sets[0][:12], sets[1][:9]
    owners_a, owners_b = list("aaabbbcccddd"), list("abcabcabc")
    found = kernel_distance(a, b, owners_a, owners_b)
    assert found.mean == pytest.approx(kid(a, b))
    left_out = []
    for name in "abcd":
        keep_a, keep_b = (np.array(o) != name for o in (owners_a, owners_b))
        left_out.append(kid(a[keep_a], b[keep_b]))
    error = np.sqrt(3 / 4 * ((left_out - np.mean(left_out)) ** 2).sum())
    assert found.error == pytest.approx(error)
    assert found.hi - found.mean == pytest.approx(stats.t.ppf(0.975, 3) * error)


def test_kernel_distance_of_the_same_source_is_about_zero(rng: np.random.Generator) -> None:
    covered = 0
    for _ in range(60):
        a, b = rng.normal(size=(2, 24, 4)) + rng.normal(size=(24, 4)) / 2
        found = kernel_distance(a, b, [str(n) for n in range(24)], [str(n) for n in range(24)])
        covered += found.lo <= 0 <= found.hi
    assert covered >= 52
    assert kernel_distance(a, a + 3, list("abcd") * 6, list("wxyz") * 6).lo > 0
    assert kernel_distance(a, a, list("abcd") * 6, list("abcd") * 6).mean == pytest.approx(
        kid(a, a)
    )


def test_two_patients_are_refused(sets: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="three or more"):
        kernel_distance(*sets, ["a", "b", "c"] * 20, ["b", "c"] * 25)


def test_a_row_is_told_of_all_slices_with_their_patients(rng: np.random.Generator) -> None:
    made, truth = ([rng.normal(size=(n, 4)) for n in (3, 5, 2, 4)] for _ in range(2))
    owners = list("aaabbbbbaacccc")
    rows = set_distances(made, truth, ["a", "b", "a", "c"])
    kid = kernel_distance(np.concatenate(made), np.concatenate(truth), owners, owners)
    assert rows["kid"] == (kid.mean, None, kid.lo, kid.hi)
    fid = frechet_distance(np.concatenate(made), np.concatenate(truth))
    assert rows["fid"] == (fid, None, None, None), "biased by numbers, so without an interval"

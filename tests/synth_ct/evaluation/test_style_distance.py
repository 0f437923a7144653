import numpy as np
import pytest
from scipy import ndimage

from synth_ct.evaluation.style_distance import (
    gradient_magnitude,
    histogram,
    laplacian,
    lung_density,
    lung_field,
    opacity_contrast,
    shrunk,
    structure_kept,
    style_distance,
    style_features,
)

PIXELS = 32


def clouds(rng: np.random.Generator, count: int, sigma: float = 3.0) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.normal(size=(count, PIXELS, PIXELS)), (0, sigma, sigma))
    return np.clip(0.4 * noise / noise.std(), -1, 1)


def names(word: str, count: int) -> list[str]:
    return [f"{word} {n}" for n in range(count)]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return style_distance(a, b, names("a", len(a)), names("b", len(b))).mean


# ---- distance ----------------------------------------------------------------------------------


def test_two_draws_of_one_style_are_at_no_distance(rng: np.random.Generator) -> None:
    found = style_distance(clouds(rng, 40), clouds(rng, 40), names("a", 40), names("b", 40))
    assert found.lo < 0 < found.hi


def test_distance_rises_with_brightness_and_with_blur(rng: np.random.Generator) -> None:
    reference = clouds(rng, 30)
    brighter = [distance(clouds(rng, 30) + shift, reference) for shift in (0.0, 0.1, 0.3)]
    assert brighter[0] < brighter[1] < brighter[2]
    coarser = [distance(clouds(rng, 30, sigma), reference) for sigma in (3.0, 2.0, 1.0)]
    assert coarser[0] < coarser[1] < coarser[2]


def test_the_place_of_a_pixel_does_not_matter_its_neighbours_do(rng: np.random.Generator) -> None:
    films = clouds(rng, 3)
    turned = style_features(films[:, ::-1, ::-1])
    np.testing.assert_allclose(turned, style_features(films))
    shuffled = rng.permuted(films.reshape(3, -1), axis=1).reshape(films.shape)
    assert np.abs(style_features(shuffled) - style_features(films)).max() > 0.5


def test_a_film_has_affinity_one_with_itself(rng: np.random.Generator) -> None:
    features = style_features(clouds(rng, 4))
    affinity = features @ features.T / features.shape[1]
    np.testing.assert_allclose(np.diag(affinity), 1)
    assert affinity[~np.eye(4, dtype=bool)].max() < 1


def test_a_histogram_counts_every_pixel() -> None:
    film = np.array([[[-3.0, -1.0, 0.0], [0.999, 1.0, 7.0]]])
    shares = histogram(film, -1.0, 1.0)
    assert shares.sum() == pytest.approx(1)
    assert shares[0, [0, 12, 23]] == pytest.approx([2 / 6, 1 / 6, 3 / 6])


def test_maps_are_those_of_scipy(rng: np.random.Generator) -> None:
    film = clouds(rng, 1)
    np.testing.assert_allclose(laplacian(film)[0], ndimage.laplace(film[0], mode="nearest"))
    slope = np.stack([ndimage.correlate1d(film[0], [-0.5, 0, 0.5], axis=a) for a in (0, 1)])
    inner = np.s_[1:-1, 1:-1]
    np.testing.assert_allclose(
        gradient_magnitude(film)[0][inner], np.sqrt((slope**2).sum(0))[inner]
    )


def test_films_that_do_not_shrink_evenly_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        shrunk(np.zeros((1, 30, 32)), 4)


# ---- structure ---------------------------------------------------------------------------------


def test_edges_are_kept_by_any_contrast_and_lost_in_another_film(rng: np.random.Generator) -> None:
    films = clouds(rng, 5)
    np.testing.assert_allclose(structure_kept(films, 0.2 - 0.5 * films), 1)
    assert np.abs(structure_kept(films, np.roll(films, 1, axis=0))).max() < 0.5


# ---- disease -----------------------------------------------------------------------------------


def test_the_lung_field_lies_inside_and_on_both_sides() -> None:
    field = lung_field(PIXELS)
    assert 0.1 < field.mean() < 0.4
    assert not field[:, :4].any()
    assert not field[:, -4:].any()
    assert field[:, : PIXELS // 2].any()
    assert field[:, PIXELS // 2 :].any()
    assert lung_field(128).mean() == pytest.approx(lung_field(20).mean(), abs=0.02)


@pytest.mark.parametrize("family", ["A", "B"])
def test_lungs_are_the_dark_parts_of_a_framed_phantom(family: str) -> None:
    from synth_ct.phantom import make_phantom
    from synth_ct.xray.frame import frame
    from synth_ct.xray.geometry import Geometry
    from synth_ct.xray.project import drr

    phantom = make_phantom("chest", 3, 32, "A" if family == "A" else "B")
    film = frame(drr(phantom.ct, Geometry()), PIXELS).film_UV
    assert film[lung_field(PIXELS)].mean() < film[8:24, 8:24].mean() - 0.1


def test_only_what_is_in_the_lungs_counts(rng: np.random.Generator) -> None:
    films = clouds(rng, 4)
    changed = np.where(lung_field(PIXELS), films, rng.uniform(-1, 1, films.shape))
    np.testing.assert_array_equal(lung_density(films), lung_density(changed))


def test_contrast_is_the_standardised_difference() -> None:
    assert opacity_contrast(np.array([3.0, 5.0]), np.array([0.0, 2.0])) == pytest.approx(3 / 2**0.5)


def test_contrast_does_not_depend_on_grey_scale(rng: np.random.Generator) -> None:
    sick, normal = rng.normal(1, 1, 30), rng.normal(0, 1, 20)
    scaled = opacity_contrast(4 * sick - 2, 4 * normal - 2)
    assert scaled == pytest.approx(opacity_contrast(sick, normal))


def test_films_without_spread_are_refused() -> None:
    with pytest.raises(ValueError, match="no spread"):
        opacity_contrast(np.ones(1), np.ones(1))

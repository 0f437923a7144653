"""SSIM against scikit-image and against its definition."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from synth_ct.evaluation.ssim import ssim, ssim_x2ct


def raised(hu: np.ndarray) -> np.ndarray:
    return np.clip(hu.astype(float), -1000, 1500) + 1000


def test_it_is_scikit_images_in_3d(made_XYZ: np.ndarray, truth_XYZ: np.ndarray) -> None:
    expected = structural_similarity(
        raised(made_XYZ),
        raised(truth_XYZ),
        data_range=2500,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(made_XYZ, truth_XYZ) == pytest.approx(expected, abs=1e-12)


def test_x2ct_is_scikit_images_by_slices(made_XYZ: np.ndarray, truth_XYZ: np.ndarray) -> None:
    scaled = raised(made_XYZ) / 2500, raised(truth_XYZ) / 2500
    axes = [
        structural_similarity(
            *(np.moveaxis(v, axis, -1) for v in scaled), data_range=1.0, channel_axis=-1
        )
        for axis in range(3)
    ]
    assert ssim_x2ct(made_XYZ, truth_XYZ) == pytest.approx(np.mean(axes), abs=1e-12)


def test_the_middle_of_eleven_voxels_by_the_definition(rng: np.random.Generator) -> None:
    a, b = rng.uniform(-1000, 1500, (2, 11, 11, 11))
    tap = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weight = np.einsum("i,j,k->ijk", tap, tap, tap) / tap.sum() ** 3
    x, y = raised(a), raised(b)
    mx, my = (weight * x).sum(), (weight * y).sum()
    vx, vy, cov = (
        (weight * p * q).sum() - (weight * p).sum() * (weight * q).sum()
        for p, q in ((x, x), (y, y), (x, y))
    )
    c1, c2 = 25.0**2, 75.0**2
    top, bottom = (2 * mx * my + c1) * (2 * cov + c2), (mx**2 + my**2 + c1) * (vx + vy + c2)
    assert ssim(a, b) == pytest.approx(top / bottom)


@pytest.mark.parametrize("metric", [ssim, ssim_x2ct])
def test_it_is_one_for_the_same_and_blind_to_order(
    metric: type[ssim], made_XYZ: np.ndarray, truth_XYZ: np.ndarray
) -> None:
    assert metric(truth_XYZ, truth_XYZ) == pytest.approx(1)
    assert metric(made_XYZ, truth_XYZ) == pytest.approx(metric(truth_XYZ, made_XYZ))
    assert metric(made_XYZ, truth_XYZ) < 0.95


def test_a_volume_smaller_than_a_neighbourhood_is_refused() -> None:
    with pytest.raises(ValueError, match="larger volumes"):
        ssim(np.zeros((10, 20, 20)), np.zeros((10, 20, 20)))
    with pytest.raises(ValueError, match="larger volumes"):
        ssim_x2ct(np.zeros((6, 20, 20)), np.zeros((6, 20, 20)))

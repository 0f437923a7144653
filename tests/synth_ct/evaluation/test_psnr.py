"""PSNR against scikit-image, by hand, and by the rules of the X2CT code."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from synth_ct.evaluation.psnr import psnr, psnr_x2ct, psnr_x2ct_slices

TEN = np.full((8, 9, 10), 10.0)


def test_it_is_scikit_images(made_XYZ: np.ndarray, truth_XYZ: np.ndarray) -> None:
    pair = (np.clip(v.astype(float), -1000, 1500) for v in (truth_XYZ, made_XYZ))
    expected = peak_signal_noise_ratio(*pair, data_range=2500)
    assert psnr(made_XYZ, truth_XYZ) == pytest.approx(expected, abs=1e-10)


def test_an_error_of_25_hu_everywhere_is_40_db() -> None:
    assert psnr(TEN + 25, TEN) == pytest.approx(40)


def test_what_lies_outside_the_window_is_not_an_error() -> None:
    assert psnr(np.full((2, 2, 2), 3000.0), np.full((2, 2, 2), 1500.0)) == np.inf


def test_int16_does_not_overflow() -> None:
    low, high = np.full((2, 2, 2), -1024, np.int16), np.full((2, 2, 2), 3071, np.int16)
    assert psnr(low, high) == pytest.approx(0)


def test_x2ct_counts_with_a_peak_of_4095_and_whole_numbers() -> None:
    gift = 20 * np.log10(4095 / 2500)
    assert gift == pytest.approx(4.29, abs=5e-3)
    assert psnr_x2ct(TEN + 25.9, TEN + 0.9) == pytest.approx(40 + gift)
    assert psnr_x2ct(TEN + 0.9, TEN) == np.inf, "below one whole number there is no error"


def test_x2ct_volume_against_five_lines(made_XYZ: np.ndarray, truth_XYZ: np.ndarray) -> None:
    a, b = (
        np.clip(v.astype(float) + 1000, 0, 2500).astype(np.int32) for v in (made_XYZ, truth_XYZ)
    )
    expected = 10 * np.log10(4095**2 / np.mean((a - b) ** 2.0))
    assert psnr_x2ct(made_XYZ, truth_XYZ) == pytest.approx(expected)


def test_x2ct_slices_without_error_are_100_db() -> None:
    made = np.zeros((4, 5, 5))
    made[0] = 4095 / 100 - 0.95  # 40 whole units
    wrong = 20 * np.log10(4095 / 40)
    partly = 10 * np.log10(4095**2 / (40**2 / 4))
    expected = ((wrong + 3 * 100) / 4 + 2 * partly) / 3
    assert psnr_x2ct_slices(made, np.zeros_like(made)) == pytest.approx(expected)


def test_x2ct_slices_against_a_loop(made_XYZ: np.ndarray, truth_XYZ: np.ndarray) -> None:
    a, b = (
        np.clip(v.astype(float) + 1000, 0, 2500).astype(np.int32) for v in (made_XYZ, truth_XYZ)
    )
    axes = []
    for axis in range(3):
        slices = zip(np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0), strict=True)
        axes.append(np.mean([10 * np.log10(4095**2 / np.mean((x - y) ** 2.0)) for x, y in slices]))
    assert psnr_x2ct_slices(made_XYZ, truth_XYZ) == pytest.approx(np.mean(axes))


def test_each_convention_is_another_number(made_XYZ: np.ndarray, truth_XYZ: np.ndarray) -> None:
    strict, volume, slices = (f(made_XYZ, truth_XYZ) for f in (psnr, psnr_x2ct, psnr_x2ct_slices))
    assert volume - strict == pytest.approx(4.29, abs=0.01)
    assert slices > volume

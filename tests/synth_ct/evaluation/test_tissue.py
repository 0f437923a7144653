"""Errors in HU, of everything and of each tissue of the truth."""

import numpy as np
import pytest

from synth_ct.evaluation.tissue import mae, mae_by_tissue

TRUTH = np.array([-1000, -901, -900, -500, -150, -50, 0, 99, 100, 300]).reshape(10, 1, 1)
TRUTH = TRUTH.astype(np.float32)


def test_it_is_the_mean_absolute_difference_in_the_window(
    made_XYZ: np.ndarray, truth_XYZ: np.ndarray
) -> None:
    a, b = (np.clip(v.astype(float), -1000, 1500) for v in (made_XYZ, truth_XYZ))
    assert mae(made_XYZ, truth_XYZ) == pytest.approx(np.abs(a - b).mean())


def test_bands_are_of_the_truth_and_leave_mixtures_out() -> None:
    rows = mae_by_tissue(np.full_like(TRUTH, -700), TRUTH)
    shares = {tissue: row.share for tissue, row in rows.items()}
    assert shares == {"air": 0.2, "lung": 0.1, "fat": 0.1, "soft": 0.3, "bone": 0.1}
    assert rows["lung"].mae_hu == pytest.approx(200)
    assert rows["air"].mae_hu == pytest.approx((300 + 201) / 2)
    assert rows["bone"].mae_hu == pytest.approx(1000)


def test_a_tissue_that_is_not_there_has_no_error() -> None:
    rows = mae_by_tissue(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)))
    assert rows["soft"] == (1.0, 0.0)
    assert rows["bone"] == (0.0, None)

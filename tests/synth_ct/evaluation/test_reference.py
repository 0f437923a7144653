"""Answers that need no model."""

import numpy as np
import pytest

from synth_ct.evaluation.psnr import psnr
from synth_ct.evaluation.reference import mean_volume, nearest_by_film


def test_the_mean_is_of_windowed_hu() -> None:
    volumes = np.array([[[[-1024, 0, 3071]]], [[[-1000, 100, 500]]]], np.int16)
    np.testing.assert_array_equal(mean_volume(iter(volumes)), [[[-1000, 50, 1000]]])
    with pytest.raises(ValueError, match="empty"):
        mean_volume([])


def test_no_other_constant_answer_has_less_error(rng: np.random.Generator) -> None:
    volumes = rng.uniform(-1024, 3071, (5, 4, 4, 4))
    mean = mean_volume(volumes)

    def error(answer: np.ndarray) -> float:
        return sum(10 ** (-psnr(answer, truth) / 10) for truth in volumes)

    assert all(error(mean) < error(mean + shift) for shift in (-5, 5))
    assert error(mean) < error(np.median(volumes, 0))


def test_a_training_film_is_nearest_to_itself(rng: np.random.Generator) -> None:
    films = rng.uniform(-1, 1, (6, 8, 8)).astype(np.float32)
    noise = rng.normal(0, 0.1, (8, 8)).astype(np.float32)
    assert [nearest_by_film(film + noise, films) for film in films] == list(range(6))

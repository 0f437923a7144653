"""Degradation is physics with a seed: pure, monotone where it should be, and complete."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from synth_ct.xray.degrade import (
    Degradation,
    degrade,
    draw_degradation,
    with_marker,
    with_noise,
    with_scatter,
)
from synth_ct.xray.frame import WHOLE

LINES = ndimage.gaussian_filter(np.random.default_rng(0).random((96, 96)), 8).astype(np.float32)
LINES = (LINES - LINES.min()) / np.ptp(LINES) * 5
PLAIN = Degradation(
    window=WHOLE, rows=96, stretch=1.0, rotation_deg=0.0, scatter=0.0, blur_pixels=0.0,
    photons=1e12, detail=0.0, black=0.0, white=100.0, gamma=1.0, margins=(0.0,) * 4,
    marker=None, noise_seed=0,
)  # fmt: skip


def test_the_ideal_exposure_is_the_drr_itself() -> None:
    assert np.allclose(degrade(LINES, PLAIN), LINES / 5, atol=1e-4)


def test_the_same_parameters_give_the_same_film_and_leave_the_lines_alone() -> None:
    how, before = draw_degradation(np.random.default_rng(3)), LINES.copy()
    assert (degrade(LINES, how) == degrade(LINES, how)).all()
    assert (before == LINES).all()


def test_the_same_generator_draws_the_same_parameters() -> None:
    one, other = (draw_degradation(np.random.default_rng(5)) for _ in range(2))
    assert one == other
    assert one != draw_degradation(np.random.default_rng(6))


@pytest.mark.parametrize("seed", range(8))
def test_any_drawn_film_lies_in_0_to_1_and_shows_the_drr(seed: int) -> None:
    film = degrade(LINES, draw_degradation(np.random.default_rng(seed)))
    assert film.dtype == np.float32
    assert 0 <= film.min() < film.max() <= 1
    assert film.std() > 0.05


def test_scatter_lightens_thick_parts_most_and_adds_nothing_behind_air() -> None:
    assert (with_scatter(np.zeros((32, 32), np.float32), 0.5) == 1).all()
    gain = with_scatter(LINES, 0.5) / np.exp(-LINES)
    assert gain[LINES > 4].mean() > 2 * gain[LINES < 1].mean()


def test_noise_has_the_spread_of_counted_quanta() -> None:
    """Var(L) = 1 / (N I)."""
    lines = with_noise(np.full((300, 300), 0.2, np.float32), 10_000.0, 0)
    assert lines.mean() == pytest.approx(-np.log(0.2), abs=1e-3)
    assert lines.std() == pytest.approx(1 / np.sqrt(10_000 * 0.2), rel=0.03)


def test_rotation_turns_about_the_middle() -> None:
    film = degrade(LINES, replace(PLAIN, rotation_deg=90.0))
    assert np.corrcoef(film.ravel(), np.rot90(LINES).ravel())[0, 1] ** 2 > 0.99 or (
        np.corrcoef(film.ravel(), np.rot90(LINES, 3).ravel())[0, 1] > 0.99
    )


def test_stretch_changes_width_only() -> None:
    assert degrade(LINES, replace(PLAIN, stretch=1.25)).shape == (96, 120)


def test_collimation_leaves_the_rim_unexposed() -> None:
    film = degrade(LINES, replace(PLAIN, margins=(0.1, 0.0, 0.0, 0.1)))
    assert (film[:9] == 0).all()
    assert (film[:, -9:] == 0).all()
    assert film[40:60, 40:60].min() > 0


def test_the_marker_is_an_r_at_the_viewers_left() -> None:
    film = with_marker(np.zeros((140, 140), np.float32), (0.1, 0.05, 0.05))
    rows, columns = np.nonzero(film)
    assert columns.max() < 35
    letter = film[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (letter[:, 0] == 1).all()
    assert letter[-1, 1] == 0


def test_a_marker_beyond_the_rim_is_cut_off() -> None:
    assert with_marker(np.zeros((20, 20), np.float32), (0.9, 0.9, 0.9)).max() == 1

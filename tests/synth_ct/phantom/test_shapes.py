import numpy as np
import pytest
from scipy import ndimage

from synth_ct.phantom.shapes import (
    Form,
    blob,
    capsule,
    draw_form,
    facing,
    ring,
    smooth_min,
    star_radius,
)

LINE = np.linspace(-30, 30, 61, dtype=np.float32)
POINTS = tuple(np.meshgrid(LINE, LINE, LINE, indexing="ij"))


def test_a_round_blob_is_a_sphere() -> None:
    distance = blob(POINTS, (2, -3, 1), (12, 12, 12))
    x, y, z = POINTS
    exact = np.sqrt((x - 2) ** 2 + (y + 3) ** 2 + (z - 1) ** 2) - 12
    near = np.abs(exact) < 3
    assert np.abs(distance - exact)[near].max() < 3
    assert ((distance < 0) == (exact < 0)).mean() > 0.999


def test_an_ellipsoid_has_its_volume() -> None:
    inside = blob(POINTS, (0, 0, 0), (20, 12, 8)) < 0
    assert inside.sum() == pytest.approx(4 / 3 * np.pi * 20 * 12 * 8, rel=0.02)


def test_a_higher_exponent_squares_a_blob_off() -> None:
    sizes = [
        (blob(POINTS, (0, 0, 0), (15, 15, 15), Form(exponent=e)) < 0).sum() for e in (2.0, 3.0, 9.0)
    ]
    assert sizes[0] < sizes[1] < sizes[2] < 31**3


@pytest.mark.parametrize("family", ["A", "B"])
def test_a_random_form_stays_one_piece_round_its_centre(family: str) -> None:
    for seed in range(8):
        form = draw_form(np.random.default_rng(seed), "A" if family == "A" else "B")
        inside = blob(POINTS, (0, 0, 0), (14, 14, 14), form) < 0
        assert ndimage.label(inside)[1] == 1
        assert inside[30, 30, 30]


def test_stars_without_harmonics_are_round() -> None:
    assert star_radius(*POINTS, [0.0] * 9) == pytest.approx(1.0)


def test_a_capsule_is_the_distance_to_its_segment() -> None:
    distance = capsule(POINTS, (-10, 0, 0), (10, 0, 0), (5, 5))
    dots = np.linspace(-10, 10, 2001)
    for i, j, k in ((3, 30, 31), (30, 44, 20), (55, 10, 33)):
        point = np.array([LINE[i], LINE[j], LINE[k]])
        away = np.sqrt((point[0] - dots) ** 2 + point[1] ** 2 + point[2] ** 2).min() - 5
        assert distance[i, j, k] == pytest.approx(away, abs=1e-3)


def test_facing_is_a_rotation_that_takes_the_axis_to_x() -> None:
    turn = facing((1, 2, -2))
    assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    assert turn @ np.array([1, 2, -2]) / 3 == pytest.approx([1, 0, 0], abs=1e-12)


def test_a_smooth_union_holds_both_and_differs_only_at_the_seam() -> None:
    first, second = blob(POINTS, (-8, 0, 0), (9, 9, 9)), blob(POINTS, (8, 0, 0), (9, 9, 9))
    joined, plain = smooth_min(first, second, 6.0), np.minimum(first, second)
    assert (joined <= plain + 1e-5).all()
    apart = np.abs(first - second) >= 6
    assert joined[apart] == pytest.approx(plain[apart], abs=1e-5)
    assert (joined < plain - 0.5).any()


def test_a_ring_reaches_its_width_back_and_front() -> None:
    x, y, _ = POINTS
    sides = tuple(np.full_like(x, value) for value in (20, -10, 15))
    distance = ring(x, y, sides, Form(exponent=2.4))
    middle = int(np.argmin(np.abs(LINE - 2.5)))
    inside = distance[:, middle, 30] < 0
    assert LINE[inside].max() == pytest.approx(20, abs=1.5)
    inside = distance[30, :, 30] < 0
    assert (LINE[inside].min(), LINE[inside].max()) == pytest.approx((-10, 15), abs=1.5)

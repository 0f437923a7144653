from collections.abc import Sequence

import numpy as np
import pytest

from synth_ct.phantom.anatomy import WARP_LIMIT_MM, WARP_STEP_MM, draw_anatomy
from synth_ct.phantom.warp import draw_lattice, smooth_noise, spline

AXES = tuple(np.linspace(-160, 160, 65) for _ in range(3))


def jacobian(displacement: Sequence[np.ndarray], voxel_mm: float) -> np.ndarray:
    """det(I + du/dx) by central differences."""
    d = [np.gradient(u, voxel_mm) for u in displacement]
    a, b, c = (d[0][0] + 1, d[0][1], d[0][2])
    e, f, g = (d[1][0], d[1][1] + 1, d[1][2])
    h, i, j = (d[2][0], d[2][1], d[2][2] + 1)
    determinant: np.ndarray = a * (f * j - g * i) - b * (e * j - g * h) + c * (e * i - f * h)
    return determinant


@pytest.mark.parametrize("seed", range(5))
def test_the_warp_of_a_patient_never_folds(seed: int) -> None:
    moves = [spline(lattice, AXES, WARP_STEP_MM) for lattice in draw_anatomy(seed, "A").warp]
    determinant = jacobian(moves, 5.0)
    assert determinant.min() > 0.6
    assert 0.02 < determinant.std() < 0.3


def test_the_largest_coefficients_in_the_worst_order_do_not_fold() -> None:
    """Planes two by two apart and together: the steepest slope each axis can have."""
    nodes = np.indices((int(480 / WARP_STEP_MM) + 4,) * 3)
    lattices = [WARP_LIMIT_MM * np.where(place // 2 % 2 == 0, 1.0, -1.0) for place in nodes]
    moves = [spline(lattice, AXES, WARP_STEP_MM) for lattice in lattices]
    assert jacobian(moves, 5.0).min() > 0.4


def test_a_constant_lattice_moves_everything_alike() -> None:
    lattice = np.full((12, 12, 12), 3.0)
    assert spline(lattice, AXES, WARP_STEP_MM) == pytest.approx(3.0, abs=1e-5)


def test_a_linear_lattice_is_reproduced_exactly() -> None:
    lattice = np.broadcast_to(np.arange(12.0)[:, None, None], (12, 12, 12))
    moved = spline(lattice, AXES, 60.0)
    assert moved[:, 0, 0] == pytest.approx((AXES[0] + 240) / 60 + 1, abs=1e-4)


def test_the_jacobian_of_a_stretch_is_its_volume() -> None:
    x, y, z = np.meshgrid(*AXES, indexing="ij")
    determinant = jacobian([0.1 * x, 0.2 * y, -0.1 * z], 5.0)
    assert determinant == pytest.approx(1.1 * 1.2 * 0.9, abs=1e-9)


def test_noise_lies_in_millimetres_not_in_voxels() -> None:
    fine = tuple(np.arange(-60, 60, 1.5) for _ in range(3))
    coarse = tuple(axis[::2] for axis in fine)
    first = smooth_noise(np.random.default_rng(3), fine, 9.0)
    second = smooth_noise(np.random.default_rng(3), coarse, 9.0)
    assert first[::2, ::2, ::2] == pytest.approx(second, abs=1e-5)
    assert first.std() == pytest.approx(1, abs=0.25)


def test_coefficients_stay_below_the_limit(rng: np.random.Generator) -> None:
    assert np.abs(draw_lattice(rng, 60.0, 9.0)).max() <= 9.0

"""What a network is shown of a case: its grid, its window, and nothing else."""

import numpy as np
import pytest
from pydantic import ValidationError

from finetune.shown import Shown, as_shown, placed_as_shown, shown_in_pretraining
from pretrain.encoder import Input
from synth_ct.kit.axes import HuArray
from synth_ct.kit.volume import Volume, centred_affine, spacing_mm

SHAPE, SPACING = (10, 12, 8), (4.0, 4.0, 5.0)
SHOWN = Shown(spacing_mm=(8.0, 4.0, 2.5), window_hu=(-175.0, 250.0))


def volume(hu_XYZ: HuArray) -> Volume:
    return Volume(hu_XYZ, centred_affine(hu_XYZ.shape, SPACING))


def test_the_window_becomes_minus_one_to_one_and_what_lies_beyond_is_clipped() -> None:
    hu = {-1000: -1.0, -175: -1.0, 37.5: 0.0, 250: 1.0, 3000: 1.0}
    for value, seen in hu.items():
        seen_XYZ = as_shown(volume(np.full(SHAPE, value, np.float32)), SHOWN)
        np.testing.assert_allclose(seen_XYZ, seen, atol=1e-6)


def test_the_grid_has_the_spacing_asked_for_and_the_same_outer_faces() -> None:
    given = volume(np.zeros(SHAPE, np.int16))
    placed = placed_as_shown(given, SHOWN)
    assert placed.array_XYZ.shape == (5, 12, 16)
    assert spacing_mm(placed.affine) == pytest.approx(SHOWN.spacing_mm)
    for each in (given, placed):
        first = each.affine[:3, 3] - np.array(spacing_mm(each.affine)) / 2
        np.testing.assert_allclose(first, -np.array(SHAPE) * SPACING / 2)
    np.testing.assert_array_equal(placed.array_XYZ, as_shown(given, SHOWN))


def test_values_beyond_the_window_are_interpolated_before_they_are_clipped() -> None:
    hu_XYZ = np.where(np.arange(SHAPE[2]) < 4, -600.0, 250.0).astype(np.float32)
    seen_XYZ = as_shown(volume(np.broadcast_to(hu_XYZ, SHAPE)), SHOWN)
    assert SHOWN.window_hu[0] > -600 + 0.25 * 850  # a quarter of the way
    np.testing.assert_allclose(seen_XYZ[2, 6, 7], -1, atol=1e-6)


def test_a_window_or_a_grid_that_shows_nothing_is_refused() -> None:
    for fields in (
        {"window_hu": (250.0, -175.0)},
        {"window_hu": (0.0, 0.0)},
        {"spacing_mm": (1.0, 0.0, 1.0)},
    ):
        with pytest.raises(ValidationError, match="shows nothing"):
            Shown.model_validate(SHOWN.model_dump() | fields)


def test_pretraining_is_shown_again_what_it_saw() -> None:
    given = Input(spacing_mm=(2.0, 2.0, 3.0), crop_XYZ=(16, 16, 16), window_hu=(-500.0, 500.0))
    assert shown_in_pretraining(given) == Shown(
        spacing_mm=(2.0, 2.0, 3.0), window_hu=(-500.0, 500.0)
    )

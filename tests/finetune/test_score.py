"""Dice and surface Dice: what cubes must have, what an independent implementation says."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_surface_dice
from scipy import ndimage

from finetune.score import Mask, Score, dice, scores, surface_dice
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.volume import LabelMap, centred_affine

SPACINGS = [(1.0, 1.0, 1.0), (0.8, 0.8, 3.0), (2.5, 0.7, 1.3)]
CLASSES = {1: "spleen", 2: "liver"}


def cube(start: tuple[int, int, int], shape: tuple[int, int, int] = (12, 12, 12)) -> Mask:
    mask_XYZ = np.zeros(shape, bool)
    mask_XYZ[tuple(slice(s, s + 4) for s in start)] = True
    return mask_XYZ


def blob(rng: np.random.Generator, shape: tuple[int, int, int] = (24, 20, 16)) -> Mask:
    smooth_XYZ = ndimage.gaussian_filter(rng.standard_normal(shape), 2)
    mask_XYZ: Mask = smooth_XYZ > np.quantile(smooth_XYZ, 0.8)
    return mask_XYZ


def labels(array_XYZ: np.ndarray) -> LabelMap:
    array_XYZ = array_XYZ.astype(np.uint8)
    return LabelMap(array_XYZ, centred_affine(array_XYZ.shape, (1.0, 2.0, 5.0)))


def reference_scores(
    p_XYZ: Mask, r_XYZ: Mask, spacing_mm: tuple[float, float, float], tolerance_mm: float
) -> tuple[float, float]:
    """MONAI's Dice and surface Dice; NaN where it has none."""
    p_BCXYZ, r_BCXYZ = (torch.tensor(m[None, None]) for m in (p_XYZ, r_XYZ))
    with warnings.catch_warnings(action="ignore"):  # it warns of its own deprecated calls
        nsd = compute_surface_dice(p_BCXYZ, r_BCXYZ, [tolerance_mm], True, spacing=spacing_mm)
        return compute_dice(p_BCXYZ, r_BCXYZ).item(), nsd.item()


def scored(predicted: LabelMap, reference: LabelMap) -> list[Score]:
    return scores(predicted, reference, CLASSES, case="c1", patient="p1", tolerance_mm=1.0)


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("tolerance_mm", [0.0, 1.0, 2.6])
def test_random_blobs_score_as_an_independent_implementation_says(
    spacing_mm: tuple[float, float, float], tolerance_mm: float, rng: np.random.Generator
) -> None:
    p_XYZ, r_XYZ = blob(rng), blob(rng)
    overlap, surface = reference_scores(p_XYZ, r_XYZ, spacing_mm, tolerance_mm)
    assert surface_dice(p_XYZ, r_XYZ, spacing_mm, tolerance_mm) == pytest.approx(surface)
    assert dice(p_XYZ, r_XYZ) == pytest.approx(overlap)


def test_blobs_at_the_faces_and_far_strays_score_so_too(rng: np.random.Generator) -> None:
    p_XYZ, r_XYZ = np.zeros((30, 30, 30), bool), np.zeros((30, 30, 30), bool)
    p_XYZ[:10, :9, 20:] = r_XYZ[:8, :10, 18:] = True
    p_XYZ[29, 29, 0] = r_XYZ[29, 0, 29] = True
    _, surface = reference_scores(p_XYZ, r_XYZ, (1.0, 1.0, 1.5), 1.5)
    assert 0 < surface < 1
    assert surface_dice(p_XYZ, r_XYZ, (1.0, 1.0, 1.5), 1.5) == pytest.approx(surface)


def test_a_cube_moved_by_a_quarter_shares_three_quarters() -> None:
    assert dice(cube((4, 4, 4)), cube((5, 4, 4))) == 0.75


@pytest.mark.parametrize(("tolerance_mm", "wanted"), [(0.0, 36 / 56), (2.99, 36 / 56), (3.0, 1.0)])
def test_shifted_cubes_meet_where_their_shells_do(tolerance_mm: float, wanted: float) -> None:
    """Shells of 16 + 12 + 12 + 16 voxels, one layer of 3 mm apart: three rims of 12 coincide."""
    found = surface_dice(cube((4, 4, 4)), cube((4, 4, 5)), (9.0, 9.0, 3.0), tolerance_mm)
    assert found == pytest.approx(wanted)


def test_the_spacing_of_each_axis_counts() -> None:
    spacing_mm = (1.0, 2.0, 5.0)
    for axis, moved in enumerate([(6, 4, 4), (4, 6, 4), (4, 4, 6)]):
        reach = 2 * spacing_mm[axis]
        apart = [surface_dice(cube((4, 4, 4)), cube(moved), spacing_mm, t) for t in (reach, 0.9)]
        assert apart[0] == 1.0
        assert apart[1] is not None
        assert apart[1] < 1.0


def test_a_distance_equal_to_the_tolerance_is_within_it_despite_rounding() -> None:
    spacing_mm = float(np.float32(0.7) + np.spacing(np.float32(0.7)))
    assert 3 * spacing_mm > 2.1
    thin, moved = np.zeros((8, 1, 1), bool), np.zeros((8, 1, 1), bool)
    thin[1] = moved[4] = True
    assert surface_dice(thin, moved, (spacing_mm, 1.0, 1.0), 2.1) == 1.0
    assert surface_dice(thin, moved, (0.701, 1.0, 1.0), 2.1) == 0.0


def test_only_the_boundary_is_compared() -> None:
    full, hollow = np.ones((5, 5, 5), bool), np.ones((5, 5, 5), bool)
    hollow[2, 2, 2] = False
    assert surface_dice(full, full, (1.0, 1.0, 1.0), 0.0) == 1.0
    assert surface_dice(full, hollow, (1.0, 1.0, 1.0), 0.0) == pytest.approx(2 * 98 / (98 + 98 + 6))


def test_empties_are_nothing_or_zero_but_never_one() -> None:
    nothing, something = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    for compare in (dice, lambda p, r: surface_dice(p, r, (1.0, 1.0, 1.0), 100.0)):
        assert compare(nothing, nothing) is None
        assert compare(something, nothing) == 0.0
        assert compare(nothing, something) == 0.0


def test_a_perfect_case_and_two_false_positives_average_to_a_third() -> None:
    mask_XYZ, none_XYZ = cube((4, 4, 4)), np.zeros((12, 12, 12), bool)
    cases = [
        scored(labels(mask_XYZ), labels(reference_XYZ))[0]
        for reference_XYZ in (mask_XYZ, none_XYZ, none_XYZ)
    ]
    assert [score.outcome for score in cases] == ["scored", "false_positive", "false_positive"]
    assert np.mean([score.dice for score in cases]) == pytest.approx(1 / 3)
    assert np.mean([score.nsd for score in cases]) == pytest.approx(1 / 3)
    ignored, _ = reference_scores(mask_XYZ, none_XYZ, (1.0, 1.0, 1.0), 1.0)
    assert np.isnan(ignored), "where such cases are left out, the mean would be 1"


def test_each_organ_has_a_row_with_its_volumes() -> None:
    predicted, reference = labels(cube((1, 1, 1)) * 2), labels(cube((2, 1, 1)) * 2)
    spleen, liver = scored(predicted, reference)
    assert (spleen.organ, spleen.outcome, spleen.dice, spleen.nsd) == (
        "spleen",
        "absent",
        None,
        None,
    )
    assert (spleen.reference_ml, spleen.predicted_ml) == (0.0, 0.0)
    assert (liver.case, liver.patient, liver.label, liver.organ) == ("c1", "p1", 2, "liver")
    assert (liver.outcome, liver.dice, liver.nsd) == ("scored", 0.75, 1.0)
    assert liver.reference_ml == pytest.approx(64 * 10 / 1000)


def test_a_missed_organ_scores_zero() -> None:
    spleen, _ = scored(labels(np.zeros((12, 12, 12))), labels(cube((1, 1, 1))))
    assert (spleen.outcome, spleen.dice, spleen.nsd) == ("scored", 0.0, 0.0)


def test_the_order_of_voxels_in_memory_changes_nothing(rng: np.random.Generator) -> None:
    predicted, reference = (labels(rng.integers(3, size=(9, 8, 7))) for _ in range(2))
    turned = replace(predicted, array_XYZ=np.asfortranarray(predicted.array_XYZ))
    assert scored(turned, reference) == scored(predicted, reference)


def test_each_organ_is_scored_as_if_alone_in_the_whole_array(rng: np.random.Generator) -> None:
    predicted, reference = (labels(blob(rng) + blob(rng)) for _ in range(2))
    for score in scored(predicted, reference):
        p_XYZ, r_XYZ = (m.array_XYZ == score.label for m in (predicted, reference))
        assert score.dice == dice(p_XYZ, r_XYZ)
        assert score.nsd == surface_dice(p_XYZ, r_XYZ, (1.0, 2.0, 5.0), 1.0)


def test_maps_that_do_not_lie_on_one_another_are_refused() -> None:
    good = labels(cube((4, 4, 4)))
    with pytest.raises(Refused, match=r"E_PAIR_SHAPE.* c1 has \(12, 12, 13\) .* \(12, 12, 12\)"):
        scored(labels(np.zeros((12, 12, 13))), good)
    moved = good.affine.copy()
    moved[0, 3] += 0.5
    with pytest.raises(Refused, match=r"E_PAIR_AFFINE: .* differ by 0\.5"):
        scored(replace(good, affine=moved), good)
    moved[0, 3] = np.nan
    with pytest.raises(Refused, match="E_PAIR_AFFINE"):
        scored(replace(good, affine=moved), good)
    in_32_bits = good.affine.astype(np.float32).astype(float)
    assert scored(replace(good, affine=in_32_bits), good) == scored(good, good)


def test_labels_of_no_class_are_refused_on_either_side() -> None:
    good, odd = labels(cube((4, 4, 4))), labels(cube((4, 4, 4)) * 7)
    with pytest.raises(Refused, match=r"E_LBL_UNKNOWN: the prediction of c1 has labels \[7\]"):
        scored(odd, good)
    with pytest.raises(Refused, match=r"E_LBL_UNKNOWN: the reference of c1 has labels \[7\]"):
        scored(good, odd)


def test_background_is_no_organ_and_a_tolerance_is_not_negative() -> None:
    good = labels(cube((4, 4, 4)))
    for classes, tolerance_mm in (({0: "background", 1: "spleen"}, 1.0), (CLASSES, -1.0)):
        with pytest.raises(ValueError, match="name organs only, and a tolerance of 0 or more"):
            scores(good, good, classes, case="c", patient="p", tolerance_mm=tolerance_mm)

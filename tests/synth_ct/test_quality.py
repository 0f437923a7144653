import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from safetensors.numpy import load, save

from synth_ct.kit.axes import FilmArray, HuArray
from synth_ct.kit.volume import Volume
from synth_ct.pairs.arrays import working_affine
from synth_ct.pairs.make import make_pair
from synth_ct.phantom import make_phantom
from synth_ct.quality import REASONS, QualityReference, Verdict, judge, reference_of
from synth_ct.quality.explain import explained, remedy
from synth_ct.quality.look import cell_means, directions, film_ranks, look_at, projection
from synth_ct.quality.reference import plausible

SIZE = 32
TRAINING, HELD_OUT = range(16), range(100, 104)
PATIENT, STRANGER = 100, 103


@cache
def pair(seed: int) -> tuple[HuArray, FilmArray]:
    made = make_pair(make_phantom("chest", seed, SIZE).ct, SIZE)
    return made.hu_XYZ, made.film_UV


@cache
def reference() -> QualityReference:
    volumes, films = zip(*(pair(seed) for seed in TRAINING), strict=True)
    return reference_of(volumes, films)


def verdict_on(hu_XYZ: HuArray, patient: int = PATIENT) -> Verdict:
    others = [pair(seed)[1] for seed in HELD_OUT if seed != patient]
    volume = Volume(hu_XYZ, working_affine(SIZE))
    return judge(volume, pair(patient)[1], others, reference())


def lungs_of(hu_XYZ: HuArray) -> HuArray:
    inner = np.zeros(hu_XYZ.shape, bool)
    inner[3:-3, 8:-8] = True
    return inner & (hu_XYZ < -400)


def without_lungs(hu_XYZ: HuArray, sides: slice = slice(None)) -> HuArray:
    filled = hu_XYZ.copy()
    filled[sides][lungs_of(hu_XYZ)[sides]] = 0
    return filled


def moved(low: int, high: int, by: int) -> Callable[[HuArray], HuArray]:
    return lambda hu: np.where((hu > low) & (hu < high), hu + by, hu).astype(np.int16)


def with_nan(hu_XYZ: HuArray) -> HuArray:
    spoilt = hu_XYZ.astype(np.float32)
    spoilt[4:6, 4:6, 4:6] = np.nan
    return spoilt


def noise(hu_XYZ: HuArray) -> HuArray:
    return np.random.default_rng(0).permuted(hu_XYZ.ravel()).reshape(hu_XYZ.shape)


# ---- verdicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("patient", HELD_OUT)
def test_a_patient_who_was_not_trained_on_is_accepted(patient: int) -> None:
    verdict = verdict_on(pair(patient)[0], patient)
    assert verdict == Verdict(True, "", verdict.figures)
    assert None not in verdict.figures.values()
    assert (verdict.figures["reprojection_others"] or 0) < 0.5


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (with_nan, "not_finite"),
        (lambda hu: np.where(hu == hu.max(), np.inf, hu), "not_finite"),
        (lambda hu: np.full_like(hu, -1000), "body"),
        (lambda hu: np.full_like(hu, 40), "lungs"),
        (without_lungs, "lungs"),
        (lambda hu: without_lungs(hu, slice(0, SIZE // 2)), "lungs"),
        (lambda hu: without_lungs(hu, slice(SIZE // 2, None)), "lungs"),
        (moved(-1100, -400, -300), "lung_hu"),
        (moved(-30, 3000, 200), "flesh_hu"),
        (moved(-200, -30, 200), "fat_hu"),
        (moved(-30, 150, -100), "soft_hu"),
        (lambda hu: np.minimum(hu, 150), "bone_hu"),
        (moved(120, 3000, 800), "bone_hu"),
        (lambda hu: hu[::-1], "mirrored"),
        (lambda hu: hu[:, ::-1], "back_to_front"),
        (lambda hu: hu[:, :, ::-1], "upside_down"),
        (lambda hu: pair(STRANGER)[0], "reprojection"),
    ],
)
def test_a_spoilt_volume_is_rejected_with_its_reason(
    spoil: Callable[[HuArray], HuArray], reason: str
) -> None:
    verdict = verdict_on(spoil(pair(PATIENT)[0]))
    assert (verdict.accepted, verdict.reason) == (False, reason)
    assert reason in REASONS


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (with_nan, r"not_finite: a voxel is NaN or infinite$"),
        (without_lungs, r"^lungs: .*lung_share 0\.0\d+, allowed 0\.\d+ to 0\.\d+\)$"),
        (moved(-1100, -400, -300), r"lung_hu: .*lung_hu -\d.*, allowed -\d.* to -\d.*\)$"),
        (lambda hu: hu[::-1], r"mirrored: .*towards_right -0.*, allowed over 0"),
        (lambda hu: pair(STRANGER)[0], r"reprojection: .*reprojection_gain .*, allowed over "),
    ],
)
def test_a_rejection_names_the_figure_and_its_limit(
    spoil: Callable[[HuArray], HuArray], said: str
) -> None:
    assert re.search(said, explained(verdict_on(spoil(pair(PATIENT)[0])), reference()))


def test_what_was_accepted_needs_no_words() -> None:
    assert explained(verdict_on(pair(PATIENT)[0]), reference()) == ""


@pytest.mark.parametrize("reason", REASONS)
def test_every_rejection_has_words(reason: str) -> None:
    figures = verdict_on(pair(PATIENT)[0]).figures
    words = explained(Verdict(False, reason, dict.fromkeys(figures)), reference())
    assert words.startswith(f"{reason}: {REASONS[reason]}")
    assert "--seed" in remedy(reason)
    assert ("allowed" in words) == (reason != "not_finite")


def test_noise_is_no_patient_even_with_the_histogram_of_one() -> None:
    assert not verdict_on(noise(pair(PATIENT)[0])).accepted


def test_of_a_volume_that_is_not_finite_no_figure_is_given() -> None:
    assert set(verdict_on(with_nan(pair(PATIENT)[0])).figures.values()) == {None}
    assert (
        verdict_on(with_nan(pair(PATIENT)[0])).figures.keys()
        == verdict_on(pair(PATIENT)[0]).figures.keys()
    )


def test_an_absent_tissue_has_no_median_and_fails() -> None:
    verdict = verdict_on(np.minimum(pair(PATIENT)[0], 150))
    assert verdict.figures["bone_hu"] is None
    assert not verdict.accepted


def test_a_training_volume_is_memorised_unless_it_is_the_answer() -> None:
    known, its_film = pair(3)
    volume = Volume(known, working_affine(SIZE))
    lenient = replace(reference(), least_gain=-9.0)
    assert judge(volume, pair(PATIENT)[1], [], lenient).reason == "memorised"
    assert judge(volume, its_film, [], reference()).accepted


def test_a_noisy_copy_is_still_a_copy() -> None:
    copy = pair(3)[0] + np.random.default_rng(1).normal(0, 30, (SIZE,) * 3)
    lenient = replace(reference(), least_gain=-9.0)
    verdict = judge(Volume(copy, working_affine(SIZE)), pair(PATIENT)[1], [], lenient)
    assert verdict.reason == "memorised"


def test_voxels_stored_in_another_order_are_the_same_volume() -> None:
    hu_XYZ, film_UV = pair(PATIENT)
    affine = working_affine(SIZE) @ np.diag([-1.0, 1, 1, 1])
    turned = judge(Volume(hu_XYZ[::-1], affine), film_UV, [], reference())
    plain = judge(Volume(hu_XYZ, working_affine(SIZE)), film_UV, [], reference())
    assert turned == plain
    assert plain.accepted


def test_a_verdict_is_the_same_each_time_and_takes_any_gamma_of_a_film() -> None:
    hu_XYZ, film_UV = pair(PATIENT)
    volume = Volume(hu_XYZ, working_affine(SIZE))
    once = judge(volume, film_UV, [], reference())
    assert once == judge(volume, film_UV, [], reference())
    brighter = judge(volume, np.sign(film_UV) * np.abs(film_UV) ** 0.5, [], reference())
    assert brighter.figures["reprojection"] == pytest.approx(once.figures["reprojection"], abs=0.02)


def test_other_films_that_resemble_the_volume_count_against_it() -> None:
    hu_XYZ, film_UV = pair(PATIENT)
    volume = Volume(hu_XYZ, working_affine(SIZE))
    assert judge(volume, film_UV, [film_UV], reference()).reason == "reprojection"


def test_a_volume_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="reference of 32"):
        judge(Volume(np.zeros((64,) * 3), np.eye(4)), pair(PATIENT)[1], [], reference())
    for shape in ((32, 32, 40), (40, 40, 40), (16, 16, 16)):
        with pytest.raises(ValueError, match="give a cube"):
            judge(Volume(np.zeros(shape), np.eye(4)), pair(PATIENT)[1], [], reference())


# ---- measures ----------------------------------------------------------------------------------


def box_patient() -> HuArray:
    """At the feet air before and behind alone; a windpipe open to the air above; a little fat."""
    hu_XYZ = np.full((SIZE,) * 3, -1000.0, np.float32)
    hu_XYZ[2:30, 6:26, :30] = hu_XYZ[:, 6:26, :4] = hu_XYZ[[0, -1], :, :4] = 40
    hu_XYZ[4:14, 8:24, 4:28] = -850
    hu_XYZ[20:28, 8:24, 4:28] = -800
    hu_XYZ[13:17, 9:11, 4:30] = -990
    hu_XYZ[18, 18, 10:20] = -100
    return hu_XYZ


def test_shares_and_medians_of_a_body_of_boxes_are_those_drawn() -> None:
    figures = look_at(box_patient()).figures
    left, right, windpipe = 10 * 16 * 24, 8 * 16 * 24, 4 * 2 * 26
    joined = 1 * 2 * 24
    whole = SIZE**3
    assert figures["body_share"] == pytest.approx((28 * 20 * 26 + (32 * 20 + 2 * 12) * 4) / whole)
    assert figures["lung_share"] == pytest.approx((left + right + windpipe - joined) / whole)
    assert figures["lesser_lung_share"] == pytest.approx((right + windpipe / 4) / (whole / 2))
    assert (figures["lung_hu"], figures["flesh_hu"], figures["fat_hu"]) == (-850, 40, None)


def test_metal_does_not_outweigh_a_body_in_its_thumbnail() -> None:
    assert (cell_means(np.full((SIZE,) * 3, 1400, np.float32)) == 500).all()


def test_a_projection_lies_on_the_film_as_conventions_say() -> None:
    hu_XYZ = np.full((SIZE,) * 3, -1000.0, np.float32)
    hu_XYZ[-1, 3, -1] = 0
    film_UV = projection(hu_XYZ)
    assert film_UV[0, 0] == 1
    assert film_UV.sum() == 1


def test_a_projection_agrees_with_the_film_of_its_cone_beam() -> None:
    for seed in HELD_OUT:
        hu_XYZ, film_UV = pair(seed)
        own, film = film_ranks(projection(hu_XYZ.astype(np.float32))), film_ranks(film_UV)
        assert np.corrcoef(own.ravel(), film.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("axis", range(3))
def test_flipping_a_volume_turns_the_sign_of_one_direction(axis: int) -> None:
    random = np.random.default_rng(0)
    cells, mean = random.random((16, 16, 16)), random.random((16, 16, 16))
    plain, flipped = directions(cells, mean), directions(np.flip(cells, axis), mean)
    assert flipped[axis] == pytest.approx(-plain[axis])
    assert directions(mean, mean) == pytest.approx([1, 1, 1])
    assert directions(np.zeros((16, 16, 16)), mean) == [0, 0, 0]


# ---- references --------------------------------------------------------------------------------


def test_ranges_reach_six_deviations_or_to_the_outermost_half_percent() -> None:
    look = look_at(box_patient())
    near = [look._replace(figures={"lung_hu": float(n), "lung_share": 0.2}) for n in (-1, 1)]
    assert plausible("lung_hu", near) == (-6, 6)
    far = [look._replace(figures={"lung_hu": 0.0 if n > 1 else 900.0}) for n in range(100)]
    assert plausible("lung_hu", far)[1] == 900


def test_the_least_share_is_never_nothing() -> None:
    look = look_at(box_patient())
    looks = [look._replace(figures={"lung_share": share}) for share in (0.1, 0.2, 0.4)]
    low, high = plausible("lung_share", looks)
    assert 0 < low < 0.1
    assert low * high == pytest.approx(0.04)


def test_a_reference_comes_back_from_its_arrays_unchanged() -> None:
    bytes_on_disk = save(reference().to_arrays())
    back = QualityReference.from_arrays(load(bytes_on_disk))
    assert save(back.to_arrays()) == bytes_on_disk
    hu_XYZ, film_UV = pair(PATIENT)
    volume = Volume(hu_XYZ, working_affine(SIZE))
    assert judge(volume, film_UV, [], back) == judge(volume, film_UV, [], reference())


@pytest.mark.parametrize("name", ["ranges", "cells", "films", "least_gain"])
def test_arrays_that_are_no_reference_are_refused(name: str) -> None:
    arrays = reference().to_arrays()
    with pytest.raises(ValueError, match="no quality reference"):
        QualityReference.from_arrays(arrays | {name: arrays[name][..., :0]})
    with pytest.raises(ValueError, match="no quality reference"):
        QualityReference.from_arrays({key: arrays[key] for key in arrays if key != name})


def test_a_reference_without_a_volume_is_refused() -> None:
    arrays = reference().to_arrays()
    nobody = {name: arrays[name][:0] for name in ("cells", "films")}
    with pytest.raises(ValueError, match="no quality reference"):
        QualityReference.from_arrays(arrays | nobody)


def test_too_few_or_spoilt_training_pairs_give_no_reference() -> None:
    volumes, films = zip(*(pair(seed) for seed in range(8)), strict=True)
    with pytest.raises(ValueError, match="at least 8"):
        reference_of(volumes[:7], films[:7])
    with pytest.raises(ValueError, match="NaN"):
        reference_of([with_nan(volumes[0]), *volumes[1:]], films)
    with pytest.raises(ValueError, match="show no chest"):
        reference_of([np.full_like(volumes[0], 40)] * 8, films)


@pytest.mark.real_data
def test_phantoms_as_reference_accept_real_chests_and_reject_abdomens(real_data: Path) -> None:
    chests = ("LIDC-IDRI-0001", "LungPETCTDx-A0001_s1", "LungPETCTDx-A0002_s1")
    abdomens = ("abdomen_ACRIN-FLT-Breast-001", "abdomen_CPTAC-PDA-C3L-00189")
    made = {}
    for name in (*chests, *abdomens):
        image = nib.nifti1.load(real_data / "ct" / f"{name}.nii.gz")
        hu = np.asarray(image.dataobj).astype(np.int16)
        made[name] = make_pair(Volume(hu, image.affine.astype(float)), SIZE)
    for name, own in made.items():
        others = [made[other].film_UV for other in chests if other != name]
        verdict = judge(Volume(own.hu_XYZ, working_affine(SIZE)), own.film_UV, others, reference())
        assert verdict.accepted == (name in chests), (name, verdict)

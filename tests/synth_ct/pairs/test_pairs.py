"""Pairs: the volume shows what its film shows, whatever the CT's size, place or orientation."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from synth_ct.cohort import Cohort
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import read_report
from synth_ct.kit.volume import Volume, save, spacing_mm
from synth_ct.pairs.arrays import FIELD_MM, Pair, Pairs, drawn, working_affine
from synth_ct.pairs.disk import PairsRecipe, make_pairs, open_pairs, subject_of
from synth_ct.pairs.make import make_pair
from synth_ct.phantom import make_phantom
from synth_ct.phantom.recipe import PhantomCohort, make_phantom_cohort

CPU = torch.device("cpu")


def chest(seed: int = 0) -> Volume:
    return make_phantom("chest", seed, 64, "A").ct


def published(folder: Path, size: int = 32, workers: int = 0) -> Path:
    cohort = folder / "ct"
    if not cohort.exists():
        with publish(cohort, Record(kind="phantoms", recipe={})) as workspace:
            make_phantom_cohort(PhantomCohort(kind="chest", count=4, size=32), workspace, Effort())
    out = folder / f"pairs{workers}"
    with publish(out, Record(kind="pairs", recipe={"size": size})) as workspace:
        make_pairs(PairsRecipe(size=size), Cohort.open(cohort), workspace, Effort(workers=workers))
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("pairs"))


def shadow(hu_XYZ: np.ndarray) -> np.ndarray:
    """A parallel projection along Y as a film: rows from above, columns from the right."""
    return np.clip(hu_XYZ.astype(float) + 1000, 0, None).mean(1).T[::-1, ::-1]


def test_the_volume_casts_the_shadow_its_film_shows() -> None:
    pair = make_pair(chest(), 64)
    agreement = np.corrcoef(shadow(pair.hu_XYZ).ravel(), pair.film_UV.ravel())[0, 1]
    mirrored = np.corrcoef(shadow(pair.hu_XYZ[::-1]).ravel(), pair.film_UV.ravel())[0, 1]
    assert agreement > 0.95
    assert mirrored < agreement - 0.02


def test_moving_the_scan_in_the_world_changes_nothing() -> None:
    volume = chest()
    moved = Volume(volume.array_XYZ, volume.affine.copy())
    moved.affine[:3, 3] += (100, -50, 25)
    a, b = make_pair(volume, 32), make_pair(moved, 32)
    np.testing.assert_array_equal(a.hu_XYZ, b.hu_XYZ)
    np.testing.assert_array_equal(a.film_UV, b.film_UV)


def test_the_order_of_the_voxel_axes_changes_nothing() -> None:
    volume = chest()
    turned_image = nib.Nifti1Image(volume.array_XYZ, volume.affine).as_reoriented(
        nib.orientations.axcodes2ornt(("P", "I", "L"))
    )
    turned = Volume(np.asarray(turned_image.dataobj), turned_image.affine)
    np.testing.assert_array_equal(make_pair(volume, 32).hu_XYZ, make_pair(turned, 32).hu_XYZ)


def test_empty_margins_around_the_scan_hardly_move_the_pair() -> None:
    volume = chest()
    padded = Volume(np.pad(volume.array_XYZ, 8, constant_values=-1024), volume.affine.copy())
    padded.affine[:3, 3] -= 8 * np.diag(volume.affine)[:3]
    a, b = make_pair(volume, 64).hu_XYZ, make_pair(padded, 64).hu_XYZ
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97


def test_a_couch_does_not_push_the_body_out_of_the_middle() -> None:
    volume = chest()
    couch = volume.array_XYZ.copy()
    couch[8:56, 1:3] = 100
    a, b = make_pair(volume, 64).hu_XYZ, make_pair(Volume(couch, volume.affine), 64).hu_XYZ
    body_a, body_b = (np.median(np.nonzero(x[:, 8:] > -300)[1]) for x in (a, b))
    assert abs(body_a - body_b) <= 3


def test_the_grid_is_the_nominal_one_whatever_the_patient_measures() -> None:
    assert spacing_mm(working_affine(128)) == (2.5, 2.5, 2.5)
    assert spacing_mm(working_affine(32))[0] * 32 == FIELD_MM


def test_pairs_come_back_as_they_were_made_with_any_number_of_workers(folder: Path) -> None:
    alone, shared = open_pairs(folder), open_pairs(published(folder.parent, workers=2))
    assert alone.rows == shared.rows
    np.testing.assert_array_equal(alone.volumes_NXYZ, shared.volumes_NXYZ)
    np.testing.assert_array_equal(alone.films_NUV, shared.films_NUV)
    assert subject_of(folder) == {"evidence": "phantom", "trained_on": "phantoms"}
    assert sorted(p.name for p in folder.iterdir()) == [
        "films.npy",
        "pairs.json",
        "quarantine.json",
        "record.json",
        "volumes.npy",
    ]


def test_networks_see_volumes_and_films_of_one_range(folder: Path) -> None:
    pairs = open_pairs(folder)
    ct, film = pairs.ct([0, 2], CPU), pairs.film([0, 2], CPU)
    assert ct.shape == (2, 1, 32, 32, 32)
    assert film.shape == (2, 1, 32, 32)
    assert ct.min() == -1
    assert ct.max() <= 1
    assert film.abs().max() <= 1


def test_a_flipped_bit_in_the_arrays_is_noticed(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    data = bytearray((tmp_path / "volumes.npy").read_bytes())
    data[5000] ^= 1
    (tmp_path / "volumes.npy").write_bytes(data)
    with pytest.raises(ValueError, match=r"volumes.npy was changed"):
        open_pairs(tmp_path)


def test_a_ct_without_a_thorax_is_set_aside_and_named(tmp_path: Path) -> None:
    with publish(tmp_path / "ct", Record(kind="phantoms", recipe={})) as workspace:
        recipe = PhantomCohort(kind="chest", count=3, size=32)
        make_phantom_cohort(recipe, workspace, Effort())
    cohort = Cohort.open(tmp_path / "ct")
    case = cohort.cases[0]
    air = Volume(np.full((32, 32, 32), -1000, np.int16), cohort.volume(case).affine)
    sha256 = save(air, cohort.folder / case.file)
    cohort = replace(cohort, cases=(replace(case, file_sha256=sha256), *cohort.cases[1:]))
    with publish(tmp_path / "pairs", Record(kind="pairs", recipe={})) as workspace:
        make_pairs(PairsRecipe(size=32), cohort, workspace, Effort())
    (row,) = read_report(tmp_path / "pairs")
    assert (row.code, row.file) == ("E_NO_THORAX", cohort.cases[0].file)
    assert len(open_pairs(tmp_path / "pairs").rows) == 2


def test_radiographs_are_no_ct(tmp_path: Path) -> None:
    with publish(tmp_path / "b", Record(kind="phantoms", recipe={})) as workspace:
        recipe = PhantomCohort(kind="chest", count=1, size=32)
        make_phantom_cohort(recipe, workspace, Effort())
    cohort = Cohort.open(tmp_path / "b")
    object.__setattr__(cohort, "kind", "radiographs")
    with pytest.raises(ValueError, match="pairs are made from CT"):
        make_pairs(PairsRecipe(size=32), cohort, tmp_path, Effort())


def test_volumes_and_films_of_different_sizes_are_no_pairs() -> None:
    row = Pair(id="a", patient="p", split="train", box=(0.0, 1.0, 0.0, 1.0), likeness=1.0)
    with pytest.raises(ValueError, match="volumes are cubes and films their faces"):
        Pairs((row,), np.zeros((1, 8, 8, 8), np.int16), np.zeros((1, 4, 4), np.float32))


def test_a_micro_batch_depends_on_its_place_alone() -> None:
    population = np.arange(100, 150)
    a = drawn(1, "ct", 3, 0, 8, population)
    assert (a == drawn(1, "ct", 3, 0, 8, population)).all()
    assert len(set(a.tolist())) == 8
    assert set(a.tolist()) <= set(population.tolist())
    assert (a != drawn(1, "ct", 4, 0, 8, population)).any()
    assert (a != drawn(1, "ct", 3, 1, 8, population)).any()
    assert (a != drawn(2, "ct", 3, 0, 8, population)).any()


def test_a_micro_batch_larger_than_the_cohort_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be drawn from 3"):
        drawn(0, "ct", 0, 0, 4, np.arange(3))

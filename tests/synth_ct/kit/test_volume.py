"""Volumes: geometry is kept, voxels are never guessed, damage never passes."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from synth_ct.kit import volume as v
from synth_ct.kit.volume import LabelMap, Volume


@pytest.fixture
def ct(rng: np.random.Generator) -> Volume:
    """Anisotropic, off-centre, different along every axis."""
    affine = np.diag([2.5, 2.0, 3.0, 1.0])
    affine[:3, 3] = (-40.0, 15.0, -300.0)
    return Volume(rng.integers(-1000, 1500, (9, 10, 11)).astype(np.int16), affine)


def turned(ct: Volume, order: tuple[int, ...], flips: tuple[int, ...]) -> Volume:
    """The same patient stored with other voxel axes."""
    orientation = np.array([[axis, flip] for axis, flip in zip(order, flips, strict=True)], float)
    array = nib.orientations.apply_orientation(ct.array_XYZ, orientation)
    affine = ct.affine @ nib.orientations.inv_ornt_aff(orientation, ct.array_XYZ.shape)
    return Volume(np.ascontiguousarray(array), affine)


def test_all_48_orientations_come_out_identical(ct: Volume) -> None:
    ways = list(
        itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
    )
    assert len(ways) == 48
    for order, flips in ways:
        back = v.to_ras(turned(ct, order, flips))
        np.testing.assert_array_equal(back.array_XYZ, ct.array_XYZ)
        np.testing.assert_allclose(back.affine, ct.affine, atol=1e-9)


def test_what_is_saved_is_what_is_loaded(ct: Volume, tmp_path: Path) -> None:
    sha = v.save(ct, tmp_path / "a.nii.gz")
    back = v.load(tmp_path / "a.nii.gz", sha)
    np.testing.assert_array_equal(back.array_XYZ, ct.array_XYZ)
    np.testing.assert_allclose(back.affine, ct.affine, atol=1e-5)


def test_equal_volumes_give_equal_bytes(ct: Volume, tmp_path: Path) -> None:
    assert v.save(ct, tmp_path / "a.nii.gz") == v.save(ct, tmp_path / "another name.nii.gz")


def test_a_file_says_what_it_is(ct: Volume, tmp_path: Path) -> None:
    text = "SYNTHETIC synth-ct 0123456789abcdef"
    sha = v.save(ct, tmp_path / "a.nii.gz", text)
    assert nib.load(tmp_path / "a.nii.gz").header["descrip"].item().decode() == text
    assert SimpleITK.ReadImage(str(tmp_path / "a.nii.gz")).GetMetaData("descrip") == text
    assert (v.load(tmp_path / "a.nii.gz", sha).array_XYZ == ct.array_XYZ).all()


@pytest.mark.parametrize("text", ["x" * 80, "ü"])
def test_a_description_that_nifti_would_cut_or_spoil_is_refused(ct: Volume, text: str) -> None:
    with pytest.raises(ValueError, match="79 ASCII letters"):
        v.nifti_bytes(ct, text)
    assert v.nifti_bytes(ct, "x" * 79)


def test_every_flipped_bit_is_noticed(ct: Volume, tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.nii.gz"
    sha = v.save(ct, path)
    good = path.read_bytes()
    for bit in rng.integers(0, 8 * len(good), 50).tolist():
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"a\.nii\.gz is damaged"):
            v.load(path, sha)


def test_two_readers_agree_on_what_we_write(ct: Volume, tmp_path: Path) -> None:
    v.save(ct, tmp_path / "a.nii.gz")
    image = SimpleITK.ReadImage(str(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).T, ct.array_XYZ)
    assert image.GetOrigin() == pytest.approx((40.0, -15.0, -300.0))
    header = nib.load(tmp_path / "a.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"


def test_hu_are_clipped_not_wrapped_and_nan_is_refused() -> None:
    far = np.array([[[-2000.0, 40000.0, 0.6]]], np.float32)
    assert v.to_int16(far).tolist() == [[[-1024, 3071, 1]]]
    with pytest.raises(ValueError, match="NaN"):
        v.to_int16(np.full((1, 1, 1), np.nan, np.float32))


def test_the_window_is_fixed_and_reversible() -> None:
    hu = np.array([[[-1000.0, 250.0, 1500.0]]], np.float32)
    np.testing.assert_allclose(v.window(hu), [[[-1.0, 0.0, 1.0]]])
    np.testing.assert_allclose(v.unwindow(v.window(hu)), hu)
    assert v.window(np.array([[[9999.0]]], np.float32)).item() == 1.0


def world_centre_of_mass(volume: Volume) -> np.ndarray:
    weight = volume.array_XYZ.astype(float)
    index = [(weight * i).sum() / weight.sum() for i in np.indices(weight.shape)]
    return (volume.affine @ np.array([*index, 1.0]))[:3]


@pytest.mark.parametrize("spacing", [(1.25, 1.25, 1.25), (5.0, 4.0, 6.0), (2.0, 2.0, 2.0)])
def test_resampling_leaves_things_where_they_are(spacing: tuple[float, float, float]) -> None:
    x, y, z = np.meshgrid(*(np.arange(24.0),) * 3, indexing="ij")
    blob = 1000 * np.exp(-((x - 10) ** 2 + (y - 12) ** 2 + (z - 14) ** 2) / 18)
    before = Volume(blob.astype(np.float32), v.centred_affine((24, 24, 24), (2.5, 2.0, 3.0)))
    after = v.resample(before, spacing)
    assert v.spacing_mm(after.affine) == pytest.approx(spacing)
    np.testing.assert_allclose(world_centre_of_mass(after), world_centre_of_mass(before), atol=0.1)


def test_labels_never_gain_a_class_by_resampling(rng: np.random.Generator) -> None:
    labels = LabelMap(rng.choice([0, 4, 9], (12, 12, 12)).astype(np.uint8), np.diag([2.0, 2, 2, 1]))
    assert set(np.unique(v.resample(labels, (1.3, 1.3, 1.3)).array_XYZ)) == {0, 4, 9}


def test_shrinking_does_not_alias_fine_noise(rng: np.random.Generator) -> None:
    noise = Volume(rng.normal(0, 100, (32, 32, 32)).astype(np.float32), np.diag([1.0, 1, 1, 1]))
    assert v.resample(noise, (4.0, 4.0, 4.0)).array_XYZ.std() < 30


def test_cropping_keeps_world_positions_and_padding_is_air(ct: Volume) -> None:
    bigger = v.crop_or_pad(ct, (15, 15, 15))
    assert bigger.array_XYZ[0, 0, 0] == v.AIR_HU
    again = v.crop_or_pad(bigger, (9, 10, 11))
    np.testing.assert_array_equal(again.array_XYZ, ct.array_XYZ)
    np.testing.assert_allclose(again.affine, ct.affine)


def test_a_crop_beside_the_volume_is_all_air(ct: Volume) -> None:
    assert (v.crop_or_pad(ct, (4, 4, 4), centre=(50, 50, 50)).array_XYZ == v.AIR_HU).all()

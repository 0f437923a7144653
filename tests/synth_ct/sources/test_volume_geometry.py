"""One volume in every orientation and container is one volume; two other readers agree."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from synth_ct.kit.quarantine import Refused
from synth_ct.sources.volume_files import read_ct, read_raw

SHAPE = (9, 8, 7)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def scan_array() -> np.ndarray:
    rng = np.random.default_rng(1)
    hu = rng.integers(-1010, -990, SHAPE)
    hu[2:7, 2:6, 2:5] = rng.integers(20, 60, (5, 4, 3))
    return hu.astype(np.int16)


def upright() -> np.ndarray:
    affine = np.diag([0.7, 1.3, 2.5, 1.0])
    affine[:3, 3] = [-31.5, 12.25, 700.0]
    return affine


def rotated(degrees: float) -> np.ndarray:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler(
        "xyz", [degrees, degrees / 2, -degrees / 3], True
    ).as_matrix()
    return turn @ upright()


ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


def stored_as(order: tuple[int, ...], signs: tuple[int, ...]) -> nib.Nifti1Image:
    """The same patient with voxel axes permuted and flipped; only the affine tells."""
    target = np.array([[axis, sign] for axis, sign in zip(order, signs, strict=True)])
    array = nib.orientations.apply_orientation(scan_array(), target)
    affine = upright() @ nib.orientations.inv_ornt_aff(target, SHAPE)
    return nib.Nifti1Image(np.ascontiguousarray(array), affine)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_all_48_orientations_come_out_identical(
    order: tuple[int, ...], signs: tuple[int, ...], tmp_path: Path
) -> None:
    stored_as(order, signs).to_filename(tmp_path / "a.nii.gz")
    volume = read_ct(tmp_path / "a.nii.gz").volume
    np.testing.assert_array_equal(volume.array_XYZ, scan_array())
    np.testing.assert_allclose(volume.affine, upright(), atol=1e-4)


def itk_affine(image: sitk.Image) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ affine


def nibabel_file(path: Path, affine: np.ndarray, sform: int, qform: int) -> None:
    image = nib.Nifti1Image(scan_array(), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=sform)
    image.set_qform(affine, code=qform)
    image.to_filename(path)


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (2, 0), (0, 1)])
@pytest.mark.parametrize("degrees", [0, 0.3, 20, 100])
@pytest.mark.parametrize("mirrored", [False, True])
def test_nibabel_and_itk_place_a_nifti_where_we_do(
    sform: int, qform: int, degrees: float, mirrored: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.nii"
    affine = rotated(degrees)
    affine[:3, 0] *= -1 if mirrored else 1
    nibabel_file(path, affine, sform, qform)
    raw = read_raw(path)
    np.testing.assert_allclose(raw.affine, nib.load(path).affine, atol=1e-4)
    np.testing.assert_allclose(raw.affine, itk_affine(sitk.ReadImage(path)), atol=1e-3)
    assert ("oblique" in raw.notes) == (degrees > 1)


def test_an_oblique_scan_keeps_its_affine(tmp_path: Path) -> None:
    nibabel_file(tmp_path / "a.nii", rotated(20), 1, 1)
    volume = read_ct(tmp_path / "a.nii").volume
    np.testing.assert_allclose(volume.affine, rotated(20), atol=1e-4)
    np.testing.assert_array_equal(volume.array_XYZ, scan_array())


def test_what_only_rounding_shears_is_made_exactly_orthogonal(tmp_path: Path) -> None:
    affine = upright()
    affine[0, 1] = 5e-5
    nibabel_file(tmp_path / "a.nii", affine, 1, 0)
    edges = read_raw(tmp_path / "a.nii").affine[:3, :3]
    directions = edges / np.linalg.norm(edges, axis=0)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-12)


def itk_image(degrees: float) -> sitk.Image:
    image = sitk.GetImageFromArray(scan_array().transpose(2, 1, 0))
    affine = LPS_TO_RAS @ rotated(degrees)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.nii.gz"])
@pytest.mark.parametrize("degrees", [0, 20])
def test_what_itk_writes_is_read_as_itk_meant_it(
    name: str, compressed: bool, degrees: float, tmp_path: Path
) -> None:
    sitk.WriteImage(itk_image(degrees), tmp_path / name, compressed)
    volume = read_ct(tmp_path / name).volume
    np.testing.assert_array_equal(volume.array_XYZ, scan_array())
    np.testing.assert_allclose(volume.affine, rotated(degrees), atol=1e-3)


@pytest.mark.parametrize("kind", [sitk.sitkInt32, sitk.sitkFloat32, sitk.sitkFloat64])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nii"])
def test_every_number_type_gives_the_same_hu(name: str, kind: int, tmp_path: Path) -> None:
    sitk.WriteImage(sitk.Cast(itk_image(0), kind), tmp_path / name)
    np.testing.assert_array_equal(read_ct(tmp_path / name).volume.array_XYZ, scan_array())


# ---- NRRD and MetaImage that say too little ------------------------------------------------------


def edited(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


MHA = {
    "no matrix": (b"TransformMatrix", b"Nothing", "E_MHA_NOFORM"),
    "no offset": (b"Offset =", b"Nothing =", "E_MHA_NOFORM"),
    "zero spacing": (b"ElementSpacing =", b"ElementSpacing = 0.0 1 1\nWas =", "E_MHA_PIXDIM"),
    "NaN spacing": (b"ElementSpacing =", b"ElementSpacing = nan 1 1\nWas =", "E_MHA_PIXDIM"),
    "spacing in metres": (
        b"ElementSpacing =",
        b"ElementSpacing = 7e-4 1 1\nWas =",
        "E_MHA_SPACING",
    ),
    "sheared": (b"= -1 0 0 0 -1", b"= -1 .1 0 0 -1", "E_MHA_AFFINE"),
    "singular": (b"= -1 0 0 0 -1 0", b"= -1 0 0 -1 0 0", "E_MHA_AFFINE"),
    "two axes": (b"DimSize = 9 8 7", b"DimSize = 9 56", "E_MHA_SHAPE"),
    "four axes": (b"DimSize = 9 8 7", b"DimSize = 9 8 7 2", "E_MHA_4D"),
    "channels": (b"ElementType", b"ElementNumberOfChannels = 3\nElementType", "E_MHA_4D"),
    "negative size": (b"DimSize = 9 8 7", b"DimSize = 9 -8 7", "E_MHA_SHAPE"),
    "huge": (b"DimSize = 9 8 7", b"DimSize = 30000 30000 30000", "E_MHA_TOO_BIG"),
    "more voxels than bytes": (b"DimSize = 9 8 7", b"DimSize = 9 8 8", "E_MHA_TRUNCATED"),
    "fewer voxels than bytes": (b"DimSize = 9 8 7", b"DimSize = 9 7 7", "E_MHA_SHAPE"),
    "no numbers": (b"DimSize = 9 8 7", b"DimSize = nine", "E_MHA_HEADER"),
    "unknown type": (b"MET_SHORT", b"MET_STRING", "E_MHA_DTYPE"),
    "no data file": (b"ElementDataFile = LOCAL", b"Nothing = LOCAL", "E_MHA_HEADER"),
    "data file outside": (b"= LOCAL", b"= ../../../etc/passwd", "E_PATH_ESCAPE"),
    "absolute data file": (b"= LOCAL", b"= /etc/passwd", "E_PATH_ESCAPE"),
    "NUL in a name": (b"= LOCAL", b"= a\0b", "E_MHA_HEADER"),
    "many data files": (b"= LOCAL", b"= LIST", "E_MHA_HEADER"),
    "lost data file": (b"= LOCAL", b"= lost.raw", "E_PAIR_MISSING"),
    "key twice": (b"DimSize", b"DimSize = 9 8 7\nDimSize", "E_MHA_HEADER"),
}
NRRD = {
    "no space": (b"space: left-posterior-superior\n", b"", "E_NRRD_NOFORM"),
    "scanner space": (b"left-posterior-superior", b"scanner-xyz", "E_NRRD_NOFORM"),
    "no origin": (b"space origin", b"nothing", "E_NRRD_NOFORM"),
    "NaN origin": (b"origin: (31.5", b"origin: (nan", "E_NRRD_AFFINE"),
    "four axes": (b"sizes: 9 8 7", b"sizes: 9 8 7 2", "E_NRRD_HEADER"),
    "huge": (b"sizes: 9 8 7", b"sizes: 30000 30000 30000", "E_NRRD_TOO_BIG"),
    "more voxels than bytes": (b"sizes: 9 8 7", b"sizes: 9 8 8", "E_NRRD_TRUNCATED"),
    "fewer voxels than bytes": (b"sizes: 9 8 7", b"sizes: 9 7 7", "E_NRRD_SHAPE"),
    "unknown type": (b"type: short", b"type: block", "E_NRRD_DTYPE"),
    "text voxels": (b"encoding: raw", b"encoding: ascii", "E_NRRD_ENCODING"),
    "skipped bytes": (b"encoding: raw", b"byte skip: 3\nencoding: raw", "E_NRRD_ENCODING"),
    "data file outside": (b"encoding: raw", b"data file: ../x\nencoding: raw", "E_PATH_ESCAPE"),
    "field twice": (b"sizes: 9 8 7", b"sizes: 9 8 7\nsizes: 9 8 7", "E_NRRD_HEADER"),
    "zipped and damaged": (b"encoding: raw", b"encoding: gzip", "E_NRRD_CRC"),
}


@pytest.mark.parametrize("fault", MHA)
def test_a_doubtful_metaimage_is_refused(fault: str, tmp_path: Path) -> None:
    old, new, code = MHA[fault]
    sitk.WriteImage(itk_image(0), tmp_path / "a.mha")
    edited(tmp_path / "a.mha", old, new)
    with pytest.raises(Refused) as caught:
        read_ct(tmp_path / "a.mha")
    assert caught.value.code == code


@pytest.mark.parametrize("fault", NRRD)
def test_a_doubtful_nrrd_is_refused(fault: str, tmp_path: Path) -> None:
    old, new, code = NRRD[fault]
    sitk.WriteImage(itk_image(0), tmp_path / "a.nrrd")
    edited(tmp_path / "a.nrrd", old, new)
    with pytest.raises(Refused) as caught:
        read_ct(tmp_path / "a.nrrd")
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_compressed_voxels_are_checked_to_their_end(name: str, tmp_path: Path) -> None:
    sitk.WriteImage(itk_image(0), tmp_path / name, True)
    whole = (tmp_path / name).read_bytes()
    for damaged in (whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:], whole[:-2]):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(Refused, match="_CRC"):
            read_ct(tmp_path / name)


@pytest.mark.parametrize(("size", "code"), [(b"9 7 7", "SHAPE"), (b"9 8 8", "TRUNCATED")])
def test_deflated_voxels_must_fill_the_shape(size: bytes, code: str, tmp_path: Path) -> None:
    sitk.WriteImage(itk_image(0), tmp_path / "a.mha", True)
    edited(tmp_path / "a.mha", b"DimSize = 9 8 7", b"DimSize = " + size)
    with pytest.raises(Refused, match=f"E_MHA_{code}"):
        read_ct(tmp_path / "a.mha")


def random_edit(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes of the first lines changed, cut or added."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(min(500, len(changed))))
        new = bytes(rng.choice(list(b"0123456789 .-:=(),\nabn\0\xff"), rng.integers(0, 4)))
        changed[at : at + int(rng.integers(0, 4))] = new
    return bytes(changed)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
@pytest.mark.parametrize("compressed", [False, True])
def test_any_header_text_gives_a_grid_or_a_code(
    name: str, compressed: bool, tmp_path: Path
) -> None:
    sitk.WriteImage(itk_image(0), tmp_path / name, compressed)
    whole = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(2)
    outcomes = set()
    for _ in range(400):
        (tmp_path / name).write_bytes(random_edit(whole, rng))
        try:
            raw = read_raw(tmp_path / name)
        except Refused as refused:
            outcomes.add(refused.code)
        else:
            outcomes.add("read")
            spacing = np.linalg.norm(raw.affine[:3, :3], axis=0)
            assert ((spacing >= 0.2) & (spacing <= 20)).all()
    assert len(outcomes) > 4


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nii"])
def test_a_download_page_under_the_name_of_a_volume_is_called_that(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"<html><body>please log in</body></html>")
    with pytest.raises(Refused, match="HTML"):
        read_ct(tmp_path / name)


@pytest.mark.real_data
def test_the_real_scans_are_all_believed_and_lie_where_itk_puts_them(real_data: Path) -> None:
    files = sorted((real_data / "ct").glob("*.nii.gz"))
    assert len(files) == 6
    for file in files:
        raw = read_raw(file)
        np.testing.assert_allclose(raw.affine, itk_affine(sitk.ReadImage(file)), atol=1e-3)
        assert read_ct(file).volume.array_XYZ.shape == raw.array_XYZ.shape

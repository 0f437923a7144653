"""A DICOM series becomes the volume another reader sees, or is refused by name and cause."""

import copy
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.uid import (
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

from synth_ct.kit.volume import AIR_HU, Volume, spacing_mm, to_ras
from synth_ct.sources.dicom import padding_mask, read_series

MakeSeries = Callable[..., list[Dataset]]
WriteSeries = Callable[..., list[Path]]


def stored(image: Dataset) -> np.ndarray:
    return np.frombuffer(image.PixelData, np.int16).reshape(32, 32).copy()


def by_simpleitk(folder: Path) -> Volume:
    """The same series through another library, turned from LPS to RAS."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    array = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0).astype(np.float32)
    return to_ras(Volume(array, np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps))


def oblique(slices: list[Dataset]) -> None:
    """The whole stack turned by 20 degrees about the patient's x axis: no shear."""
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    for k, image in enumerate(slices):
        image.ImageOrientationPatient = [1, 0, 0, 0, c, s]
        image.ImagePositionPatient = [1.0, 2.0 - 2.5 * k * s, 3.0 + 2.5 * k * c]


def coronal(slices: list[Dataset]) -> None:
    for k, image in enumerate(slices):
        image.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        image.ImagePositionPatient = [1.0, 2.0 + 2.5 * k, 3.0]


def reversed_numbers(slices: list[Dataset]) -> None:
    for image in slices:
        image.InstanceNumber = 100 - image.InstanceNumber


def feet_first(slices: list[Dataset]) -> None:
    for image in slices:
        image.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def unsigned(slices: list[Dataset]) -> None:
    for image in slices:
        image.PixelRepresentation = 0


def slope_two(slices: list[Dataset]) -> None:
    for image in slices:
        image.RescaleSlope, image.RescaleIntercept = 2, -1024
        image.PixelData = (stored(image) // 2).tobytes()


def twelve_bits(slices: list[Dataset]) -> None:
    for image in slices:
        image.BitsStored, image.HighBit = 12, 11


def jpeg2000(slices: list[Dataset]) -> None:
    for image in slices:
        image.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg")


def run_length(slices: list[Dataset]) -> None:
    for image in slices:
        image.compress(RLELossless, encoding_plugin="pydicom")


def jpeg_lossless(slices: list[Dataset]) -> None:
    """Encoded by another library, as most archives do it."""
    with TemporaryDirectory() as folder:
        for image in slices:
            writer = SimpleITK.ImageFileWriter()
            writer.SetFileName(f"{folder}/one.dcm")
            writer.UseCompressionOn()
            writer.SetCompressor("JPEG")
            writer.Execute(SimpleITK.GetImageFromArray(stored(image)[None]))
            packed = pydicom.dcmread(f"{folder}/one.dcm")
            assert packed.file_meta.TransferSyntaxUID == JPEGLosslessSV1
            image.file_meta.TransferSyntaxUID = JPEGLosslessSV1
            image.PixelData = packed.PixelData
            image["PixelData"].is_undefined_length = True


def implicit(slices: list[Dataset]) -> None:
    for image in slices:
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def untouched(slices: list[Dataset]) -> None:
    pass


@pytest.mark.parametrize(
    "change",
    [untouched, oblique, coronal, reversed_numbers, feet_first, unsigned, slope_two, twelve_bits,
     jpeg2000, jpeg_lossless, run_length, implicit],
)  # fmt: skip
def test_geometry_and_values_equal_those_of_simpleitk(
    tmp_path: Path,
    make_series: MakeSeries,
    write_series: WriteSeries,
    change: Callable[[list[Dataset]], None],
) -> None:
    slices = make_series()
    change(slices)
    ours, _, _ = read_series(write_series(slices, tmp_path))
    other = by_simpleitk(tmp_path)
    np.testing.assert_allclose(ours.affine, other.affine, atol=1e-4)
    np.testing.assert_array_equal(ours.array_XYZ, np.clip(other.array_XYZ, AIR_HU, None))


def test_file_names_and_instance_numbers_change_nothing(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries, rng: np.random.Generator
) -> None:
    files = write_series(make_series(), tmp_path / "a")
    shuffled = make_series()
    rng.shuffle(shuffled)  # type: ignore[arg-type]
    other = write_series(shuffled, tmp_path / "b")
    first, again = read_series(files), read_series(other)
    assert first[0].array_XYZ.tobytes() == again[0].array_XYZ.tobytes()
    np.testing.assert_array_equal(first[0].affine, again[0].affine)
    assert first[1:] == again[1:]
    reversed_numbers(shuffled)
    turned = read_series(write_series(shuffled, tmp_path / "b"))
    assert turned[0].array_XYZ.tobytes() == first[0].array_XYZ.tobytes()
    assert turned[2] != first[2]


@pytest.mark.parametrize(("signed", "bits"), [(1, 16), (0, 16), (0, 12)])
def test_padding_becomes_air_whatever_its_sign_or_bits(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries, signed: int, bits: int
) -> None:
    slices = make_series()
    for image in slices:
        pixels = stored(image)
        pixels[:4] = -2000
        image.PixelData = pixels.tobytes()
        image.PixelRepresentation, image.BitsStored, image.HighBit = signed, bits, bits - 1
        image.add_new("PixelPaddingValue", "US", 63536)
    volume, notes, _ = read_series(write_series(slices, tmp_path))
    assert (volume.array_XYZ[:, -4:] == AIR_HU).all()
    assert volume.array_XYZ.max() < 500
    assert "padding_to_air" in notes


def test_undeclared_padding_below_air_becomes_air_and_is_noted(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    slices = make_series()
    for image in slices:
        pixels = stored(image)
        pixels[:4] = -2000
        image.PixelData = pixels.tobytes()
    volume, notes, _ = read_series(write_series(slices, tmp_path))
    assert (volume.array_XYZ[:, -4:] == AIR_HU).all()
    assert notes == ("padding_to_air",)


@pytest.mark.real_data
def test_a_real_ct_written_as_dicom_comes_back_voxel_for_voxel(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries, real_data: Path
) -> None:
    image = nib.load(next((real_data / "ct").glob("LIDC-IDRI-0001*")))
    source = to_ras(Volume(np.asarray(image.dataobj).astype(np.int16), image.affine))
    x, y, z = spacing_mm(source.affine)
    lps = source.array_XYZ[::-1, ::-1]  # columns count up to the left, rows to the back
    corner = source.affine @ [lps.shape[0] - 1, lps.shape[1] - 1, 0, 1]
    slices = []
    for k in range(lps.shape[2]):
        one = copy.deepcopy(make_series()[0])
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{k}"
        one.Columns, one.Rows = lps.shape[:2]
        one.PixelSpacing = [y, x]
        place = [-corner[0], -corner[1], corner[2] + k * z]
        one.ImagePositionPatient = [round(mm, 4) for mm in place]
        one.PixelData = (lps[:, :, k].T + 1024).astype(np.int16).tobytes()
        slices.append(one)
    volume, notes, _ = read_series(write_series(slices, tmp_path))
    np.testing.assert_array_equal(volume.array_XYZ, source.array_XYZ)
    np.testing.assert_allclose(volume.affine, source.affine, atol=1e-3)
    assert notes == ()


def test_padding_is_a_value_or_a_range_in_either_sign() -> None:
    stored = np.array([[-2000, -1999, -1500], [-1000, 0, 40]], np.int16)
    assert padding_mask(stored, (63536,)).sum() == 1
    assert padding_mask(stored, (-2000, 64036)).sum() == 3
    assert not padding_mask(stored, ()).any()

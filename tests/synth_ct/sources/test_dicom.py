"""A DICOM series becomes the volume another reader sees, or is refused by name and cause."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

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
    SecondaryCaptureImageStorage,
)

from synth_ct.kit.quarantine import Refused
from synth_ct.kit.volume import AIR_HU, Volume, to_ras
from synth_ct.sources.dicom import read_series, series_in

MakeSeries = Callable[..., list[Dataset]]
WriteSeries = Callable[..., list[Path]]


def stored(image: Dataset) -> np.ndarray:
    return np.frombuffer(image.PixelData, np.int16).reshape(32, 32).copy()


def positions(slices: list[Dataset], millimetres: list[float]) -> list[Dataset]:
    for image, z in zip(slices, millimetres, strict=True):
        image.ImagePositionPatient = [-20.5, -30.25, z]
    return slices


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


# ---- good series ---------------------------------------------------------------------------------


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


# ---- spoilt series -------------------------------------------------------------------------------


def without(*gone: int) -> Callable[[list[Dataset]], None]:
    def change(slices: list[Dataset]) -> None:
        for k in sorted(gone, reverse=True):
            del slices[k]

    return change


def variable(slices: list[Dataset]) -> None:
    positions(slices, [2.5 * k + max(0, k - 6) * 2.5 for k in range(len(slices))])


def slightly_uneven(slices: list[Dataset]) -> None:
    slices[4].ImagePositionPatient[2] += 0.4


def in_metres(slices: list[Dataset]) -> None:
    positions(slices, [0.0025 * k + 0.02 * k for k in range(len(slices))])


def tilted(slices: list[Dataset]) -> None:
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    for image in slices:
        image.ImageOrientationPatient = [1, 0, 0, 0, c, s]


def shifted(slices: list[Dataset]) -> None:
    for image in slices[7:]:
        image.ImagePositionPatient[0] += 4


def set_on(*ks: int, **values: object) -> Callable[[list[Dataset]], None]:
    def change(slices: list[Dataset]) -> None:
        for k in ks or range(len(slices)):
            for tag, value in values.items():
                setattr(slices[k], tag, value)

    return change


def delete_on(tag: str, *ks: int) -> Callable[[list[Dataset]], None]:
    def change(slices: list[Dataset]) -> None:
        for k in ks or range(len(slices)):
            delattr(slices[k], tag)

    return change


def twice_the_same_place(slices: list[Dataset]) -> None:
    slices[6].ImagePositionPatient = slices[5].ImagePositionPatient


def another_size(slices: list[Dataset]) -> None:
    slices[3].Rows = 16
    slices[3].PixelData = slices[3].PixelData[: 16 * 32 * 2]


def padding_in_tissue(slices: list[Dataset]) -> None:
    set_on(PixelPaddingValue=1024 + 40)(slices)


def bits_above(slices: list[Dataset]) -> None:
    unsigned(slices)
    twelve_bits(slices)
    pixels = stored(slices[2])
    pixels[0, 0] = 0x7000
    slices[2].PixelData = pixels.tobytes()


def cut_pixels(slices: list[Dataset]) -> None:
    slices[9].PixelData = slices[9].PixelData[:-300]


def several_frames(slices: list[Dataset]) -> None:
    slices[1].NumberOfFrames = 2
    slices[1].PixelData = slices[1].PixelData * 2


def undecodable(slices: list[Dataset]) -> None:
    run_length(slices)
    for image in slices:
        image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG2


def intercept_twice(slices: list[Dataset]) -> None:
    set_on(RescaleIntercept=-2048)(slices)


SPOILT = [
    (without(4, 5), "E_DCM_GAP", ["2 slices are missing", "107.50", "115.00"]),
    (without(3, 8), "E_DCM_GAP", ["2 slices are missing", "105.00", "117.50", "122.50"]),
    (variable, "E_DCM_SPACING", ["2.50 to 5.00 mm"]),
    (slightly_uneven, "E_DCM_SPACING", ["004.dcm", "0.40 mm"]),
    (in_metres, "E_DCM_SPACING", ["unit"]),
    (tilted, "E_DCM_TILT", ["20.0 degrees"]),
    (shifted, "E_DCM_SHIFT", ["15.00 and 17.50"]),
    (delete_on("RescaleSlope"), "E_DCM_RESCALE", ["12 of 12"]),
    (delete_on("RescaleIntercept", 2), "E_DCM_RESCALE", ["1 of 12", "002.dcm"]),
    (set_on(1, RescaleSlope=0), "E_DCM_RESCALE", ["001.dcm"]),
    (set_on(RescaleType="OD"), "E_DCM_RESCALE", ["12 of 12"]),
    (set_on(4, 9, RescaleIntercept=0), "E_DCM_MIXED_RESCALE", ["2 of 12", "004.dcm, 009.dcm"]),
    (twice_the_same_place, "E_DCM_DUPLICATE_SLICE", ["005.dcm = 006.dcm", "112.50"]),
    (delete_on("ImagePositionPatient", 0, 7), "E_DCM_NO_POSITION", ["000.dcm, 007.dcm"]),
    (delete_on("ImageOrientationPatient", 5), "E_DCM_ORIENTATION", ["005.dcm"]),
    (set_on(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "E_DCM_ORIENTATION", ["12 of 12"]),
    (set_on(3, ImageOrientationPatient=[1, 0, 0, 0, -1, 0]), "E_DCM_ORIENTATION", ["003.dcm"]),
    (delete_on("PixelSpacing", 1), "E_DCM_PIXEL_SPACING", ["001.dcm"]),
    (set_on(PixelSpacing=[0, 0]), "E_DCM_PIXEL_SPACING", ["12 of 12"]),
    (set_on(8, PixelSpacing=[1.25, 1.6]), "E_DCM_PIXEL_SPACING", ["008.dcm"]),
    (cut_pixels, "E_DCM_TRUNCATED", ["1 of 12", "009.dcm"]),
    (several_frames, "E_DCM_TRUNCATED", ["001.dcm"]),
    (undecodable, "E_DCM_COMPRESSION", ["MPEG2"]),
    (set_on(2, PhotometricInterpretation="MONOCHROME1"), "E_DCM_PHOTOMETRIC", ["002.dcm"]),
    (another_size, "E_DCM_SIZE", ["003.dcm", "32x32"]),
    (padding_in_tissue, "E_DCM_PADDING", [".dcm"]),
    (bits_above, "E_DCM_BITS", ["002.dcm"]),
    (without(*range(2, 12)), "E_DCM_TOO_FEW", ["000.dcm, 001.dcm"]),
    (intercept_twice, "E_HU_RANGE", ["twice"]),
    (set_on(RescaleIntercept=0), "E_HU_RANGE", ["intercept"]),
]


@pytest.mark.parametrize(("change", "code", "says"), SPOILT)
def test_a_spoilt_series_is_refused_with_code_cause_and_files(
    tmp_path: Path,
    make_series: MakeSeries,
    write_series: WriteSeries,
    change: Callable[[list[Dataset]], None],
    code: str,
    says: list[str],
) -> None:
    slices = make_series()
    change(slices)
    files = write_series(slices, tmp_path)
    with pytest.raises(Refused) as refused:
        read_series(files)
    assert refused.value.code == code
    assert refused.value.remedy
    assert [words for words in says if words not in str(refused.value)] == []


def test_padding_nobody_declared_is_not_taken_for_bright_bone(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    slices = make_series()
    unsigned(slices)
    for image in slices:
        pixels = stored(image)
        pixels[:4] = -2000  # 63536 as the unsigned word it is now
        image.PixelData = pixels.tobytes()
    with pytest.raises(Refused, match=r"E_DCM_PADDING.*above 3071"):
        read_series(write_series(slices, tmp_path))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("change", [untouched, jpeg2000, run_length])
def test_a_slice_cut_anywhere_is_named(
    tmp_path: Path,
    make_series: MakeSeries,
    write_series: WriteSeries,
    change: Callable[[list[Dataset]], None],
    share: float,
) -> None:
    slices = make_series()
    change(slices)
    files = write_series(slices, tmp_path)
    whole = files[4].read_bytes()
    files[4].write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(Refused, match=r"E_DCM_TRUNCATED: 1 of 12.*004\.dcm"):
        read_series(files)


# ---- folders -------------------------------------------------------------------------------------


def test_two_series_in_one_folder_are_two_candidates(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    write_series(make_series("1.2.3"), tmp_path, "a")
    write_series(make_series("1.2.4", spacing=1.25), tmp_path, "b")
    found = series_in(tmp_path)
    assert [(s.uid, len(s.files)) for s in found.series] == [("1.2.3", 12), ("1.2.4", 12)]
    assert found.set_aside == ()


def test_a_series_spread_over_folders_is_one_and_its_copy_another(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    slices = make_series()
    write_series(slices[:7], tmp_path / "disk" / "a")
    write_series(slices[7:], tmp_path / "disk" / "b")
    assert [len(s.files) for s in series_in(tmp_path).series] == [12]
    write_series(slices, tmp_path / "copy")
    parts = [len(s.files) for s in series_in(tmp_path).series]
    assert parts[0] == 12
    assert sum(parts) == 24


def test_what_is_no_slice_is_set_aside_and_what_is_no_ct_is_counted(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    write_series(make_series(), tmp_path, "ct")
    scout = make_series("1.2.5")[:2]
    set_on(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])(scout)
    write_series(scout, tmp_path, "scout")
    screen = make_series("1.2.6")[:1]
    set_on(SOPClassUID=SecondaryCaptureImageStorage)(screen)
    write_series(screen, tmp_path, "screen")
    mip = make_series("1.2.7")[:1]
    set_on(ImageType=["DERIVED", "SECONDARY", "MIP"])(mip)
    write_series(mip, tmp_path, "mip")
    film = make_series("1.2.8")[:1]
    set_on(Modality="DX")(film)
    write_series(film, tmp_path, "film")
    (tmp_path / "notes.xml").write_text("<xml/>")
    (tmp_path / "html.dcm").write_text("<html>404</html>")
    (tmp_path / "empty.dcm").touch()
    found = series_in(tmp_path)
    assert [s.uid for s in found.series] == ["1.2.3"]
    assert {row.code: row.file for row in found.set_aside if row.code != "E_DCM_NOTDICOM"} == {
        "E_DCM_LOCALIZER": "scout000.dcm",
        "E_DCM_SECONDARY": "screen000.dcm",
        "E_DCM_PROJECTION": "mip000.dcm",
    }
    unread = [row.file for row in found.set_aside if row.code == "E_DCM_NOTDICOM"]
    assert unread == ["empty.dcm", "html.dcm"]
    assert found.ignored == {"DX": 1}


def test_localisers_inside_a_series_do_not_spoil_it(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    slices = make_series()
    set_on(0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])(slices)
    write_series(slices, tmp_path)
    found = series_in(tmp_path)
    assert [len(s.files) for s in found.series] == [11]
    assert [row.code for row in found.set_aside] == ["E_DCM_LOCALIZER"]


def test_dicom_is_known_by_content_and_a_directory_record_is_no_image(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    for path in write_series(make_series(), tmp_path):
        path.rename(path.with_suffix(".png" if path.stem < "006" else ""))
    record = make_series("1.2.9")[0]
    record.file_meta.MediaStorageSOPClassUID = record.SOPClassUID = "1.2.840.10008.1.3.10"
    record.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    found = series_in(tmp_path)
    assert [len(s.files) for s in found.series] == [12]
    assert found.set_aside == ()


def test_links_that_leave_the_folder_are_not_followed(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    files = write_series(make_series(), inside / "a")
    secret = write_series(make_series("9.9.9"), outside)
    (inside / "folder").symlink_to(outside)
    (inside / "file.dcm").symlink_to(secret[0])
    (inside / "loop").symlink_to(inside)
    (inside / "twin.dcm").symlink_to(files[0])
    found = series_in(inside)
    assert [s.uid for s in found.series] == ["1.2.3"]
    assert [len(s.files) for s in found.series] == [12]
    assert [(r.code, r.file) for r in found.set_aside] == [
        ("E_PATH_ESCAPE", "file.dcm"),
        ("E_PATH_ESCAPE", "folder"),
    ]


def test_a_header_that_cannot_be_parsed_is_one_row_and_the_rest_goes_on(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries, rng: np.random.Generator
) -> None:
    write_series(make_series(), tmp_path / "good")
    (whole_file, *_) = write_series(make_series("7.7.7"), tmp_path / "other")
    whole = whole_file.read_bytes()
    shutil.rmtree(tmp_path / "other")
    (tmp_path / "bad").mkdir()
    for k in range(60):
        data = bytearray(whole[: int(rng.integers(133, 700))] if k % 2 else whole)
        for at in rng.integers(132, min(len(data), 900), 8):
            data[at] = int(rng.integers(256))
        (tmp_path / "bad" / f"{k}.dcm").write_bytes(bytes(data))
    with socket.socket(socket.AF_UNIX) as pipe:
        pipe.bind(str(tmp_path / "bad" / "s.sock"))
        found = series_in(tmp_path)
    assert [len(s.files) for s in found.series if s.uid == "1.2.3"] == [12]
    assert {row.code for row in found.set_aside} >= {"E_DCM_HEADER"}
    for series in found.series:
        if series.uid != "1.2.3":
            with pytest.raises(Refused):
                read_series(series.files)


def test_names_that_cannot_be_printed_are_escaped(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    strange = tmp_path / b"a\xff\n=cmd()".decode("utf-8", "surrogateescape")
    write_series(make_series(), strange)
    (series,) = series_in(tmp_path).series
    assert series.name == "a\\udcff\\n=cmd()/000.dcm"
    assert read_series(series.files)[0].array_XYZ.shape == (32, 32, 12)

"""Every way in which a series can lie gets its code, its cause and the files at fault."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, RLELossless

from synth_ct.kit.quarantine import Refused
from synth_ct.sources.dicom import read_series

MakeSeries = Callable[..., list[Dataset]]
WriteSeries = Callable[..., list[Path]]
Change = Callable[[list[Dataset]], None]


def stored(image: Dataset) -> np.ndarray:
    return np.frombuffer(image.PixelData, np.int16).reshape(32, 32).copy()


def positions(slices: list[Dataset], millimetres: list[float]) -> None:
    for image, z in zip(slices, millimetres, strict=True):
        image.ImagePositionPatient = [-20.5, -30.25, z]


def jpeg2000(slices: list[Dataset]) -> None:
    for image in slices:
        image.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg")


def run_length(slices: list[Dataset]) -> None:
    for image in slices:
        image.compress(RLELossless, encoding_plugin="pydicom")


def without(*gone: int) -> Change:
    def change(slices: list[Dataset]) -> None:
        for k in sorted(gone, reverse=True):
            del slices[k]

    return change


def variable(slices: list[Dataset]) -> None:
    positions(slices, [2.5 * k + max(0, k - 6) * 2.5 for k in range(len(slices))])


def untouched(slices: list[Dataset]) -> None:
    pass


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


def set_on(*ks: int, **values: object) -> Change:
    def change(slices: list[Dataset]) -> None:
        for k in ks or range(len(slices)):
            for tag, value in values.items():
                setattr(slices[k], tag, value)

    return change


def delete_on(tag: str, *ks: int) -> Change:
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
    set_on(PixelRepresentation=0, BitsStored=12, HighBit=11)(slices)
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
    change: Change,
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
    set_on(PixelRepresentation=0)(slices)
    for image in slices:
        pixels = stored(image)
        pixels[:4] = -2000  # 63536 as the unsigned word it is now
        image.PixelData = pixels.tobytes()
    with pytest.raises(Refused, match=r"E_DCM_PADDING.*above 3071"):
        read_series(write_series(slices, tmp_path))


def test_a_slice_that_names_two_transfer_syntaxes_is_refused(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    files = write_series(make_series(), tmp_path)
    two = files[3].read_bytes().replace(b"10008.1.2.1\0", b"10008.1.2\\1\0", 1)
    files[3].write_bytes(two)
    with pytest.raises(Refused, match=r"E_DCM_COMPRESSION.*003\.dcm"):
        read_series(files)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("change", [untouched, jpeg2000, run_length])
def test_a_slice_cut_anywhere_is_named(
    tmp_path: Path,
    make_series: MakeSeries,
    write_series: WriteSeries,
    change: Change,
    share: float,
) -> None:
    slices = make_series()
    change(slices)
    files = write_series(slices, tmp_path)
    whole = files[4].read_bytes()
    files[4].write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(Refused, match=r"E_DCM_TRUNCATED: 1 of 12.*004\.dcm"):
        read_series(files)

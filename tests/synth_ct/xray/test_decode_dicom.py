"""DICOM radiographs: polarity, depth and scale as the header says; everything else refused."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from scipy import ndimage

from synth_ct.kit.quarantine import Refused
from synth_ct.xray.decode import decode

SIZE = (80, 96)
SENTINEL = "Zaphod^Beeblebrox"


def smooth(most: int) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(0).random(SIZE), 6)
    return ((field - field.min()) / np.ptp(field) * most).astype(np.uint16)


def dicom(stored: np.ndarray, preamble: bool = True, **tags: Any) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["synth-ct"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    file.PatientName, file.PatientID, file.Modality = SENTINEL, SENTINEL, "DX"
    file.Rows, file.Columns = stored.shape[-2:]
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.BitsAllocated = file.BitsStored = stored.dtype.itemsize * 8
    file.HighBit = file.BitsStored - 1
    file.PhotometricInterpretation = "MONOCHROME2"
    file.PixelData = stored.tobytes()
    for name, value in tags.items():
        setattr(file, name, value)
    if "BitsStored" in tags:
        file.HighBit = file.BitsStored - 1
    out = io.BytesIO()
    if preamble:
        file.save_as(out, enforce_file_format=True)
    else:
        plain = Dataset()
        plain.update({e.tag: e for e in file})
        plain.save_as(out, implicit_vr=False, little_endian=True)
    return out.getvalue()


def read(tmp_path: Path, data: bytes, name: str = "x.dcm") -> Any:
    (tmp_path / name).write_bytes(data)
    return decode(tmp_path / name)


TWELVE = smooth(4095)


def test_values_and_bits_are_the_stored_ones(tmp_path: Path) -> None:
    film = read(tmp_path, dicom(TWELVE, BitsStored=12))
    assert (film.pixels_UV == TWELVE).all()
    assert (film.bits, film.inverted, film.notes) == (12, False, ())


def test_monochrome1_is_the_negative_of_monochrome2(tmp_path: Path) -> None:
    negative = TWELVE.max() + TWELVE.min() - TWELVE
    positive = read(tmp_path, dicom(TWELVE, BitsStored=12), "a.dcm")
    turned = read(
        tmp_path, dicom(negative, BitsStored=12, PhotometricInterpretation="MONOCHROME1"), "b.dcm"
    )
    assert (turned.pixels_UV == positive.pixels_UV).all()
    assert turned.inverted
    assert turned.notes == ("inverted",)


def test_rescale_is_applied(tmp_path: Path) -> None:
    film = read(tmp_path, dicom(TWELVE, BitsStored=12, RescaleSlope=2, RescaleIntercept=-100))
    assert (film.pixels_UV == TWELVE * 2.0 - 100).all()


def test_bits_above_those_stored_are_masked(tmp_path: Path) -> None:
    film = read(tmp_path, dicom(TWELVE | 0x8000, BitsStored=12))
    assert (film.pixels_UV == TWELVE).all()


def test_padding_becomes_the_darkest_value(tmp_path: Path) -> None:
    padded = TWELVE.copy()
    padded[:5] = 4095
    padded[5:][padded[5:] == 4095] = 4094
    film = read(tmp_path, dicom(padded, BitsStored=12, PixelPaddingValue=4095))
    assert (film.pixels_UV[:5] == padded[5:].min()).all()
    assert film.notes == ("padded",)


@pytest.mark.parametrize(
    ("tags", "scale", "notes"),
    [
        ({"PixelSpacing": [0.2, 0.3]}, (0.2, 0.3), ()),
        ({"ImagerPixelSpacing": [0.15, 0.15]}, (0.15, 0.15), ("detector_scale",)),
        ({"PixelSpacing": [0, 0]}, None, ()),
        ({}, None, ()),
    ],
)
def test_the_scale_is_taken_where_the_header_gives_one(
    tmp_path: Path, tags: dict[str, Any], scale: Any, notes: tuple[str, ...]
) -> None:
    film = read(tmp_path, dicom(TWELVE, BitsStored=12, **tags))
    assert (film.pixel_spacing_mm, film.notes) == (scale, notes)


@pytest.mark.parametrize("name", ["x.png", "x", "x.dcm"])
@pytest.mark.parametrize("preamble", [True, False])
def test_dicom_is_known_by_content_under_any_name(
    tmp_path: Path, name: str, preamble: bool
) -> None:
    film = read(tmp_path, dicom(TWELVE, preamble, BitsStored=12), name)
    assert (film.pixels_UV == TWELVE).all()
    assert film.notes == (("misnamed",) if name == "x.png" else ())


def test_burned_in_text_is_noted(tmp_path: Path) -> None:
    assert read(tmp_path, dicom(TWELVE, BurnedInAnnotation="YES")).notes == ("burned_in",)


BAD: list[tuple[str, Callable[[], bytes], str]] = [
    ("lateral", lambda: dicom(TWELVE, ViewPosition="LL"), "E_IMG_VIEW"),
    ("frames", lambda: dicom(np.stack([TWELVE] * 2), NumberOfFrames=2), "E_IMG_MULTIFRAME"),
    ("a CT slice", lambda: dicom(TWELVE, Modality="CT"), "E_IMG_FORMAT"),
    ("colour", lambda: dicom(TWELVE, PhotometricInterpretation="RGB"), "E_IMG_FORMAT"),
    ("four bits", lambda: dicom(TWELVE, BitsStored=4), "E_IMG_DEPTH"),
    ("huge", lambda: dicom(TWELVE, Rows=30_000, Columns=30_000), "E_IMG_TOO_BIG"),
    ("tiny", lambda: dicom(TWELVE[:20, :20]), "E_IMG_TOO_SMALL"),
    ("strip", lambda: dicom(TWELVE, Rows=64, Columns=300), "E_IMG_ASPECT"),
    ("short data", lambda: dicom(TWELVE, PixelData=bytes(1000)), "E_IMG_TRUNCATED"),
    ("constant", lambda: dicom(TWELVE * 0), "E_IMG_CONSTANT"),
    ("cut file", lambda: dicom(TWELVE)[:-500], "E_IMG_TRUNCATED"),
    ("cut header", lambda: dicom(TWELVE)[:300], "E_IMG_NOTIMAGE"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "code"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_dicom_file_is_refused_with_its_code(
    tmp_path: Path, make: Callable[[], bytes], code: str
) -> None:
    with pytest.raises(Refused) as refused:
        read(tmp_path, make())
    assert refused.value.code == code
    assert SENTINEL not in str(refused.value)


def test_a_report_without_pixels_is_no_image(tmp_path: Path) -> None:
    data = dicom(TWELVE)
    at = data.index(b"\x28\x00\x10\x00")
    with pytest.raises(Refused, match="E_IMG_NOTIMAGE"):
        read(tmp_path, data[:at])


def test_any_damaged_header_is_read_or_refused_and_names_nobody(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    tags = {"NumberOfFrames": 1, "PixelPaddingValue": 0, "PixelSpacing": [0.2, 0.2]}
    whole = dicom(TWELVE, BitsStored=12, RescaleSlope=2, RescaleIntercept=-3, **tags)
    refusals = []
    for _ in range(400):
        data = bytearray(whole)
        for at in rng.integers(128, len(whole) - TWELVE.nbytes, 3):
            data[at] = rng.choice([0, 1, 44, 92, 255, rng.integers(256)])
        try:
            assert np.isfinite(read(tmp_path, bytes(data)).pixels_UV).all()
        except Refused as refused:
            refusals.append(str(refused))
    assert {text.split(":")[0] for text in refusals} >= {"E_IMG_NOTIMAGE", "E_IMG_TRUNCATED"}
    assert not any(SENTINEL in text for text in refusals)

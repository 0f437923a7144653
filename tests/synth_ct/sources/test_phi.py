"""What names a person stays in the source folder: every byte of a cohort is searched for it.

Only the two local files, which are never exported, may hold paths.
"""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from synth_ct.cohort.case import Importer
from synth_ct.cohort.gather import ingest
from synth_ct.kit.artifact import LOCAL_FILES
from synth_ct.kit.effort import Effort
from synth_ct.kit.quiet import quiet_pydicom
from synth_ct.sources import folder, lidc, radiographs

MakeSeries = Callable[..., list[Dataset]]
WriteSeries = Callable[..., list[Path]]

IN_DICOM = {
    "PatientName": "Zqdoe^Janeone",
    "PatientID": "ZQID002",
    "OtherPatientIDs": "ZQID003",
    "PatientBirthDate": "19040404",
    "PatientAddress": "Zqstreet 5",
    "PatientTelephoneNumbers": "555000666006",
    "PatientComments": "Zqcomment seven",
    "AccessionNumber": "ZQACC008",
    "InstitutionName": "Zqhospital Nine",
    "InstitutionAddress": "Zqtown 10",
    "ReferringPhysicianName": "Zqdoctor^Eleven",
    "OperatorsName": "Zqoperator^Twelve",
    "StudyDescription": "Zqstudy thirteen",
    "SeriesDescription": "Zqseries fourteen",
    "ImageComments": "Zqimage fifteen",
    "StudyID": "ZQSTUDY16",
    "StationName": "ZQSTATION17",
    "DeviceSerialNumber": "ZQSERIAL18",
    "StudyInstanceUID": "1.2.826.1919191919",
    "SeriesInstanceUID": "1.2.826.02020202020",
    "FrameOfReferenceUID": "1.2.826.2121212121",
    "SOPInstanceUID": "1.2.826.2222222222",
}
PRIVATE, NESTED, CHARACTERS = "Zqprivate 23", "Zqnested 24", "ZQCHARS25"
FOLDER, FILE, ABOVE = "Doe_Zqfolder_1970", "zqfile_27_", "zqparent_28"
IN_NIFTI = {
    "descrip": "Zqdescrip 29",
    "aux_file": "zqaux_30",
    "db_name": "zqdbname_31",
    "intent_name": "zqintent_32",
}
EXTENSION, NIFTI_FILE = "Zqextension 33", "zqnifti_34"
PNG_TEXT, PNG_LATIN, PNG_EXIF, JPEG_EXIF, JPEG_COMMENT = (
    "Zqtext 35", "Zqlatin 36", "Zqexif 37", "Zqartist 38", "Zqjpeg 39",
)  # fmt: skip
SENTINELS = (
    *IN_DICOM.values(), PRIVATE, NESTED, CHARACTERS, FOLDER, FILE, ABOVE,
    *IN_NIFTI.values(), EXTENSION, NIFTI_FILE,
    PNG_TEXT, PNG_LATIN, PNG_EXIF, JPEG_EXIF, JPEG_COMMENT,
)  # fmt: skip


def planted(slices: list[Dataset]) -> list[Dataset]:
    """Personal data in every slice; the odd UID and character set make readers warn of them."""
    for k, image in enumerate(slices):
        for tag, value in IN_DICOM.items():
            setattr(image, tag, f"{value}.{k}" if tag == "SOPInstanceUID" else value)
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.private_block(0x0099, "ZQ", create=True).add_new(1, "LO", PRIVATE)
        image.SpecificCharacterSet = CHARACTERS
        request = Dataset()
        request.RequestedProcedureDescription = NESTED
        image.RequestAttributesSequence = DicomSequence([request])
    return slices


def nifti(path: Path, array_XYZ: np.ndarray) -> None:
    image = nib.Nifti1Image(array_XYZ, np.diag([2.0, 2.0, 2.0, 1.0]))
    for field, value in IN_NIFTI.items():
        image.header[field] = value.encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", EXTENSION.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def films(folder: Path) -> None:
    """A PNG and a JPEG radiograph, their texts and EXIF full, and one of each cut off."""
    v, u = np.meshgrid(np.linspace(-1, 1, 160), np.linspace(-1, 1, 200))
    lungs = np.exp(-(((abs(v) - 0.45) / 0.25) ** 2) - (u / 0.6) ** 2)
    grain = np.random.default_rng(0).normal(0, 4, u.shape)
    image = Image.fromarray(np.clip(200 - 20 * u - 130 * lungs + grain, 0, 255).astype(np.uint8))
    texts = PngInfo()
    texts.add_itxt("Comment", PNG_TEXT)
    texts.add_text("Patient", PNG_LATIN)
    tags = Image.Exif()
    tags[ExifTags.Base.ImageDescription] = PNG_EXIF
    image.save(folder / f"{FILE}.png", pnginfo=texts, exif=tags)
    tags[ExifTags.Base.ImageDescription] = JPEG_EXIF
    image.rotate(2).save(folder / f"{FILE}.jpeg", exif=tags, comment=JPEG_COMMENT.encode())
    for whole in (folder / f"{FILE}.png", folder / f"{FILE}.jpeg"):
        data = whole.read_bytes()
        whole.with_stem(f"{FILE}_cut").write_bytes(data[: len(data) // 2])


def every_byte(out: Path) -> bytes:
    """All names and contents of a cohort but its local files, gzip opened."""
    pieces = []
    for path in sorted(out.rglob("*")):
        pieces.append(str(path.relative_to(out)).encode())
        if path.is_file() and path.name not in LOCAL_FILES:
            data = path.read_bytes()
            pieces += [data, gzip.decompress(data) if path.suffix == ".gz" else b""]
    return b"\n".join(pieces)


def found_in(haystack: bytes) -> list[str]:
    lower = haystack.lower()
    spellings = ("utf-8", "utf-16-le", "utf-16-be")
    return [s for s in SENTINELS if any(s.lower().encode(code) in lower for code in spellings)]


@pytest.fixture
def source(tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries) -> Path:
    top = tmp_path / ABOVE / "source"
    with quiet_pydicom():  # it would warn of the odd values as they are written
        good, broken = planted(make_series()), planted(make_series("1.2.4"))
        write_series(good, top / FOLDER / "a", FILE)
        for image in broken:
            image.SeriesInstanceUID = f"{image.SeriesInstanceUID}.1"
        write_series([*broken[:5], *broken[6:]], top / FOLDER / "b", FILE)
        film = planted(make_series("1.2.5"))[:1]
        film[0].Modality, film[0].SeriesInstanceUID = "ZQDOE", "1.2.5"
        write_series(film, top / FOLDER / "c", FILE)
    hu = np.frombuffer(b"".join(i.PixelData for i in good), np.int16).reshape(12, 32, 32) - 1024
    nifti(top / FOLDER / f"{NIFTI_FILE}.nii.gz", hu[:, ::-1].T.astype(np.int16))
    nifti(top / FOLDER / f"{NIFTI_FILE}_bad.nii.gz", np.zeros((8, 8, 8), np.int16))
    films(top / FOLDER)
    return top


@pytest.mark.parametrize(
    ("importer", "accepted"), [(lidc.IMPORTER, 1), (folder.IMPORTER, 2), (radiographs.IMPORTER, 2)]
)
def test_nothing_that_names_a_person_reaches_a_cohort_or_a_log(
    tmp_path: Path,
    source: Path,
    importer: Importer,
    accepted: int,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert len(SENTINELS) >= 30
    files = b"".join(p.read_bytes() for p in source.rglob("*") if p.is_file())
    packed = b"".join(gzip.decompress(p.read_bytes()) for p in source.rglob("*.gz"))
    names = b"".join(str(p).encode() for p in source.rglob("*"))
    assert found_in(files + packed + names) == list(SENTINELS)  # the search itself works

    with caplog.at_level("INFO"):
        summary = ingest(importer, source, tmp_path / "out", 0, Effort())
    assert summary.accepted == accepted
    assert summary.quarantined >= 1
    assert found_in(every_byte(tmp_path / "out")) == []
    printed = capfd.readouterr()
    assert found_in((printed.out + printed.err + caplog.text).encode()) == []

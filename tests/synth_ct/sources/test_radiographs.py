"""Any folder of radiographs: everything is accounted for, patients stay apart, no name leaks."""

import io
import json
import os
import unicodedata
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from synth_ct.cohort.case import Case, Found
from synth_ct.cohort.gather import ingest
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import Refused
from synth_ct.sources.radiographs import IMPORTER, divide, find, importer_with, read
from synth_ct.xray.frame import template

SENTINEL = "Zaphod Beeblebrox"


def film(seed: int = 0) -> np.ndarray:
    """A small film that looks like a chest; another seed, another film."""
    grown = np.kron(template()[0], np.ones((4, 4)))
    grown = (grown - grown.min()) / np.ptp(grown) * 240
    return (grown + np.random.default_rng(seed).integers(0, 12, grown.shape)).astype(np.uint8)


def write(path: Path, seed: int = 0, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(film(seed)).save(path, **how)
    return path


def write_dicom(path: Path, patient: str) -> Path:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.PatientName, header.PatientID, header.Modality = SENTINEL, patient, "CR"
    header.PatientBirthDate, header.InstitutionName = "19520311", SENTINEL
    header.Rows, header.Columns = film().shape
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelRepresentation, header.SamplesPerPixel = 7, 0, 1
    header.PhotometricInterpretation, header.PixelSpacing = "MONOCHROME2", [0.2, 0.2]
    header.PixelData = film(9).tobytes()
    header["PixelData"].VR = "OB"
    header.save_as(path, enforce_file_format=False)
    data = path.read_bytes()
    path.write_bytes(data if data[128:132] == b"DICM" else bytes(128) + b"DICM" + data)
    return path


def only(source: Path) -> Case:
    (item,) = find(source).found
    return read(item, source)


def patients(source: Path) -> dict[str, str]:
    return {item.name: item.patient for item in find(source).found}


def test_every_file_is_a_candidate_but_documents_and_litter(tmp_path: Path) -> None:
    write(tmp_path / "a" / "one.png")
    for name in ("README.md", "Data_Entry.csv", "Thumbs.db", ".DS_Store", "a/.hidden.png"):
        (tmp_path / name).write_text("x")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "one.png").write_text("x")
    (tmp_path / "page.html").write_text("<html></html>")
    assert {item.name for item in find(tmp_path).found} == {"a/one.png", "page.html"}


def test_a_link_that_leaves_the_folder_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "x.png")
    write(tmp_path / "source" / "y.png")
    (tmp_path / "source" / "link.png").symlink_to(outside)
    findings = find(tmp_path / "source")
    assert [item.name for item in findings.found] == ["y.png"]
    assert [(row.code, row.file) for row in findings.set_aside] == [("E_PATH_ESCAPE", "link.png")]


def test_total_is_accepted_and_quarantined_whatever_lies_there(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for seed in range(4):
        write(source / f"{seed}.png", seed)
    write(source / "copy.png", 0)
    write(source / "again.tif", 1)
    (source / "broken.jpeg").write_bytes(b"<html>")
    (source / "empty.png").touch()
    write(source / "view2_lateral.jpg", 7)
    summary = ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    assert summary.total == 9
    assert summary.accepted == 4
    assert summary.duplicates == 2
    report = json.loads((tmp_path / "out" / "quarantine.json").read_text())
    assert report["counts"] == {
        "duplicate": 2, "E_IMG_NOTIMAGE": 1, "E_IMG_EMPTY": 1, "E_IMG_VIEW": 1,
    }  # fmt: skip


def test_a_case_describes_the_film_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "x.png")
    case = only(tmp_path)
    assert case.shape == film().shape
    assert (case.file, case.spacing_mm) == ("", ())
    assert case.notes == ("patient_unknown",)
    assert case.file_sha256.startswith(case.id)


def test_a_dicom_film_keeps_its_scale_and_its_patient(tmp_path: Path) -> None:
    write_dicom(tmp_path / "x", "MRN-42")
    assert patients(tmp_path) == {"x": "MRN-42"}
    case = only(tmp_path)
    assert case.spacing_mm == (0.2, 0.2)
    assert case.notes == ()


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("images_001/00000013_005.png", "00000013"),
        ("train/patient00042/study1/view1_frontal.jpg", "patient00042"),
        ("files/p10/p10000032/s50414267/x.png", "p10000032"),
        ("NORMAL/scan-7.png", "NORMAL/scan-7.png"),
    ],
)
def test_known_archives_name_their_patients(tmp_path: Path, name: str, patient: str) -> None:
    write(tmp_path / name)
    assert patients(tmp_path) == {name: patient}


def test_strange_names_are_kept_apart_and_printable(tmp_path: Path) -> None:
    names = [
        unicodedata.normalize("NFC", "né.png"),
        unicodedata.normalize("NFD", "né.png"),
        "line\nbreak.png",
        "=cmd().png",
        "a,b.png",
        "\N{SKULL}.png",
    ]
    for seed, name in enumerate(names):
        write(tmp_path / "s" / name, seed)
    os.rename(write(tmp_path / "s" / "z.png", 99), os.fsencode(tmp_path / "s") + b"/\xff.png")
    summary = ingest(IMPORTER, tmp_path / "s", tmp_path / "out", 0, Effort())
    assert (summary.total, summary.accepted) == (7, 7)
    assert all(item.name.isprintable() for item in find(tmp_path / "s").found)


def test_nothing_that_names_a_person_reaches_a_case(tmp_path: Path) -> None:
    text, exif = PngInfo(), Image.Exif()
    text.add_text("Comment", SENTINEL)
    text.add_itxt("Patient", SENTINEL)
    for tag in (270, 305, 315, 33432):
        exif[tag] = SENTINEL
    exif.get_ifd(34853)[29] = SENTINEL
    source = tmp_path / "source"
    write(source / f"{SENTINEL}.png", 1, pnginfo=text, exif=exif)
    write(source / SENTINEL / "x.jpg", 2, exif=exif, comment=SENTINEL.encode())
    write(source / "y.tif", 3, description=SENTINEL, artist=SENTINEL)
    write_dicom(source / f"{SENTINEL}.dcm", SENTINEL)
    cases = [read(item, tmp_path) for item in find(source).found]
    assert len(cases) == 4
    for part in (*SENTINEL.split(), "19520311"):
        assert part not in json.dumps([asdict(case) for case in cases])
    ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    for name in ("cases.jsonl", "cohort.json", "record.json"):
        assert "Zaphod" not in (tmp_path / "out" / name).read_text()


def test_an_inverted_film_is_refused_by_the_importer(tmp_path: Path) -> None:
    Image.fromarray(255 - film()).save(tmp_path / "x.png")
    (item,) = find(tmp_path).found
    with pytest.raises(Refused, match="E_IMG_INVERTED"):
        read(item, tmp_path)


# ---- the table of patients ---------------------------------------------------------------------


def table(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "patients.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for seed in range(3):
        write(tmp_path / "s" / "images" / f"{seed}.png", seed)
    return tmp_path / "s"


def test_a_table_names_patients_splits_and_findings(tmp_path: Path, source: Path) -> None:
    text = "\ufefffile,patient,split,finding\r\nimages/0.png,ann,test,NORMAL\r\n1.png,bob,,\r\n"
    findings = importer_with(table(tmp_path, text)).find(source)
    first, second = findings.found
    assert (first.patient, first.split, first.finding) == ("ann", "test", "NORMAL")
    assert (second.patient, second.split) == ("bob", None)
    assert [(r.code, r.file) for r in findings.set_aside] == [("E_PAIR_MISSING", "images/2.png")]


@pytest.mark.parametrize(
    "text",
    [
        "Image Index,Finding Labels,Patient ID\n0.png,Mass,7\n1.png,Mass,7\n2.png,,8\n99.png,,9\n",
        "Path,Sex\nC/train/patient7/study1/images/0.png,F\n"
        "C/patient7/images/1.png,F\npatient8/images/2.png,F\n",
    ],
)
def test_nihs_and_chexperts_tables_are_understood(tmp_path: Path, source: Path, text: str) -> None:
    found = find(source, table(tmp_path, text)).found
    assert found[0].patient == found[1].patient != found[2].patient


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("file,person\n0.png,a\n", 1, "needs `file` and `patient`"),
        ("", 1, "nothing"),
        ("file,patient\n0.png,a\n0.png,a\n", 3, "after line 2"),
        ("file,patient\n0.png,a\nimages/0.png,b\n", 3, "after line 2"),
        ("file,patient\n0.png,a\n9.png,a\n", 3, "no file"),
        ("file,patient\n0.png,a\n../../etc/passwd,a\n", 3, "no file"),
        ("file,patient\n0.png,\n", 2, "empty"),
        ("file,patient,split\n0.png,a,dev\n", 2, "not train, val or test"),
        ("file,patient,split\n0.png,a,train\n1.png,a,test\n", 3, "at line 2"),
        ("file,patient\n0.png,a,b,c\n", 2, "more fields"),
        ("file,patient,file\n0.png,a,1.png\n", 1, "twice"),
        (b"file,patient\n0.png,\xff\n", 1, "UTF-8"),
        ('file,patient\n0.png,"a\n', 2, "no readable CSV"),
        ("file,patient\n0.png," + "a" * 200_000 + "\n", 2, "no readable CSV"),
    ],
)
def test_a_doubtful_table_is_an_error_with_its_line(
    tmp_path: Path, source: Path, text: str | bytes, line: int, says: str
) -> None:
    with pytest.raises(ValueError, match=rf"line {line}: .*{says}"):
        find(source, table(tmp_path, text))


def test_declared_splits_hold_and_the_rest_is_drawn() -> None:
    def items(patient: str, split: Any) -> list[Found]:
        return [Found(name=patient, files=(), patient=patient, split=split)]

    told = {f"t{i}": items(f"t{i}", "test") for i in range(3)}
    free = {f"f{i}": items(f"f{i}", None) for i in range(20)}
    splits = divide({**told, **free}, 0)
    assert all(splits[name] == "test" for name in told)
    assert sorted(splits[name] for name in free).count("train") == 16


def test_equal_bytes_under_any_name_have_one_id(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(film()).save(data, "PNG")
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(data.getvalue())
    one, other = (read(item, tmp_path) for item in find(tmp_path).found)
    assert one.id == other.id
    assert "misnamed" in other.notes

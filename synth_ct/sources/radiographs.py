"""Any folder of radiographs: PNG, JPEG, TIFF, DICOM, at any depth, under any name.

Who is whose patient decides whether a split leaks. In order of trust: a table given by `--patients`
(columns file,patient and optionally split,finding; NIH's Data_Entry_2017.csv and CheXpert's
train.csv are understood as they are), the PatientID of a DICOM header, names as NIH ChestX-ray14
(00000001_000.png), CheXpert (patient00001/study1/) and MIMIC-CXR (p10000032/) give them. A file
for which none of these speaks counts as a patient of its own and carries the note
`patient_unknown`: if one person has several such films, they may stand in different parts.

Radiographs are an index: their pixels stay where they are. Documents that travel with image
folders (.csv, .txt, .pdf, ...) and the litter of operating systems are passed over; everything
else must be a radiograph or is quarantined.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydicom import dcmread

from synth_ct.cohort.case import Case, Findings, Found, Importer, Split
from synth_ct.cohort.divide import eighty_ten_ten
from synth_ct.kit.durable import sha256_of_file
from synth_ct.kit.quarantine import SetAside
from synth_ct.kit.quiet import BROKEN_DICOM, quiet_pydicom
from synth_ct.sources.dicom_series import is_dicom
from synth_ct.sources.paths import name_below, source_folder, visible_files
from synth_ct.sources.patient_table import Row, read_table
from synth_ct.xray.pose import read_radiograph

DOCUMENTS = frozenset(
    {".csv", ".tsv", ".txt", ".md", ".rst", ".json", ".jsonl", ".xml", ".yml", ".yaml", ".toml"}
    | {".pdf", ".xls", ".xlsx", ".docx"}
)
LITTER = frozenset({"thumbs.db", "desktop.ini", "dicomdir"})
LITTER_FOLDERS = frozenset({"__MACOSX"})
PATIENT_NAMES = (
    re.compile(r"(?:^|/)(\d{8})_\d{3}\.\w+$"),
    re.compile(r"(?:^|/)(patient\d+)/"),
    re.compile(r"(?:^|/)(p\d{8})/"),
)
LATERAL_NAME = re.compile(r"(?:^|[/_.\s-])lateral(?:[/_.\s-]|$)", re.IGNORECASE)
NOT_IN_TABLE = "the table of patients does not name it, so its patient is unknown"


def find(source: Path, table: Path | None = None) -> Findings:
    """Every file that could be a radiograph, and whose it is."""
    root = source_folder(source)
    files, set_aside = candidates(root)
    set_aside += _laterals(root, files)
    named_lateral = {row.file for row in set_aside}
    files = [file for file in files if name_below(root, file) not in named_lateral]
    if table is None:
        return Findings(found=[_found(root, file) for file in files], set_aside=set_aside)
    rows = read_table(table, [str(file.relative_to(root)) for file in files])
    found, unnamed = [], []
    for file in files:
        row = rows.get(str(file.relative_to(root)))
        if row is None:
            unnamed.append(_set_aside(root, file, "E_PAIR_MISSING", NOT_IN_TABLE))
        else:
            found.append(_found(root, file, row))
    return Findings(found=found, set_aside=[*set_aside, *unnamed])


def candidates(root: Path) -> tuple[list[Path], list[SetAside]]:
    """Every visible file but documents and litter; links that lead out are set aside."""
    files, escapes = visible_files(root)
    return [f for f in files if not _passed_over(f.relative_to(root))], escapes


def _passed_over(path: Path) -> bool:
    return (
        path.suffix.lower() in DOCUMENTS
        or path.name.lower() in LITTER
        or not LITTER_FOLDERS.isdisjoint(path.parts)
    )


def _laterals(root: Path, files: Iterable[Path]) -> list[SetAside]:
    """Files whose name says lateral, as CheXpert's view2_lateral.jpg does."""
    cause = "its name says it is a lateral view; only frontal films are used"
    return [
        _set_aside(root, file, "E_IMG_VIEW", cause)
        for file in files
        if LATERAL_NAME.search(file.relative_to(root).as_posix())
    ]


def _set_aside(root: Path, file: Path, code: str, cause: str) -> SetAside:
    return SetAside(code=code, file=name_below(root, file), cause=cause)


def _found(root: Path, file: Path, row: Row | None = None) -> Found:
    name = name_below(root, file)
    if row is None:
        return Found(name=name, files=(file,), patient=_patient_of(root, file))
    return Found(
        name=name, files=(file,), patient=row.patient, split=row.split, finding=row.finding
    )


def _patient_of(root: Path, file: Path) -> str:
    """Whose it is by header or name; else the file's own name (nobody else's)."""
    name = file.relative_to(root).as_posix()
    by_name = (pattern.search(name) for pattern in PATIENT_NAMES)
    return (
        _patient_in_header(file)
        or next((match[1] for match in by_name if match), "")
        or name_below(root, file)
    )


def _patient_in_header(file: Path) -> str:
    try:
        if not is_dicom(file):
            return ""
        with quiet_pydicom():
            header = dcmread(file, specific_tags=["PatientID"], stop_before_pixels=True)
            return str(header.get("PatientID") or "").strip()
    except (OSError, *BROKEN_DICOM):
        return ""  # `read` will open the file again and say what is wrong with it


def read(found: Found, folder: Path) -> Case:
    """Decode, check and describe one radiograph; its pixels stay where they are."""
    del folder
    (file,) = found.files
    film = read_radiograph(file)
    sha256 = sha256_of_file(file)
    unknown = ("patient_unknown",) if found.patient == found.name else ()
    return Case(
        id=sha256[:16],
        finding=found.finding,
        file_sha256=sha256,
        pixels_sha256=film.pixels_sha256,
        shape=film.pixels_UV.shape,
        spacing_mm=film.pixel_spacing_mm or (),
        notes=film.notes + unknown,
    )


def divide(patients: Mapping[str, Sequence[Found]], seed: int) -> dict[str, Split]:
    """The split a table declares for a patient; 80/10/10 by seed for all others."""
    told = {name: items[0].split for name, items in patients.items()}
    drawn = eighty_ten_ten({n: items for n, items in patients.items() if told[n] is None}, seed)
    return {name: split or drawn[name] for name, split in told.items()}


IMPORTER = Importer(
    name="radiographs",
    kind="radiographs",
    find=find,
    read=read,
    divide=divide,
    about={
        "title": "a folder of radiographs",
        "evidence": "real",
        "cautions": [
            "Files noted `patient_unknown` count as a patient each: if one person has several, "
            "they may stand in different parts. Give --patients to prevent it.",
            "JPEG and PNG have no scale: what is made from them has a nominal one.",
            "Mirrored films are not detected, and lateral ones only by tag or name.",
        ],
    },
)


def importer_with(patients: Path) -> Importer:
    """The importer that takes patients, splits and findings from a table."""
    return replace(IMPORTER, find=partial(find, table=patients))

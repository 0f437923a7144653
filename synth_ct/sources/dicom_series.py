"""Which CT series lie below a folder. Headers only; pixels are read by `synth_ct.sources.dicom`.

A series is what shares a SeriesInstanceUID, whatever the folders and file names. Two series in one
folder stay two; two copies of one series in two folders stay two as well (the cohort engine then
drops the copy). Localisers, screen captures and projections are set aside with a code.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from synth_ct.kit.quarantine import Refused, SetAside, printable
from synth_ct.kit.quiet import BROKEN_DICOM, quiet_pydicom
from synth_ct.sources.dicom_geometry import names

TAGS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "PatientID", "Modality", "ImageType",
)  # fmt: skip
MODALITIES = ("CT", "CR", "DX", "MR", "PT", "NM", "US", "MG", "SEG", "SR", "RTSTRUCT")
"""Known by name; any other text in that element may be anything, and stays where it is."""
CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_STORAGE = "1.2.840.10008.5.1.4.1.1.7"
DIRECTORY_STORAGE = "1.2.840.10008.1.3.10"
NOT_A_SLICE = {
    "LOCALIZER": "E_DCM_LOCALIZER",
    "SCOUT": "E_DCM_LOCALIZER",
    "TOPOGRAM": "E_DCM_LOCALIZER",
    "SCREEN SAVE": "E_DCM_SECONDARY",
    "SECONDARY CAPTURE": "E_DCM_SECONDARY",
    "MIP": "E_DCM_PROJECTION",
    "MINIP": "E_DCM_PROJECTION",
    "PROJECTION IMAGE": "E_DCM_PROJECTION",
}
"""Word in ImageType -> code. DERIVED and SECONDARY alone do not say that an image is no slice."""
CAUSES = {
    "E_DCM_LOCALIZER": "a localiser (scout view), not slices of a volume",
    "E_DCM_SECONDARY": "captures of a screen, not slices with Hounsfield units",
    "E_DCM_PROJECTION": "projections of several slices (MIP), not slices",
    "E_DCM_MULTIFRAME": "enhanced CT, several slices in one file, which is not read here",
    "E_DCM_CLASS": "marked CT but not stored as CT images",
    "E_DCM_NO_SERIES": "no SeriesInstanceUID, so it is unknown which slices belong together",
}
REMEDIES = {"E_DCM_MULTIFRAME": "convert it to classic CT images, one file a slice"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One CT series, headers only. Stays local: it names a person and paths."""

    name: str
    """Its first file below the searched folder, printable; unique."""
    uid: str
    patients: tuple[str, ...]
    """Every PatientID its slices name, sorted; empty where the headers name none."""
    files: tuple[Path, ...]
    """Sorted by path; where the slices lie is for `read_series` to find out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFound:
    """What a folder holds: candidates, refusals, and how much of no concern was passed over."""

    series: tuple[Series, ...]
    set_aside: tuple[SetAside, ...]
    ignored: Mapping[str, int]
    """Modality -> number of series that are no CT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Instance:
    path: Path
    uid: str
    series: str
    patient: str
    modality: str
    code: str
    """Why it is no slice, or empty."""


def series_in(folder: Path) -> SeriesFound:
    """Find the CT series below a folder, in an order that depends on names alone."""
    set_aside: list[SetAside] = []
    of_series: dict[tuple[str, str], list[_Instance]] = defaultdict(list)
    for path in files_below(folder, set_aside):
        try:
            instance = read_header(path)
        except Refused as refused:
            set_aside.append(refused.row(printable(path.relative_to(folder))))
            continue
        if instance is not None:
            of_series[instance.series or str(path), instance.code].append(instance)
    found: list[Series] = []
    ignored: Counter[str] = Counter()
    for (_, code), instances in of_series.items():
        if instances[0].modality != "CT":
            ignored[instances[0].modality] += 1
        elif code:
            which = names([printable(i.path.name) for i in instances])
            cause = f"{CAUSES[code]}: {which}"
            set_aside.append(_row(code, instances[0].path, folder, cause, REMEDIES.get(code, "")))
        else:
            found += [_series(part, folder) for part in copies_apart(instances)]
    return SeriesFound(
        series=tuple(sorted(found, key=lambda s: s.name)),
        set_aside=tuple(sorted(set_aside, key=lambda row: (row.file, row.code))),
        ignored=dict(sorted(ignored.items())),
    )


def _series(instances: Sequence[_Instance], folder: Path) -> Series:
    files = tuple(i.path for i in instances)
    return Series(
        name=printable(files[0].relative_to(folder)),
        uid=instances[0].series,
        patients=tuple(sorted({i.patient for i in instances} - {""})),
        files=files,
    )


def _row(code: str, path: Path, folder: Path, cause: str, remedy: str) -> SetAside:
    file = printable(path.relative_to(folder))
    return SetAside(code=code, file=file, cause=cause, remedy=remedy)


def copies_apart(instances: Sequence[_Instance]) -> list[list[_Instance]]:
    """One series may be spread over folders; the same instances in two folders are two copies."""
    of_folder: dict[Path, list[_Instance]] = defaultdict(list)
    for instance in instances:
        of_folder[instance.path.parent].append(instance)
    kinds = [{i.uid for i in part} for part in of_folder.values()]
    if len(set().union(*kinds)) == sum(map(len, kinds)):
        return [list(instances)]
    return list(of_folder.values())


# ---- files ---------------------------------------------------------------------------------------


def files_below(folder: Path, set_aside: list[SetAside]) -> Iterator[Path]:
    """Every regular file, in name order: reading a pipe or device would never end.

    Links are not followed; one that leaves the folder is set aside.
    """
    root = Path(os.path.realpath(folder))
    for where, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted([*files, *(f for f in folders if Path(where, f).is_symlink())]):
            path = Path(where, name)
            if path.is_file() and not path.is_symlink():
                yield path
            elif not Path(os.path.realpath(path)).is_relative_to(root):
                cause = "a link that leads out of the folder, to files nobody meant to import"
                remedy = "copy its target into the folder, or remove the link"
                set_aside.append(_row("E_PATH_ESCAPE", path, folder, cause, remedy))


def is_dicom(path: Path) -> bool:
    """The letters DICM after a preamble of 128 bytes; names prove nothing."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_header(path: Path) -> _Instance | None:
    """What one file says it is; None if it is no DICOM file and does not claim to be one."""
    try:
        if not is_dicom(path):
            _refuse_named(path)
            return None
        with quiet_pydicom():
            return _parse(path)
    except OSError as error:
        cause = f"the file cannot be read ({error.strerror})"
        raise Refused("E_UNREADABLE", cause, "check its rights and the disk") from error


def _refuse_named(path: Path) -> None:
    is_named = path.suffix.lower() in (".dcm", ".dicom")
    if is_named and not path.name.startswith("."):  # macOS puts a "._" twin beside every file
        cause = "named like a DICOM file but without its mark DICM"
        raise Refused("E_DCM_NOTDICOM", cause, "export or download the file again")


def _parse(path: Path) -> _Instance | None:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
        texts = {tag: str(header.get(tag) or "").strip() for tag in TAGS}
        kinds = [str(kind).strip().upper() for kind in _several(header.get("ImageType"))]
        media = str(header.file_meta.get("MediaStorageSOPClassUID", ""))
    except BROKEN_DICOM as error:
        cause = f"the DICOM header is damaged or cut off ({type(error).__name__})"
        raise Refused("E_DCM_HEADER", cause, "export or download the file again") from error
    if media == DIRECTORY_STORAGE:
        return None
    return _Instance(
        path=path,
        uid=texts["SOPInstanceUID"] or str(path),
        series=texts["SeriesInstanceUID"],
        patient=texts["PatientID"],
        modality=texts["Modality"] if texts["Modality"] in MODALITIES else "other",
        code=_code(texts["SOPClassUID"], kinds, texts["SeriesInstanceUID"]),
    )


def _several(value: object) -> Iterable[object]:
    """A DICOM value of multiplicity 0, 1 or more, as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]


def _code(sop_class: str, kinds: Sequence[str], series: str) -> str:
    if sop_class.startswith(SECONDARY_STORAGE):
        return "E_DCM_SECONDARY"
    for word, code in NOT_A_SLICE.items():
        if any(word in kind.replace("_", " ") for kind in kinds if len(word) > 5 or kind == word):
            return code
    if sop_class.startswith(f"{CT_STORAGE}."):
        return "E_DCM_MULTIFRAME"
    if sop_class != CT_STORAGE:
        return "E_DCM_CLASS"
    return "" if series else "E_DCM_NO_SERIES"

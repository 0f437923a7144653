"""Any folder of CT: NIfTI, NRRD, MetaImage and DICOM series, mixed and nested as they come.

The patient of a DICOM series is its PatientID. The patient of a file is its stem; where files of
many folders share few stems (P1/ct.nii.gz, P2/ct.nii.gz, ...) it is the folder instead. 80 % of the
patients go to train, 10 % to val, 10 % to test.
"""

from collections.abc import Sequence
from pathlib import Path

from synth_ct.cohort.case import Case, Findings, Found, Importer
from synth_ct.cohort.divide import eighty_ten_ten
from synth_ct.kit.quarantine import Refused, SetAside, printable
from synth_ct.kit.volume import Volume
from synth_ct.sources.dicom import Series, read_series, series_in
from synth_ct.sources.dicom_series import is_dicom
from synth_ct.sources.paths import name_below, source_folder, visible_files
from synth_ct.sources.volume_files import SUFFIXES, Scan, keep, read_ct, stem_of, suffix_of

HEADERS = (".hdr", ".hdr.gz", ".mhd", ".nhdr")
DATA_SUFFIXES = (".img", ".img.gz", ".raw", ".zraw", ".raw.gz")


def find(source: Path) -> Findings:
    """Every file with the name of a volume, and every CT series."""
    inside = series_in(source_folder(source))
    files, _ = visible_files(source)  # the links that lead out are in `inside` already
    dicom = {file for series in inside.series for file in series.files}  # whatever their names
    refused = {row.file for row in inside.set_aside}
    volumes = [
        file
        for file in files
        if suffix_of(file) and file not in dicom and name_below(source, file) not in refused
    ]
    patients = patients_of(volumes, source)
    found = [
        Found(
            name=name_below(source, file), files=(file, *_data_files(file, files)), patient=patient
        )
        for file, patient in zip(volumes, patients, strict=True)
    ]
    set_aside = list(inside.set_aside)
    for series in inside.series:
        if len(series.patients) > 1:
            set_aside.append(_several_patients(series))
            continue
        patient = series.patients[0] if series.patients else str(Path(series.name).parent)
        found.append(Found(name=series.name, files=series.files, patient=f"dicom {patient}"))
    set_aside += _orphans(source, files)
    return Findings(found=found, set_aside=set_aside, ignored=inside.ignored)


def patients_of(volumes: Sequence[Path], source: Path) -> list[str]:
    """The stem of each file, or its folder where stems repeat from folder to folder."""
    stems = [printable(stem_of(file)) for file in volumes]
    parents = [name_below(source, file.parent) for file in volumes]
    return stems if len(set(stems)) >= len(set(parents)) else parents


def _data_files(header: Path, files: Sequence[Path]) -> tuple[Path, ...]:
    """The voxels' file beside a header, if its name is the usual one."""
    if not header.name.lower().endswith(HEADERS):
        return ()
    stem = stem_of(header)
    return tuple(
        file
        for file in files
        if file.parent == header.parent and file.name.lower() in _names(stem.lower())
    )


def _names(stem: str) -> set[str]:
    return {f"{stem}{suffix}" for suffix in DATA_SUFFIXES}


def _orphans(source: Path, files: Sequence[Path]) -> list[SetAside]:
    """Voxels without the header that would say what they are."""
    stems = {(f.parent, stem_of(f).lower()) for f in files if f.name.lower().endswith(HEADERS)}
    return [
        SetAside(
            code="E_PAIR_MISSING",
            file=name_below(source, file),
            cause="voxels without the .hdr that says what they are",
            remedy="put both in one folder",
        )
        for file in files
        if file.name.lower().endswith((".img", ".img.gz"))
        and (file.parent, file.name.lower().split(".img")[0]) not in stems
    ]


def _several_patients(series: Series) -> SetAside:
    return SetAside(
        code="E_DCM_PATIENT",
        file=series.name,
        cause="its slices name different patients, who could end up in both train and test",
        remedy="export the series of each patient again",
    )


def read(found: Found, workspace: Path) -> Case:
    """Read one file or one series."""
    return keep(scan_of(found.files), workspace)


def scan_of(files: Sequence[Path]) -> Scan:
    """One volume file, or the slices of one series."""
    if not is_dicom(files[0]):
        return read_ct(files[0])
    volume, notes, sha256 = read_series(files)
    return Scan(volume=volume, sha256=sha256, notes=notes)


def read_any_ct(path: Path) -> Volume:
    """One CT for a person at the command line: a file, or a folder that holds one DICOM series."""
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    try:
        if path.is_file():
            return read_ct(path).volume
        series = series_in(path).series
        if len(series) == 1:
            return scan_of(series[0].files).volume
    except Refused as refused:
        raise Refused(refused.code, f"{path}: {refused.cause}", refused.remedy) from refused
    raise ValueError(
        f"{path} holds {len(series)} CT series; give one series' folder, or a file "
        f"({', '.join(SUFFIXES)})"
    )


IMPORTER = Importer(
    name="folder",
    kind="ct",
    find=find,
    read=read,
    divide=eighty_ten_ten,
    about={
        "title": "a folder of CT",
        "licence": "as its source says",
        "evidence": "real",
        "cautions": [
            "patients are told apart by file and folder names, or by DICOM PatientID: check that "
            "two scans of one person share one",
        ],
    },
)

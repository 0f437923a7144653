"""One CT file in any of the usual containers -> a trusted volume -> a case of a cohort."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synth_ct.cohort.case import Case
from synth_ct.kit.durable import sha256_of
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.volume import LabelMap, Volume, save, spacing_mm, to_int16, to_ras
from synth_ct.sources.gates import RawVolume
from synth_ct.sources.hounsfield import hu_notes
from synth_ct.sources.inflate import AGAIN, appearance, beginning
from synth_ct.sources.metaimage import is_metaimage, read_metaimage
from synth_ct.sources.nifti import is_nifti, read_nifti
from synth_ct.sources.nrrd_files import is_nrrd, read_nrrd

NIFTI = (".nii", ".nii.gz", ".hdr", ".hdr.gz")
NRRD = (".nrrd", ".nhdr")
METAIMAGE = (".mha", ".mhd")
SUFFIXES = (*NIFTI, *NRRD, *METAIMAGE)
SNIFFED = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A CT that passed every gate."""

    volume: Volume
    """int16 HU, RAS+, the file's own spacing."""
    sha256: str
    """Of the source bytes."""
    notes: tuple[str, ...]


def suffix_of(path: Path) -> str:
    """The longest known volume suffix of a name, lower case, or nothing."""
    name = path.name.lower()
    return max((s for s in SUFFIXES if name.endswith(s)), key=len, default="")


def stem_of(path: Path) -> str:
    """The name without its volume suffix."""
    suffix = suffix_of(path)
    return path.name[: len(path.name) - len(suffix)] if suffix else path.stem


def read_raw(path: Path) -> RawVolume:
    """Read a volume by what it contains; its name only decides what it is blamed for."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    start = beginning(head, SNIFFED)
    if is_nrrd(start):
        return read_nrrd(path)
    if is_metaimage(start):
        return read_metaimage(path)
    if is_nifti(start) or suffix_of(path) in NIFTI:
        return read_nifti(path)
    container = "NRRD" if suffix_of(path) in NRRD else "MHA"
    cause = f"not a volume: {appearance(start)}"
    raise Refused(f"E_{container}_HEADER", cause, AGAIN)


def read_ct(path: Path) -> Scan:
    """Read one CT file distrustfully; raise `Refused` with a code where it cannot be trusted."""
    raw = read_raw(path)
    notes = hu_notes(raw.array_XYZ)
    volume = to_ras(Volume(to_int16(raw.array_XYZ), raw.affine))
    return Scan(volume=volume, sha256=raw.sha256, notes=(*raw.notes, *notes))


def keep(scan: Scan, workspace: Path, labels: LabelMap | None = None) -> Case:
    """Write the canonical volume, and labels if any, below the workspace; describe the case.

    Headers are written anew, so nothing the source's header says about a person survives.
    """
    case_id = _case_id(scan, labels)
    array = scan.volume.array_XYZ
    file, file_sha256 = _write(scan.volume, workspace, "volumes", case_id)
    label_file, label_sha256 = "", ""
    if labels is not None:
        label_file, label_sha256 = _write(labels, workspace, "labels", case_id)
    return Case(
        id=case_id,
        file=file,
        file_sha256=file_sha256,
        label_file=label_file,
        label_sha256=label_sha256,
        pixels_sha256=sha256_of(str(array.shape).encode() + np.ascontiguousarray(array).tobytes()),
        shape=array.shape,
        spacing_mm=tuple(round(mm, 6) for mm in spacing_mm(scan.volume.affine)),
        notes=scan.notes,
    )


def _case_id(scan: Scan, labels: LabelMap | None) -> str:
    """One image annotated twice is two cases, whose files must not overwrite each other."""
    if labels is None:
        return scan.sha256[:16]
    return sha256_of(bytes.fromhex(scan.sha256) + labels.array_XYZ.tobytes())[:16]


def _write(what: Volume | LabelMap, workspace: Path, kind: str, case_id: str) -> tuple[str, str]:
    file = f"{kind}/{case_id[:2]}/{case_id}.nii.gz"
    (workspace / file).parent.mkdir(parents=True, exist_ok=True)
    return file, save(what, workspace / file)

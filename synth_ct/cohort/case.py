"""One case of a cohort, and what an importer has to say to make one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from synth_ct.kit.quarantine import SetAside

Kind = Literal["ct", "radiographs", "labelled"]
Split = Literal["train", "val", "test"]
SPLITS: Mapping[str, Split] = {"train": "train", "val": "val", "test": "test"}
"""A split by the name a folder or a table gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of `cases.jsonl`. Nothing here can name a person or a path of this machine."""

    id: str
    """First 16 digits of the sha256 of the source bytes, and of the labels where there are any."""
    patient: str = ""
    """Pseudonym, the same for all cases of a patient: "p" and the smallest of their ids."""
    split: Split = "train"
    finding: str = ""
    """NORMAL, PNEUMONIA, ... where the source says so."""
    file: str = ""
    """The canonical volume below the cohort, or empty for a radiograph (see `sources.csv`)."""
    file_sha256: str = ""
    """Of the canonical volume; of the original file for a radiograph."""
    label_file: str = ""
    label_sha256: str = ""
    pixels_sha256: str = ""
    """Of the decoded source values: finds the same image in another container."""
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    """Empty where the source has no trustworthy scale (JPEG and PNG radiographs)."""
    notes: tuple[str, ...] = ()
    """What was repaired or assumed while reading, one word a note: exif_rotated, cmyk, ..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Something in a source folder that may become a case; its pixels are still unread. Local."""

    name: str
    """Path below the source folder, printable: unique, and the order of everything."""
    files: tuple[Path, ...]
    """The image (all slices of a series), in reading order."""
    labels: tuple[Path, ...] = ()
    patient: str
    """The patient as the source names them."""
    split: Split | None = None
    """The source's own split, if it has one."""
    finding: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What lies in a source folder: candidates, and what was refused without opening it."""

    found: Sequence[Found]
    set_aside: Sequence[SetAside] = ()
    classes: Mapping[int, str] = field(default_factory=dict)
    """Label id -> structure, for labelled sources."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """What this importer is not about (other modalities) -> how many; no part of the total."""


Read = Callable[[Found, Path], Case]
"""Read one candidate distrustfully, write what it becomes below the folder, describe it; raise
`Refused` if it cannot be trusted. Runs in worker processes: must be importable by name."""

Divide = Callable[[Mapping[str, Sequence[Found]], int], Mapping[str, Split]]
"""(source patient -> their accepted candidates, seed) -> split of each patient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """How one kind of source becomes a cohort."""

    name: str
    kind: Kind
    find: Callable[[Path], Findings]
    read: Read
    divide: Divide
    about: Mapping[str, Any]
    """Goes into `cohort.json`: title, licence, evidence (`phantom` or `real`), cautions."""

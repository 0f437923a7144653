"""Which radiographs a corpus is made from: a cohort's, or those below any folder.

Every file is read once, to know it by its bytes; what its pixels are is found out by whoever makes
volumes. Equal bytes are one film, the copies are set aside.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth_ct.cohort import Cohort
from synth_ct.cohort.case import Findings, Found, Importer
from synth_ct.cohort.gather import DUPLICATE
from synth_ct.cohort.reader import CASES
from synth_ct.kit.artifact import RECORD
from synth_ct.kit.durable import sha256_of_file
from synth_ct.kit.progress import Tick
from synth_ct.kit.quarantine import SetAside
from synth_ct.sources import chest_xray2017, radiographs
from synth_ct.sources.paths import source_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A radiograph, by its bytes."""

    sha256: str
    patient: str
    finding: str
    path: Path
    name: str
    """Below its source, printable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Films:
    """What lies in a source, and what that source is."""

    films: tuple[Film, ...]
    set_aside: tuple[SetAside, ...]
    about: dict[str, Any]
    """Title, licence, evidence, cautions: as a cohort has them."""


def films_of(source: Path, tick: Tick) -> Films:
    """The films of a finished cohort, or of a folder."""
    if (source / RECORD).exists() and (source / CASES).exists():
        return _of_cohort(Cohort.open(source), tick)
    importer, findings = _findings(source_folder(source))
    return _of_folder(importer, findings, tick)


def count_of(source: Path) -> int:
    """How many files `films_of` will read, for its progress."""
    if (source / RECORD).exists() and (source / CASES).exists():
        return len(Cohort.open(source).cases)
    return len(_findings(source_folder(source))[1].found)


def _of_cohort(cohort: Cohort, tick: Tick) -> Films:
    if cohort.kind != "radiographs":
        raise ValueError(
            f"{cohort.folder} is a cohort of {cohort.kind}, not of radiographs; "
            "give one made by `synth-ct ingest radiographs` or `ingest chest-xray2017`"
        )
    paths = cohort.source_paths()
    films = []
    for case in cohort.cases:
        film = Film(
            sha256=case.file_sha256,
            patient=case.patient,
            finding=case.finding,
            path=paths[case.id].resolve(),
            name=case.id,
        )
        films.append(film)
        tick()
    return Films(films=tuple(films), set_aside=(), about=cohort.about)


def _findings(source: Path) -> tuple[Importer, Findings]:
    """As ChestXray2017 where the folder is laid out like it, else as any folder of films."""
    if any((below / kind).is_dir() for below in _parts(source) for kind in chest_xray2017.CLASSES):
        return chest_xray2017.IMPORTER, chest_xray2017.find(source)
    return radiographs.IMPORTER, radiographs.find(source)


def _parts(source: Path) -> Iterable[Path]:
    """`train`, `val` and `test`, at the depths to which the archive nests them."""
    for depth in ("", "*/", "*/*/"):
        for part in ("train", "val", "test"):
            yield from source.glob(f"{depth}{part}")


def _of_folder(importer: Importer, findings: Findings, tick: Tick) -> Films:
    if not (findings.found or findings.set_aside):
        raise ValueError("no radiograph is there: give a folder of JPEG, PNG, TIFF or DICOM files")
    kept: dict[str, Found] = {}
    set_aside = list(findings.set_aside)
    for item in sorted(findings.found, key=lambda found: found.name):
        try:
            sha256 = sha256_of_file(item.files[0])
        except OSError as error:
            cause = f"the file cannot be read ({error.strerror})"
            row = SetAside(
                code="E_UNREADABLE", file=item.name, cause=cause, remedy="check its rights"
            )
            set_aside.append(row)
        else:
            first = kept.setdefault(sha256, item)
            if first is not item:
                set_aside.append(_copy(item, first))
        tick()
    return Films(films=tuple(_films(kept)), set_aside=tuple(set_aside), about=dict(importer.about))


def _copy(item: Found, first: Found) -> SetAside:
    cause = f"the same bytes as {first.name}, which was kept; counting it twice would weigh double"
    return SetAside(code=DUPLICATE, file=item.name, cause=cause, kept=first.name)


def _films(kept: dict[str, Found]) -> Iterable[Film]:
    """With each patient's pseudonym: "p" and the smallest id of theirs, as in a cohort."""
    ids = defaultdict(list)
    for sha256, item in kept.items():
        ids[item.patient].append(sha256[:16])
    for sha256, item in kept.items():
        yield Film(
            sha256=sha256,
            patient=f"p{min(ids[item.patient])}",
            finding=item.finding,
            path=item.files[0].resolve(),
            name=item.name,
        )

"""Does a corpus hold what a network is later judged on, or what its generator learned from?

Volumes are compared with the CTs of cohorts and the volumes of corpora, radiographs with the DRRs
of those CTs and with other radiographs: by their sums first, then by likeness, which finds copies
that were gridded, cropped, shifted, turned around or made noisier.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from synth_ct.cohort import Cohort
from synth_ct.cohort.reader import CASES
from synth_ct.corpus.layout import MANIFEST
from synth_ct.corpus.likeness import CELLS, LEAST_KNOWN, Image, alike, descriptors
from synth_ct.corpus.merge import source_paths
from synth_ct.corpus.reader import Corpus
from synth_ct.corpus.row import voxel_sha256
from synth_ct.kit.durable import sha256_of_file
from synth_ct.kit.effort import Effort
from synth_ct.kit.progress import Tick
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.volume import Volume, to_ras
from synth_ct.xray.frame import frame
from synth_ct.xray.geometry import Beam, Geometry, covering
from synth_ct.xray.grey import Decoded
from synth_ct.xray.pose import read_radiograph
from synth_ct.xray.project import drr

FILM_CELLS = 2 * CELLS
LEAST = {"volume": 0.83, "DRR": 0.915, "radiograph": 0.915}
"""Likeness that is a finding; docs/corpus.md has what patients, and copies, reach."""
BEAMS: tuple[Beam, ...] = ("AP", "PA")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Something of the corpus, and what it is a copy of."""

    id: str
    against: str
    """The folder that was named."""
    other: str
    kind: str
    """same source, same voxels, same radiograph; near volume, near DRR, near radiograph."""
    likeness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found, and what could not be looked at."""

    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class Shown:
    """What is compared of one folder."""

    name: str = ""
    volume_ids: list[str] = field(default_factory=list)
    volumes: list[list[Image]] = field(default_factory=list)
    film_ids: list[str] = field(default_factory=list)
    films: list[Image] = field(default_factory=list)
    drr_ids: list[str] = field(default_factory=list)
    drrs: list[Image] = field(default_factory=list)
    sums: dict[str, tuple[str, str]] = field(default_factory=dict)
    """sha256 -> what of, and whose."""


def audit(corpus: Path, against: Sequence[Path], effort: Effort | None = None) -> Findings:
    """Compare a corpus with each of the named cohorts and corpora."""
    effort = effort or Effort()
    opened = Corpus.open(corpus)
    others = [_open(folder) for folder in against]
    total = opened.about.counts.committed + sum(_size(other) for other in others)
    tick = effort.begin(total)
    notes: list[str] = []
    ours = _of_corpus(opened, notes, tick)
    pairs: dict[tuple[str, str, str], Pair] = {}
    for other in others:
        if isinstance(other, Corpus):
            theirs = _of_corpus(other, notes, tick)
        else:
            theirs = _of_cohort(other, tick)
        for pair in _pairs(ours, theirs, notes):
            pairs.setdefault((pair.id, pair.against, pair.other), pair)  # the surest comes first
    return Findings(pairs=tuple(pairs.values()), notes=tuple(dict.fromkeys(notes)))


def _open(folder: Path) -> Cohort | Corpus:
    if (folder / MANIFEST).exists():
        return Corpus.open(folder)
    if (folder / CASES).exists():
        return Cohort.open(folder)
    raise ValueError(f"{folder} is neither a finished cohort nor a corpus; name one of these")


def _size(other: Cohort | Corpus) -> int:
    return len(other.cases) if isinstance(other, Cohort) else other.about.counts.committed


# ---- what is compared --------------------------------------------------------------------------


def _of_corpus(corpus: Corpus, notes: list[str], tick: Tick) -> Shown:
    """Its volumes, and those of its radiographs that are still where they were."""
    shown = Shown(name=str(corpus.folder))
    paths = source_paths(corpus.folder)
    seen: dict[str, str] = {}
    for row in corpus.rows():
        if row.accepted:
            _add_volume(shown, row.id, corpus.volume(row), row.voxel_sha256)
            tick()
        if row.radiograph_sha256:
            shown.sums.setdefault(row.radiograph_sha256, ("radiograph", row.id))
            seen.setdefault(row.radiograph_sha256, row.id)
        else:
            shown.sums.setdefault(row.id, ("source", row.id))
    lost = [item for sha256, item in seen.items() if not _add_film(shown, item, sha256, paths)]
    if lost:
        notes.append(
            f"{len(lost)} of {len(seen)} radiographs of {corpus.folder} are not where sources.csv "
            "says, or cannot be read: only their sums were compared"
        )
    return shown


def _add_film(shown: Shown, item: str, sha256: str, paths: dict[str, Path]) -> bool:
    path = paths.get(item)
    if path is None or not path.is_file() or sha256_of_file(path) != sha256:
        return False
    try:
        film = read_radiograph(path)
    except Refused:
        return False
    _add_decoded(shown, item, film)
    return True


def _add_decoded(shown: Shown, item: str, film: Decoded) -> None:
    shown.film_ids.append(item)
    shown.films.append(frame(film.pixels_UV, FILM_CELLS).film_UV)


def _of_cohort(cohort: Cohort, tick: Tick) -> Shown:
    """CTs and their DRRs, or radiographs."""
    shown = Shown(name=str(cohort.folder))
    paths = cohort.source_paths() if cohort.kind == "radiographs" else {}
    for case in cohort.cases:
        if cohort.kind == "radiographs":
            shown.sums.setdefault(case.file_sha256, ("radiograph", case.id))
            _add_decoded(shown, case.id, cohort.radiograph(case, paths))
        else:
            volume = cohort.volume(case)
            shown.sums.setdefault(case.id, ("source", case.id))
            _add_volume(shown, case.id, volume, voxel_sha256(volume.array_XYZ))
            _add_drrs(shown, case.id, volume)
        tick()
    return shown


def _add_volume(shown: Shown, item: str, volume: Volume, sha256: str) -> None:
    shown.volume_ids.append(item)
    shown.volumes.append(descriptors(to_ras(volume).array_XYZ))
    shown.sums.setdefault(sha256, ("voxels", item))


def _add_drrs(shown: Shown, item: str, volume: Volume) -> None:
    upright = to_ras(volume)
    for beam in BEAMS:
        geometry = covering(Geometry(beam=beam), upright.array_XYZ.shape, upright.affine)
        film_UV = drr(upright, geometry)
        for turned in (film_UV, np.ascontiguousarray(film_UV[:, ::-1])):
            shown.drr_ids.append(item)
            shown.drrs.append(frame(turned, FILM_CELLS).film_UV)


# ---- comparison --------------------------------------------------------------------------------


def _pairs(ours: Shown, theirs: Shown, notes: list[str]) -> Iterator[Pair]:
    for sha256 in sorted(set(ours.sums) & set(theirs.sums)):
        (kind, item), (_, other) = ours.sums[sha256], theirs.sums[sha256]
        yield Pair(id=item, against=theirs.name, other=other, kind=f"same {kind}", likeness=1.0)
    yield from _near("volume", ours.volume_ids, ours.volumes, theirs, notes)
    films = [[film] for film in ours.films]
    yield from _near("DRR", ours.film_ids, films, theirs, notes)
    yield from _near("radiograph", ours.film_ids, films, theirs, notes)


def _near(
    kind: str,
    ids: Sequence[str],
    images: Sequence[Sequence[Image]],
    theirs: Shown,
    notes: list[str],
) -> Iterator[Pair]:
    others, their_ids = {
        "volume": ([crops[0] for crops in theirs.volumes], theirs.volume_ids),
        "DRR": (theirs.drrs, theirs.drr_ids),
        "radiograph": (theirs.films, theirs.film_ids),
    }[kind]
    if images and others and len(images) + len(others) < LEAST_KNOWN:
        notes.append(
            f"{theirs.name}: too few to compare by likeness ({kind}: {len(images)} with "
            f"{len(others)}, {LEAST_KNOWN} together are needed); only sums were compared"
        )
    for n, m, likeness in alike(images, others, LEAST[kind]):
        other, word = their_ids[m], f"near {kind}"
        yield Pair(id=ids[n], against=theirs.name, other=other, kind=word, likeness=likeness)

"""Several corpora become one: a new folder, every item once, every person under one pseudonym."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import merge as merge_sorted
from itertools import chain, count, groupby
from pathlib import Path
from typing import NamedTuple

from synth_ct.corpus.about import About
from synth_ct.corpus.finish import finish
from synth_ct.corpus.layout import (
    RECEIPTS,
    SOURCES,
    make_folders,
    preview_file,
    quarantine_file,
    volume_file,
)
from synth_ct.corpus.reader import Corpus
from synth_ct.corpus.receipts import FOLDED, Receipts, fold
from synth_ct.corpus.row import Entry, Row, entry_of, line_of
from synth_ct.corpus.sources import read_sources
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.durable import link_or_copy, sha256_of_file, write_bytes, write_text
from synth_ct.kit.effort import Effort

ENTRIES_TOGETHER = 256
Person = tuple[int, str]
"""A corpus, by its place among the merged, and a pseudonym in it."""


class Placed(NamedTuple):
    """An entry and the corpus it stands in."""

    entry: Entry
    corpus: int


def merge(folders: Sequence[Path], out: Path, effort: Effort | None = None) -> About:
    """Make the corpus `out` of finished ones, in whatever order they are given."""
    if any(out.resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise ValueError(f"{out} lies inside a corpus that is merged; choose a place outside")
    corpora = sorted((Corpus.open(f) for f in folders), key=lambda c: c.record.fingerprint)
    _demand_mergeable(corpora)
    pseudonyms = pseudonyms_of(chain.from_iterable(map(_placed, corpora, count())))
    wanted = Record(
        kind="corpus",
        recipe={"merged": len(corpora)},
        inputs={f"corpus {n}": corpus.record.fingerprint for n, corpus in enumerate(corpora)},
    )
    with publish(out, wanted) as workspace:
        make_folders(workspace)
        for begun in (workspace / RECEIPTS).iterdir():
            begun.unlink()  # of a merge that was stopped: nothing in it was costly
        _gather(corpora, pseudonyms, workspace, effort or Effort())
        _write_sources(corpora, workspace)
        return finish(workspace, fold(workspace), about_of([c.about for c in corpora]))


def _demand_mergeable(corpora: Sequence[Corpus]) -> None:
    if len(corpora) < 2:
        raise ValueError("one corpus is nothing to merge; name two or more, and then the new one")
    fingerprints = {corpus.record.fingerprint: corpus.folder for corpus in corpora}
    if len(fingerprints) < len(corpora):
        names = ", ".join(str(corpus.folder) for corpus in corpora)
        raise ValueError(f"two of {names} are the same corpus; name each once")
    grids = {(corpus.about.shape, corpus.about.spacing_mm) for corpus in corpora}
    if len(grids) > 1:
        each = "; ".join(f"{corpus.folder} {_grid(corpus.about)}" for corpus in corpora)
        raise ValueError(
            f"the grids of these corpora differ ({each}), and a corpus has one; make them with "
            "generators of one size, or merge those that agree"
        )


def _grid(about: About) -> str:
    if not about.shape:
        return "has volumes of any shape"
    sizes = " x ".join(map(str, about.shape))
    return f"has {sizes} voxels of {' x '.join(f'{mm:g}' for mm in about.spacing_mm)} mm"


def entries_of(corpus: Corpus) -> Iterator[Entry]:
    """Everything that became of its items, sorted by id; receipts that changed are refused."""
    path = corpus.folder / RECEIPTS / FOLDED
    if not path.is_file() or sha256_of_file(path) != corpus.about.receipts_sha256:
        raise ValueError(
            f"{path} is not as it was written; mend it with `synth-ct corpus repair` first"
        )
    with path.open() as lines:
        for line in lines:
            yield entry_of(line)


# ---- patients ----------------------------------------------------------------------------------


def pseudonyms_of(entries: Iterable[Placed]) -> dict[Person, str]:
    """One name a person, clash-safe: "p" and the smallest id of theirs.

    The same pseudonym in two corpora may be two people; the same radiograph, or the same item, is
    one. So (corpus, pseudonym) are joined by what they share.
    """
    above: dict[Person, Person] = {}
    first_with: dict[str, Person] = {}
    smallest: dict[Person, str] = {}
    for entry, corpus in entries:
        person = (corpus, entry.patient or entry.id)
        above.setdefault(person, person)
        smallest[person] = min(smallest.get(person, entry.id), entry.id)
        for shared in {entry.id, entry.radiograph_sha256} - {""}:
            other = first_with.setdefault(shared, person)
            above[_root(above, other)] = _root(above, person)
    least: dict[Person, str] = {}
    for person, item in smallest.items():
        root = _root(above, person)
        least[root] = min(least.get(root, item), item)
    return {person: f"p{least[_root(above, person)]}" for person in above}


def _root(above: dict[Person, Person], person: Person) -> Person:
    while above[person] != person:
        above[person] = above[above[person]]
        person = above[person]
    return person


# ---- items -------------------------------------------------------------------------------------


def _gather(
    corpora: Sequence[Corpus], pseudonyms: dict[Person, str], workspace: Path, effort: Effort
) -> None:
    """Link every item once, and write its receipt."""
    tick = effort.begin(sum(corpus.about.counts.total for corpus in corpora))
    receipts, batch = Receipts(workspace), []
    for same in _by_id(corpora):
        kept = one_of(same, corpora)
        folder = corpora[kept.corpus].folder
        person = (kept.corpus, kept.entry.patient or kept.entry.id)
        patient = pseudonyms[person] if kept.entry.patient else ""
        entry = replace(kept.entry, patient=patient)
        _bring(folder, entry, workspace)
        batch.append(entry)
        if len(batch) == ENTRIES_TOGETHER:
            receipts.append(batch)
            batch = []
        tick(len(same))
    receipts.append(batch)


def _by_id(corpora: Sequence[Corpus]) -> Iterator[list[Placed]]:
    """What the corpora say of each id, in order."""
    streams = [_placed(corpus, n) for n, corpus in enumerate(corpora)]
    together = merge_sorted(*streams, key=lambda placed: placed.entry.id)
    for _, same in groupby(together, key=lambda placed: placed.entry.id):
        yield list(same)


def _placed(corpus: Corpus, number: int) -> Iterator[Placed]:
    return (Placed(entry, number) for entry in entries_of(corpus))


def one_of(same: Sequence[Placed], corpora: Sequence[Corpus]) -> Placed:
    """The entry that is kept of one id: a volume before a quarantined item, and never a choice."""
    rows = [placed for placed in same if isinstance(placed.entry, Row)]
    outcomes = {(entry.voxel_sha256, entry.accepted) for entry, _ in rows if isinstance(entry, Row)}
    if len(outcomes) > 1:
        names = " and ".join(str(corpora[placed.corpus].folder) for placed in rows)
        raise ValueError(
            f"{names} both have {rows[0].entry.id}, with other voxels or another verdict: they "
            "were made under other numerics or changed; merge without one of them"
        )
    return (rows or same)[0]


def _bring(source: Path, entry: Entry, workspace: Path) -> None:
    """Hard links to files that are still what was recorded, so that no damage is inherited."""
    if not isinstance(entry, Row):
        write_text(workspace / quarantine_file(entry.id), line_of(entry))
        return
    files = {volume_file(entry.id): entry.file_sha256} if entry.accepted else {}
    if entry.preview_sha256:
        files[preview_file(entry.id)] = entry.preview_sha256
    for file, sha256 in files.items():
        if not (source / file).is_file() or sha256_of_file(source / file) != sha256:
            raise ValueError(
                f"{source / file} is damaged or missing; mend it with `synth-ct corpus repair "
                f"{source}` and merge again"
            )
        link_or_copy(source / file, workspace / file)


def _write_sources(corpora: Sequence[Corpus], workspace: Path) -> None:
    """Where the originals lie, for this machine alone."""
    paths: dict[str, str] = {}
    for corpus in corpora:
        for item, path in source_paths(corpus.folder).items():
            paths.setdefault(item, str(path))
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("id", "path"))
    writer.writerows(sorted(paths.items()))
    write_bytes(workspace / SOURCES, table.getvalue().encode("utf-8", "surrogateescape"))


def source_paths(corpus: Path) -> dict[str, Path]:
    """Item -> its original on this machine; empty where nobody kept the list."""
    return {item: (corpus / path).resolve() for item, path in read_sources(corpus).items()}


# ---- what is said of it ------------------------------------------------------------------------


def about_of(parts: Sequence[About]) -> About:
    """All that the parts say, each once; of evidence, the weakest."""
    sources = dict.fromkeys(source for part in parts for source in part.sources)
    return About(
        kind="merged",
        what=_each(part.what for part in parts),
        evidence="phantom" if any(part.evidence == "phantom" for part in parts) else "real",
        generator=_each(part.generator for part in parts),
        model=_each(part.model for part in parts),
        trained_on=_each(part.trained_on for part in parts),
        scale=_each(part.scale for part in parts),
        recipe={"merged": [part.recipe for part in parts]},
        sources=tuple(sources),
        numerics={name: said for part in parts for name, said in part.numerics.items()},
        shape=parts[0].shape,
        spacing_mm=parts[0].spacing_mm,
    )


def _each(words: Iterable[str]) -> str:
    """Comma-separated, each once, in their order: of a merged corpus too."""
    return ", ".join(dict.fromkeys(words))

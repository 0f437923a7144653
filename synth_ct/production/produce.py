"""From items to a finished corpus, whatever dies on the way.

Receipts on disk are the truth. A run begins by reading them, works off what has none, tries what
may have killed a worker alone, and ends by writing what is derived from them.
"""

import errno
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from synth_ct.cohort.gather import DUPLICATE
from synth_ct.corpus.about import About
from synth_ct.corpus.finish import finish
from synth_ct.corpus.layout import make_folders, quarantine_file
from synth_ct.corpus.receipts import Book, Receipts, fold
from synth_ct.corpus.row import Entry, Quarantined, line_of
from synth_ct.corpus.sources import read_sources, write_sources
from synth_ct.kit.artifact import code_hash
from synth_ct.kit.durable import sha256_of, write_text
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import SetAside, write_report
from synth_ct.production.executor import Executor
from synth_ct.production.facts import forget_numerics, noted_numerics
from synth_ct.production.order import Item
from synth_ct.production.work import BEGUN, Job, Make, Told

DEATHS = "deaths.jsonl"
DEATHS_ALLOWED = 3
"""An item that kills this many workers while it is alone with them is quarantined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """All that there is to do, and what will be said of it."""

    items: Sequence[Item]
    set_aside: Sequence[SetAside]
    """Files that never became items."""
    about: About
    """Without counts."""
    names: dict[str, str]
    """Item -> its radiograph below the source, for the local report."""


def produce(
    order: Order,
    workspace: Path,
    load: Callable[[], Make],
    executor: Executor,
    effort: Effort,
    retry: frozenset[str] = frozenset(),
) -> About:
    """Make what has no receipt; `retry` forgets the quarantine of these codes first."""
    strays = _begin(order, workspace)
    ours = strays | {item.id for item in order.items}
    book = fold(workspace, drop=lambda entry: _forgotten(entry, retry, ours))
    todo = [item for item in order.items if item.id not in book]
    job = Job(workspace=workspace, run=secrets.token_hex(8), load=load, code=code_hash())
    tally = _Tally(book.counts(), len(book) + len(todo), effort)
    suspects = _work_off(executor.together(job, todo), tally) if todo else set()
    _try_alone(job, [item for item in todo if item.id in suspects], executor, tally)
    book = fold(workspace)
    missing = [item.id for item in order.items if item.id not in book]
    if missing:
        raise RuntimeError(
            f"{len(missing)} items have no receipt ({missing[0]}, ...), though all were worked "
            "off; run the same command again, and report it if it stays so"
        )
    numerics = {"numerics": noted_numerics(workspace)}
    about = finish(workspace, book, order.about.model_copy(update=numerics))
    _report(order, workspace, book)
    _tidy(workspace)
    return about


def _tidy(workspace: Path) -> None:
    shutil.rmtree(workspace / BEGUN)
    (workspace / DEATHS).unlink(missing_ok=True)
    forget_numerics(workspace)


# ---- before ------------------------------------------------------------------------------------


def _begin(order: Order, workspace: Path) -> set[str]:
    """Folders, marks of nobody, who came from where, and what never became an item."""
    make_folders(workspace)
    shutil.rmtree(workspace / BEGUN, ignore_errors=True)
    (workspace / BEGUN).mkdir()
    # Volumes of films that were taken away since stay, and could not be repaired without theirs.
    paths = read_sources(workspace) | {item.id: item.path for item in order.items}
    write_sources(workspace, paths)
    strays = [_stray(row) for row in order.set_aside]
    for stray in strays:
        write_text(workspace / quarantine_file(stray.id), line_of(stray))
    if strays:
        Receipts(workspace).append(strays)
    return {stray.id for stray in strays}


def _stray(row: SetAside) -> Quarantined:
    """A file that never became an item; it has no bytes to be known by, or another's."""
    return Quarantined(
        id=stray_id(row),
        radiograph_sha256="",
        patient="",
        finding="",
        code=row.code,
        cause=row.cause if row.code != DUPLICATE else "the same bytes as another file",
        remedy=row.remedy,
    )


def stray_id(row: SetAside) -> str:
    """By its name, which nothing else of it tells."""
    return sha256_of(f"{row.code}/{row.file}".encode())[:16]


def _forgotten(entry: Entry, retry: frozenset[str], ours: set[str]) -> bool:
    """Quarantine that is to be tried again, or whose file is another now or gone."""
    return isinstance(entry, Quarantined) and (entry.code in retry or entry.id not in ours)


# ---- the work ----------------------------------------------------------------------------------


class _Tally:
    """What is done, told to whoever watches."""

    def __init__(self, counts: Counter[str], total: int, effort: Effort) -> None:
        self._counts, self._total = counts, total
        self._done: set[str] = set()
        self._begun = time.monotonic()
        self._tick = effort.begin(total)
        self._tick(counts.total(), self._note())

    def add(self, item: str, outcome: str) -> None:
        """Count an item once, even if it was made twice because its worker died in between."""
        if item not in self._done:
            self._done.add(item)
            self._counts[outcome] += 1
            self._tick(1, self._note())

    def _note(self) -> str:
        counts, seconds = self._counts, max(time.monotonic() - self._begun, 1e-3)
        pending = self._total - counts.total()
        return (
            f"{counts['committed']} done, {counts['quarantined']} quarantined, "
            f"{counts['rejected']} rejected, {pending} pending, "
            f"{len(self._done) / seconds:.2f} volumes/s"
        )


def _work_off(coming: Iterable[Told], tally: _Tally) -> set[str]:
    """Count what comes; return who must be tried alone."""
    suspects: set[str] = set()
    for told in coming:
        if told.outcome == "disk_full":
            raise OSError(errno.ENOSPC, "the disk is full", told.detail)
        if told.outcome == "suspect":
            suspects.add(told.id)
        else:
            suspects.discard(told.id)
            tally.add(told.id, told.outcome)
    return suspects


def _try_alone(job: Job, items: Sequence[Item], executor: Executor, tally: _Tally) -> None:
    """One by one; who kills its worker three times is quarantined."""
    deaths = _deaths_before(job.workspace)
    todo = list(items)
    while todo:
        guilty: list[Item] = []
        left = {item.id: item for item in todo}
        for word in executor.alone(job, todo):
            if isinstance(word, Told):
                _work_off([word], tally)
                left.pop(word.id, None)
            elif word.guilty:
                deaths[word.id] += 1
                _append(job.workspace / DEATHS, word.id)
                if deaths[word.id] >= DEATHS_ALLOWED:
                    guilty.append(left.pop(word.id))
        for item in guilty:
            _quarantine(job.workspace, item)
            tally.add(item.id, "quarantined")
        todo = list(left.values())


def _quarantine(workspace: Path, item: Item) -> None:
    entry = Quarantined(
        id=item.id,
        radiograph_sha256=item.radiograph_sha256,
        patient=item.patient,
        finding=item.finding,
        code="E_CRASH",
        cause=f"making it killed its worker {DEATHS_ALLOWED} times, alone each time",
        remedy="look at the radiograph with another program, and at the memory of the machine; "
        "then try again with --retry-quarantined E_CRASH",
    )
    write_text(workspace / quarantine_file(item.id), line_of(entry))
    Receipts(workspace).append([entry])


def _deaths_before(workspace: Path) -> Counter[str]:
    """Deaths an earlier driver saw: if it died itself, they still count."""
    path = workspace / DEATHS
    return Counter(path.read_text().split()) if path.exists() else Counter()


def _append(path: Path, item: str) -> None:
    with path.open("a") as file:
        file.write(f"{item}\n")
        file.flush()
        os.fsync(file.fileno())


# ---- after -------------------------------------------------------------------------------------


def _report(order: Order, workspace: Path, book: Book) -> None:
    """The local report, which says the names; and no file of quarantine that is none any more."""
    names = order.names | {stray_id(row): row.file for row in order.set_aside}
    kept = {stray_id(row): row.kept for row in order.set_aside}
    rows, ids = [], set()
    for entry in book.quarantined():
        ids.add(entry.id)
        rows.append(
            SetAside(
                code=entry.code,
                file=names.get(entry.id, entry.id),
                cause=entry.cause,
                remedy=entry.remedy,
                kept=kept.get(entry.id, ""),
            )
        )
    write_report(workspace, rows)
    for path in (workspace / "quarantine").glob("*/*.json"):
        if path.stem not in ids:
            path.unlink()

"""One worker: items in, files and receipts out. The same in a process of our own and in an actor.

While one micro-batch is sampled, the films of the next are read and the volumes of the last are
written. Before an item is touched a mark is set, and its receipt takes the mark away. A marked item
without a receipt was in the hands of a worker that died: it may be what killed it, so it is handed
back as a suspect, to be tried alone.
"""

import errno
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from synth_ct.corpus.layout import quarantine_file
from synth_ct.corpus.receipts import Receipts, State, state_of
from synth_ct.corpus.row import Entry, Quarantined, Row, line_of
from synth_ct.kit.artifact import code_hash
from synth_ct.kit.durable import write_text
from synth_ct.production.order import Item

BEGUN = "begun"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WRITES_WAITING = 2
"""Micro-batches whose files may be outstanding before sampling waits for them."""


class Told(NamedTuple):
    """What a worker says of an item. The receipts say it too; this is for whoever waits."""

    id: str
    outcome: State | Literal["suspect", "disk_full"]
    detail: str = ""


@runtime_checkable
class Make(Protocol):
    """The trained part of a worker."""

    together: int
    """Items that go through the networks at once."""

    def read(self, item: Item) -> Any:
        """The film of an item, or the `Quarantined` entry that says why there is none."""

    def volumes(self, films: Sequence[Any]) -> Sequence[Any]:
        """Sample: what `keep` needs, one for each film."""

    def keep(self, item: Item, volume: Any) -> Row:
        """Judge, and write the files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every worker of a run is told once; travels to other processes and machines."""

    workspace: Path
    run: str
    """Marks of another run mean nothing: its driver died, and no item is guilty of that."""
    load: Callable[[], Make]
    code: str
    """The hash of the driver's code."""
    read_ahead: int = 1
    """Micro-batches whose films are read before their turn."""


def mark_of(job: Job, item: str) -> Path:
    """There while somebody works on the item."""
    return job.workspace / BEGUN / job.run / item


class Worker:
    """Holds the networks and works off batches."""

    def __init__(self, job: Job) -> None:
        _demand_same_code(job)
        self._job = job
        self._make = job.load()
        self._receipts = Receipts(job.workspace)
        self.waited_s = 0.0
        """Sampling stood still for so long because files were still being written."""
        (job.workspace / BEGUN / job.run).mkdir(parents=True, exist_ok=True)

    def __call__(self, items: Sequence[Item], *, alone: bool = False) -> list[Told]:
        """Make the items; `alone` takes suspects too."""
        suspects = [] if alone else [i for i in items if mark_of(self._job, i.id).exists()]
        told = [Told(item.id, "suspect") for item in suspects]
        todo = [item for item in items if item not in suspects]
        size = 1 if alone else self._make.together
        parts = [todo[start : start + size] for start in range(0, len(todo), size)]
        try:
            return told + self._pipeline(parts)
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            return [*told, Told(items[0].id, "disk_full", str(error.filename or ""))]

    def _pipeline(self, parts: Sequence[Sequence[Item]]) -> list[Told]:
        told: list[Told] = []
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            reads: deque[Future[list[Any]]] = deque()
            writes: deque[Future[list[Told]]] = deque()
            for number, part in enumerate(parts):
                ahead = parts[number + len(reads) : number + 1 + self._job.read_ahead]
                reads.extend(reader.submit(self._read, each) for each in ahead)
                films = reads.popleft().result()
                volumes = self._sampled(films)
                while len(writes) >= WRITES_WAITING:
                    told += self._waited(writes)
                writes.append(writer.submit(self._commit, part, films, volumes))
            while writes:
                told += self._waited(writes)
        return told

    def _waited(self, writes: deque[Future[list[Told]]]) -> list[Told]:
        begun = time.monotonic()
        told = writes.popleft().result()
        self.waited_s += time.monotonic() - begun
        return told

    def _read(self, items: Sequence[Item]) -> list[Any]:
        for item in items:
            mark_of(self._job, item.id).touch()
        return [self._make.read(item) for item in items]

    def _sampled(self, films: Sequence[Any]) -> deque[Any]:
        good = [film for film in films if not isinstance(film, Quarantined)]
        return deque(self._make.volumes(good) if good else ())

    def _commit(
        self, items: Sequence[Item], films: Sequence[Any], volumes: deque[Any]
    ) -> list[Told]:
        entries: list[Entry] = []
        for item, film in zip(items, films, strict=True):
            if isinstance(film, Quarantined):
                write_text(self._job.workspace / quarantine_file(film.id), line_of(film))
                entries.append(film)
            else:
                entries.append(self._make.keep(item, volumes.popleft()))
        self._receipts.append(entries)
        for item in items:
            mark_of(self._job, item.id).unlink(missing_ok=True)
        return [Told(entry.id, state_of(entry), _detail(entry)) for entry in entries]


def _demand_same_code(job: Job) -> None:
    """Other code may make other volumes of the same item, and no receipt would tell."""
    ours = code_hash()
    if ours != job.code:
        raise RuntimeError(
            f"a worker's code is {ours} and its driver's is {job.code}: their volumes might "
            "differ; install the same synth_ct on every machine, or send it along (`ray job submit "
            "--working-dir .`), and run the same command again"
        )


def _detail(entry: Entry) -> str:
    return entry.code if isinstance(entry, Quarantined) else entry.reason

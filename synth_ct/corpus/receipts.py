"""Receipts: one line for every item that is done with, appended by whoever did it.

The line is the commit: a volume without one does not count, and is made again, to the same bytes.
Each writer has a file of its own. When a run begins and when it ends, all files are folded into
one, sorted by id, every id once.
"""

import logging
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from synth_ct.corpus.layout import RECEIPTS
from synth_ct.corpus.row import Entry, Quarantined, Row, entry_of, line_of
from synth_ct.kit.durable import sync_folder

logger = logging.getLogger(__name__)

FOLDED = "folded.jsonl"
State = Literal["committed", "rejected", "quarantined"]


def state_of(entry: Entry) -> State:
    """Which of the three ways an item is done with."""
    if isinstance(entry, Quarantined):
        return "quarantined"
    return "committed" if entry.accepted else "rejected"


class Receipts:
    """A writer's own file; begun with its first line."""

    def __init__(self, corpus: Path) -> None:
        self._path = corpus / RECEIPTS / f"{os.getpid()}-{secrets.token_hex(6)}.jsonl"

    def append(self, entries: Sequence[Entry]) -> None:
        """Commit: on return the lines survive a crash of the machine."""
        begun = self._path.exists()
        with self._path.open("ab") as file:
            file.write("".join(f"{line_of(entry)}\n" for entry in entries).encode())
            file.flush()
            os.fsync(file.fileno())
        if not begun:
            sync_folder(self._path.parent)


class _Place(NamedTuple):
    """Where an id's line begins, and what it says."""

    file: int
    offset: int
    state: State


class Book:
    """Everything that is done with, on disk; in memory only where each line is."""

    def __init__(self, path: Path, places: dict[str, _Place]) -> None:
        self._path = path
        self._places = places

    def __contains__(self, item: str) -> bool:
        return item in self._places

    def __len__(self) -> int:
        return len(self._places)

    def counts(self) -> Counter[str]:
        """How many items are in each state."""
        return Counter(place.state for place in self._places.values())

    def entries(self) -> Iterator[Entry]:
        """All of them, sorted by id."""
        if not self._path.exists():
            return
        with self._path.open() as file:
            for line in file:
                yield entry_of(line)

    def rows(self) -> Iterator[Row]:
        """The manifest's rows, sorted by id."""
        return (entry for entry in self.entries() if isinstance(entry, Row))

    def quarantined(self) -> Iterator[Quarantined]:
        """The others, sorted by id."""
        return (entry for entry in self.entries() if isinstance(entry, Quarantined))


def fold(corpus: Path, drop: Callable[[Entry], bool] = lambda entry: False) -> Book:
    """Gather all receipts in one file; what `drop` says is forgotten, and so made again.

    A writer left over from a killed run may still append to a file that is removed here: its item
    has then no receipt, and is made once more.
    """
    folder = corpus / RECEIPTS
    paths = sorted(folder.glob("*.jsonl"))
    places: dict[str, _Place] = {}
    for number, path in enumerate(paths):
        for offset, line in _lines(path):
            entry = _entry(line, path)
            if entry is not None and not drop(entry):
                places[entry.id] = _Place(number, offset, state_of(entry))
    book = Book(folder / FOLDED, dict(sorted(places.items())))
    _write_folded(folder, paths, book)
    for path in paths:
        if path.name != FOLDED:
            path.unlink()
    return book


def finished_entries(corpus: Path) -> Iterator[Entry]:
    """All entries of a finished corpus, sorted by id; nothing is written."""
    return Book(corpus / RECEIPTS / FOLDED, {}).entries()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Where each whole line begins, and the line."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):  # else torn by the death of its writer
                yield offset, line
            offset += len(line)


def _entry(line: bytes, path: Path) -> Entry | None:
    try:
        return entry_of(line.decode())
    except (ValueError, TypeError, KeyError) as error:
        logger.warning("%s: a damaged line is ignored and its item made again (%s)", path, error)
        return None


def _write_folded(folder: Path, paths: Sequence[Path], book: Book) -> None:
    temporary = folder / f".{FOLDED}.tmp"
    files = [path.open("rb") for path in paths]
    try:
        with temporary.open("wb") as folded:
            for place in book._places.values():
                files[place.file].seek(place.offset)
                folded.write(files[place.file].readline())
            folded.flush()
            os.fsync(folded.fileno())
    finally:
        for file in files:
            file.close()
    temporary.replace(folder / FOLDED)
    sync_folder(folder)

"""A long loop always shows how far it is and when it will be done, on stderr.

On a terminal: bars that move. Elsewhere (a log, a job): nothing for short loops, then a plain line
now and then. Colour follows NO_COLOR.
"""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from threading import Event, Lock, Thread
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 10.0
"""How often a plain line is written where there is no terminal."""


@runtime_checkable
class Tick(Protocol):
    """Say that some more is done, and, if there is something to say, a word about it."""

    def __call__(self, done: int = 1, note: str = "", /) -> None:
        """Advance by `done`."""


@contextmanager
def progress(what: str, total: int) -> Generator[Tick, None, None]:
    """Show `what` until the block ends; call what it gives after each piece of work."""
    shown = _bar if Console(stderr=True).is_interactive else _lines
    with shown(what, total) as tick:
        yield tick


@cache
def _display() -> Progress:
    # One display for all bars: a terminal can redraw only one at a time.
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


@contextmanager
def _bar(what: str, total: int) -> Generator[Tick, None, None]:
    display = _display()
    task = display.add_task(what, total=total, note="")
    display.start()

    def tick(done: int = 1, note: str = "", /) -> None:
        display.update(task, advance=done, note=note)

    try:
        yield tick
    finally:
        display.stop_task(task)
        if all(each.stop_time is not None for each in display.tasks):
            display.stop()
            for each in display.task_ids:
                display.remove_task(each)


@contextmanager
def _lines(what: str, total: int) -> Generator[Tick, None, None]:
    lines = _Lines(what, total)
    ended = Event()
    timer = Thread(target=_keep_saying, args=(lines, ended), daemon=True)
    timer.start()
    try:
        yield lines.tick
    finally:
        ended.set()
        timer.join()
    lines.conclude()


class _Lines:
    """Counts, and says so when the last line is old enough."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._begun = self._said = time.monotonic()
        self._done, self._note = 0, ""
        self._first: int | None = None
        """What the first call told: it may be what an earlier run had done."""
        self._lock = Lock()

    def tick(self, done: int = 1, note: str = "", /) -> None:
        """Count, and take note."""
        with self._lock:
            self._done += done
            self._note = note
            if self._first is None:
                self._first = self._done
        self.say()

    def say(self) -> None:
        """A line, unless there was one just now."""
        with self._lock:
            now = time.monotonic()
            if now - self._said < LINE_EVERY_S:
                return
            self._said = now
            new = self._done - (self._first or 0)
            left = remaining_s(new, self._total - self._done, now - self._begun)
            when = "" if left is None else f"{_clock(left)} left"
            _say(self._what, f"{self._done}/{self._total}", when, self._note)

    def conclude(self) -> None:
        """The last line of a long loop."""
        took = time.monotonic() - self._begun
        if took >= LINE_EVERY_S:
            _say(self._what, f"{self._done}/{self._total}", f"took {_clock(took)}")


def _keep_saying(lines: _Lines, ended: Event) -> None:
    """Lines come also while nothing is done for long."""
    while not ended.wait(max(LINE_EVERY_S, 0.01)):
        lines.say()


def remaining_s(done: int, to_do: int, seconds: float) -> float | None:
    """to_do * seconds / done; None while nothing was done."""
    return to_do * seconds / done if done > 0 else None


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _say(*parts: str) -> None:
    sys.stderr.write("  ".join(part for part in parts if part) + "\n")
    sys.stderr.flush()

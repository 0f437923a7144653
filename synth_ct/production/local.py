"""Workers as processes of this machine."""

import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from threading import Thread

from threadpoolctl import threadpool_limits

from synth_ct.production.executor import Death, batches
from synth_ct.production.order import Item
from synth_ct.production.work import Job, Told, Worker

DEATHS_IN_A_ROW = 20
"""Without a word from any worker: then workers cannot live here at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """So many processes, one thread each."""

    count: int

    def together(self, job: Job, items: Sequence[Item]) -> Iterator[Told]:
        """Work off all items; a process that dies is replaced and its batch given out again."""
        todo = deque(batches(items))
        hands: list[_Hand] = []
        silent = 0
        try:
            while todo or any(hand.batch for hand in hands):
                while todo and len(hands) < self.count:
                    hands.append(_Hand(job))
                for hand in _speaking(hands):
                    told = hand.answer()
                    if told is None:
                        silent += 1
                        _demand_life(hand, silent)
                        todo.extend([hand.batch] if hand.batch else [])
                        hands.remove(hand)
                        hand.end()
                        continue
                    silent = 0
                    yield from told
                    if todo:
                        hand.give(todo.popleft())
        finally:
            for hand in hands:
                hand.end()

    def alone(self, job: Job, items: Sequence[Item]) -> Iterator[Told | Death]:
        """One process, one item at a time; a new process after each death."""
        hand: _Hand | None = None
        try:
            for item in items:
                hand = hand or _started(job)
                hand.give([item], alone=True)
                told = hand.answer()
                if told is None:
                    yield Death(item.id, hand.guilty())
                    hand.end()
                    hand = None
                else:
                    yield from told
        finally:
            if hand is not None:
                hand.end()


class _Hand:
    """A process, and what it has been given."""

    def __init__(self, job: Job) -> None:
        context = get_context("forkserver")  # no inherited threads or locks; imports paid once
        context.set_forkserver_preload(["synth_ct.production.maker"])
        self._line, theirs = context.Pipe()
        self.process: ForkServerProcess = context.Process(target=_serve, args=(job, theirs))
        self.process.start()
        theirs.close()
        self.batch: Sequence[Item] = ()
        self.started = False

    @property
    def line(self) -> Connection:
        return self._line

    def give(self, batch: Sequence[Item], *, alone: bool = False) -> None:
        self.batch = batch
        with suppress(BrokenPipeError):  # it is dead already: `answer` will say so
            self._line.send((batch, alone))

    def answer(self) -> list[Told] | None:
        """What became of the batch (of nothing, when it has loaded); None where it died."""
        try:
            told = self._line.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return None
        if isinstance(told, str):
            raise RuntimeError(f"a worker failed; nothing that was finished is lost:\n{told}")
        self.batch, self.started = (), True
        return list(told)

    def guilty(self) -> bool:
        """Whether what it worked on may be what killed it."""
        return self.process.exitcode != -signal.SIGTERM

    def end(self) -> None:
        self._line.close()
        self.process.kill()
        self.process.join()


def _started(job: Job) -> _Hand:
    """A process that has loaded: if it dies after this, it died over what it was given."""
    hand = _Hand(job)
    if hand.answer() is None:
        raise RuntimeError(
            f"a worker process cannot start: it ended with exit code {hand.process.exitcode} "
            "before it was given anything; check memory, and the messages above"
        )
    return hand


def _speaking(hands: Sequence[_Hand]) -> list[_Hand]:
    """Who has something to say, or has died; idle ones are not waited for."""
    by_line = {hand.line: hand for hand in hands if hand.batch or not hand.started}
    return [by_line[line] for line in wait(list(by_line)) if isinstance(line, Connection)]


def _demand_life(hand: _Hand, silent: int) -> None:
    if silent > DEATHS_IN_A_ROW:
        raise RuntimeError(
            f"{silent} worker processes died one after another, the last with exit code "
            f"{hand.process.exitcode}; check memory, and the messages above"
        )


def _serve(job: Job, line: Connection) -> None:
    """The life of a process: load, then batch after batch until the line is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # for what loads later
    threadpool_limits(1)
    Thread(target=_end_with_driver, daemon=True).start()
    try:
        worker = Worker(job)
        line.send([])  # loaded
        while True:
            batch, alone = line.recv()
            line.send(worker(batch, alone=alone))
    except EOFError:
        return
    finally:
        if (error := sys.exception()) is not None:  # whatever ends it, the driver is told
            line.send("".join(traceback.format_exception(error)))


def _end_with_driver() -> None:
    """A killed driver leaves nobody to send the word to stop."""
    driver = parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)

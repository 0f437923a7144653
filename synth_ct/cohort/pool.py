"""Run a distrustful reader over many candidates, in worker processes that may die.

A reader that refuses gives a quarantine row. One that kills its process (a crash in a decoder, the
kernel's out-of-memory killer) is found by running the suspects alone, and quarantined as well.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import torch
from threadpoolctl import threadpool_limits

from synth_ct.cohort.case import Case, Found, Read
from synth_ct.kit.quarantine import Refused, SetAside

Outcome = Case | SetAside
SLIPS = (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, MemoryError)
"""What a decoder lets slip on bytes nobody foresaw: the input is set aside, the run goes on."""
DEATHS_ALLOWED = 2
"""A candidate that kills this many processes while it is alone in them is quarantined."""


def attempt(read: Read, item: Found, workspace: Path) -> Outcome:
    """Read one candidate; what cannot be trusted becomes a quarantine row."""
    try:
        return read(item, workspace)
    except Refused as refused:
        return refused.row(item.name)
    except OSError as error:
        if error.filename is None or Path(str(error.filename)) not in (*item.files, *item.labels):
            raise  # our own disk failed, not the source: stop, keep the receipts
        cause = f"the file cannot be read ({error.strerror})"
        return SetAside(code="E_UNREADABLE", file=item.name, cause=cause, remedy="check its rights")
    except SLIPS as slip:
        cause = f"the reader failed on it ({type(slip).__name__}: {slip})"
        remedy = "look at the file with another program, and report what this reader made of it"
        return SetAside(code="E_READER", file=item.name, cause=cause, remedy=remedy)


def read_all(
    read: Read, items: Sequence[Found], workspace: Path, workers: int
) -> Iterator[tuple[Found, Outcome]]:
    """Yield every candidate with its outcome, in any order; `workers=0` reads in this process."""
    if workers == 0:
        for item in items:
            yield item, attempt(read, item, workspace)
        return
    todo = deque(items)
    while todo:
        suspects: list[Found] = []
        yield from _until_a_death(read, todo, workspace, workers, suspects)
        for item in suspects:
            yield item, _alone(read, item, workspace)


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Forked from a clean server: no inherited threads or locks, and imports are paid once."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["synth_ct.cohort.pool"])
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)


def _begin() -> None:
    """One thread a worker: two workers on two cores each, all threads, took 5.8 times as long."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # for what loads later
    Thread(target=_end_with_driver, daemon=True).start()


def _end_with_driver() -> None:
    """A killed driver leaves nobody to send the word to stop: workers would wait for ever."""
    driver = parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)


def _until_a_death(
    read: Read, todo: deque[Found], workspace: Path, workers: int, suspects: list[Found]
) -> Iterator[tuple[Found, Outcome]]:
    """Work through `todo`; if a process dies, whatever was in flight becomes `suspects`."""
    with worker_pool(workers) as pool:
        flying: dict[Future[Outcome], Found] = {}
        try:
            while todo or flying:
                while todo and len(flying) < 4 * workers:
                    future = pool.submit(attempt, read, todo[0], workspace)
                    flying[future] = todo.popleft()
                done, _ = wait(flying, return_when=FIRST_COMPLETED)
                for future in done:
                    outcome = future.result()
                    yield flying.pop(future), outcome
        except BrokenProcessPool:
            suspects += flying.values()


def _demand_life(pool: ProcessPoolExecutor) -> None:
    """A process that dies before it is given anything is not the candidate's fault."""
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as broken:
        raise RuntimeError(
            "worker processes cannot start here; run with --workers 0 to see why, or check memory"
        ) from broken


def _alone(read: Read, item: Found, workspace: Path) -> Outcome:
    for _ in range(DEATHS_ALLOWED):
        try:
            with worker_pool(1) as pool:
                _demand_life(pool)
                return pool.submit(attempt, read, item, workspace).result()
        except BrokenProcessPool:
            continue
    cause = f"reading it killed its process {DEATHS_ALLOWED} times, alone each time"
    remedy = "look at the file with another program; it may be malformed or too big for memory"
    return SetAside(code="E_CRASH", file=item.name, cause=cause, remedy=remedy)

"""How much of two processes' pace is left on a pool of two Ray actors, and does sampling wait?

    .venv/bin/python benchmarks/pool.py RADIOGRAPHS MODEL [--write docs/results/pool.md]

Both executors of a corpus work off the same items, in turns: a fixed piece of arithmetic on one
thread, then a small volume written, hashed and receipted as in any corpus. Then a worker alone
makes real volumes from the radiographs with the generator at MODEL.
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from ray_jobs.cluster import connect
from ray_jobs.generate import Pool
from synth_ct.corpus.layout import make_folders, volume_file
from synth_ct.corpus.row import Row, voxel_sha256
from synth_ct.kit.artifact import code_hash
from synth_ct.kit.durable import sha256_of
from synth_ct.kit.effort import Effort
from synth_ct.kit.volume import Volume, centred_affine, save, spacing_mm
from synth_ct.production.commission import commission
from synth_ct.production.executor import BATCH, Executor
from synth_ct.production.films import films_of
from synth_ct.production.local import Processes
from synth_ct.production.maker import LoadMaker
from synth_ct.production.order import CorpusRecipe, Item, seed_of
from synth_ct.production.produce import Order, produce
from synth_ct.production.work import Job, Worker

WORKERS, ITEMS, SIDE = 2, 320, 32
WORK, TURNS = 256, 64
REAL_ITEMS = 96
GOAL, GOAL_WAITED = 93.0, 5.0
WAYS: dict[str, Executor] = {
    "two processes": Processes(count=WORKERS),
    "two Ray actors": Pool(least=WORKERS, most=WORKERS),
}


# ---- items that cost the same ------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LoadWork:
    """A maker of known cost."""

    workspace: Path

    def __call__(self) -> "Work":
        """Nothing to load."""
        return Work(self.workspace)


class Work:
    """Multiplies matrices, and notes when each item was taken up and when it was finished."""

    together = 4

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._times = workspace / f"times-{os.getpid()}"

    def read(self, item: Item) -> Item:
        """There is no film."""
        self._note(+1)
        return item

    def volumes(self, films: Sequence[Item]) -> list[np.ndarray]:
        """TURNS products for each."""
        return [self._volume(item.seed) for item in films]

    def _volume(self, seed: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        matrix = random.standard_normal((WORK, WORK)) / WORK**0.5
        power = matrix
        for _ in range(TURNS):
            power = np.tanh(power @ matrix)
        return random.integers(-1000, 1000, (SIDE,) * 3, np.int16)

    def keep(self, item: Item, made: np.ndarray) -> Row:
        """Write it, as small as it is."""
        volume = Volume(made, centred_affine((SIDE,) * 3, (10.0,) * 3))
        file = save(volume, self._workspace / volume_file(item.id))
        self._note(-1)
        return Row(
            id=item.id,
            radiograph_sha256=item.radiograph_sha256,
            patient=item.patient,
            finding=item.finding,
            sample=0,
            seed=item.seed,
            model="m" * 16,
            sampler="work",
            fingerprint="f" * 16,
            accepted=True,
            reason="",
            file_sha256=file,
            voxel_sha256=voxel_sha256(made),
            shape=made.shape,
            spacing_mm=spacing_mm(volume.affine),
        )

    def _note(self, more: int) -> None:
        with self._times.open("a") as times:  # one clock for all processes of a machine
            times.write(f"{time.monotonic()} {more}\n")


def order_of(films: Order) -> Order:
    """ITEMS items without films."""
    items = []
    for number in range(ITEMS):
        sha = sha256_of(f"item {number}".encode())
        items.append(
            Item(
                id=sha[:16],
                sample=0,
                seed=seed_of(0, sha[:16]),
                radiograph_sha256=sha,
                patient="p",
                finding="",
                path="",
            )
        )
    return Order(items=items, set_aside=(), about=films.about, names={})


def cost_s() -> float:
    """Processor time of one item's arithmetic."""
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        work = Work(Path(folder))
        begun = time.process_time()
        for seed in range(10):
            work._volume(seed)
    return (time.process_time() - begun) / 10


# ---- the race ----------------------------------------------------------------------------------


class Lap(NamedTuple):
    """One run of one way, in steady state."""

    per_second: float
    """From the tenth to the ninetieth hundredth of the items, while all workers work."""
    busy: float
    """Share of that time in which a worker had something in its hands."""
    digest: str


def lap(order: Order, executor: Executor) -> Lap:
    """Make all items in a new folder, and read off when each was taken up and finished."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        about = produce(order, workspace, LoadWork(workspace=workspace), executor, Effort())
        notes = [np.loadtxt(path) for path in workspace.glob("times-*")]
    assert len(notes) == WORKERS
    ends = [note[note[:, 1] < 0, 0] for note in notes]
    all_ends = np.sort(np.concatenate(ends))
    assert len(all_ends) == ITEMS
    low = max(all_ends[ITEMS // 10], *(times[BATCH - 1] for times in ends))
    high = min(all_ends[ITEMS * 9 // 10], *(times[-1] for times in ends))
    inside = int(((all_ends > low) & (all_ends <= high)).sum())
    idle = sum(idle_s(note, low, high) for note in notes)
    return Lap(inside / (high - low), 1 - idle / (high - low) / WORKERS, about.digest)


def idle_s(notes: np.ndarray, low: float, high: float) -> float:
    """How long one worker held nothing: between its last item's end and the next's beginning."""
    notes = notes[np.argsort(notes[:, 0], kind="stable")]
    empty = np.flatnonzero(np.cumsum(notes[:-1, 1]) == 0)
    begins, ends = notes[empty, 0], notes[empty + 1, 0]
    return float(np.clip(np.minimum(ends, high) - np.maximum(begins, low), 0, None).sum())


def race(order: Order, rounds: int) -> dict[str, list[Lap]]:
    """The ways in turns, so that all meet the same moments of the machine."""
    laps: dict[str, list[Lap]] = defaultdict(list)
    with connect(cpus=WORKERS + 1):
        for turn in range(rounds):
            names = list(WAYS) if turn % 2 == 0 else list(reversed(WAYS))
            for name in names:
                laps[name].append(lap(order, WAYS[name]))
                print(f"round {turn + 1}: {name} {laps[name][-1].per_second:.2f} items/s", end=" ")
                print(f"busy {100 * laps[name][-1].busy:.1f} %", flush=True)
    assert len({each.digest for some in laps.values() for each in some}) == 1
    return laps


# ---- real volumes ------------------------------------------------------------------------------


class Waited(NamedTuple):
    """A worker alone, on real radiographs."""

    items: int
    seconds: float
    waited_s: float


def wait_of(order: Order, model: Path) -> Waited:
    """Make volumes batch by batch, as in a pool; how long did sampling stand still for files?"""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        make_folders(workspace)
        load = LoadMaker(
            model=model, device="cpu", recipe=CorpusRecipe(gate="record"), workspace=workspace
        )
        worker = Worker(Job(workspace=workspace, run="r", load=load, code=code_hash()))
        worker(order.items[:BATCH])  # the first batch warms up
        items, before = order.items[BATCH : BATCH + REAL_ITEMS], worker.waited_s
        begun = time.monotonic()
        for start in range(0, len(items), BATCH):
            worker(items[start : start + BATCH])
        return Waited(len(items), time.monotonic() - begun, worker.waited_s - before)


# ---- the report --------------------------------------------------------------------------------


def report(laps: dict[str, list[Lap]], waited: Waited) -> str:
    """The tables, the goals, and how to make them again."""
    processes, actors = (laps[name] for name in WAYS)
    efficiency = [100 * b.per_second / a.per_second for a, b in zip(processes, actors, strict=True)]
    kept = [100 * b.busy / a.busy for a, b in zip(processes, actors, strict=True)]
    rows = [
        f"| {turn + 1} | {a.per_second:.2f} | {b.per_second:.2f} | {efficiency[turn]:.1f} "
        f"| {100 * a.busy:.1f} | {100 * b.busy:.1f} |"
        for turn, (a, b) in enumerate(zip(processes, actors, strict=True))
    ]
    return TEMPLATE.format(
        items=ITEMS,
        ms=1000 * cost_s(),
        rows="\n".join(rows),
        efficiency=f"{np.median(efficiency):.1f} %",
        kept=f"{np.median(kept):.1f} %",
        goal=f"{GOAL:.0f} %",
        real=waited.items,
        seconds=waited.seconds,
        waited=f"{100 * waited.waited_s / waited.seconds:.1f} %",
        goal_waited=f"{GOAL_WAITED:.0f} %",
        today=date.today(),
        cores=os.cpu_count(),
    )


TEMPLATE = """# The pool: what Ray costs

{items} items of {ms:.0f} ms of a core each (arithmetic on one thread, then a volume of 32^3 is
written and receipted) are worked off by two bare processes and by two actors of Ray Data, in
turns. Pace in steady state: between the tenth and the ninetieth hundredth of the items, while both
workers work. Both made the same corpus, by its digest. A worker is busy while it holds an item;
what an executor costs its workers in waiting is the rest, and this hardly depends on what else the
machine does. Pace does: where it is far from busy shares, and above all where actors beat
processes, it says what other programs did meanwhile.

| round | processes, items/s | actors, items/s | ratio, % | processes busy, % | actors busy, % |
|---|---|---|---|---|---|
{rows}

A worker alone made {real} real volumes in {seconds:.0f} s from radiographs of ChestXray2017, with
the generator of the recipe `tiny`; its waiting for files is the time in which nothing was sampled
because volumes were still being written.

| goal | found |
|---|---|
| at least {goal} of the pace of two processes | {efficiency} (median) |
| the same of the time in which workers are busy | {kept} (median) |
| sampling waits for files at most {goal_waited} of the time | {waited} |

Recipe: `.venv/bin/python benchmarks/pool.py RADIOGRAPHS MODEL --write docs/results/pool.md`,
{today}, a machine of {cores} cores that others used at the same time, CPU only; seed 0.
"""


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("radiographs", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of the actors
    films = films_of(asked.radiographs, lambda done=1, note="", /: None)
    order = commission(films, asked.model, CorpusRecipe(gate="record"))
    laps = race(order_of(order), asked.rounds)
    page = report(laps, wait_of(order, asked.model))
    print(page)
    if asked.write:
        asked.write.write_text(page)


if __name__ == "__main__":
    main()

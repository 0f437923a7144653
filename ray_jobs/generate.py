"""A corpus on a Ray actor pool. The work itself is `synth_ct.production`'s, and so is every rule.

Ray Data hands blocks of items to actors that hold the networks; actors write files and receipts,
and only words come back. What Ray does when an actor dies (try the block again, for ever) is made
safe by the worker's marks: what was in the hands of the dead comes back as a suspect. Ray's own
checkpoints of data sets are not used: they repeat work and can hang.
"""

import json
import logging
import math
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ray_jobs.cluster import connect, demand_lasting, joins
from ray_jobs.options import CORES
from synth_ct.corpus.about import About
from synth_ct.corpus.manifest import read_manifest
from synth_ct.kit.effort import Effort
from synth_ct.kit.numerics import device
from synth_ct.kit.progress import Tick, progress
from synth_ct.kit.quarantine import REPORT
from synth_ct.production.executor import BATCH, Death, Executor, batches
from synth_ct.production.films import count_of, films_of
from synth_ct.production.local import Processes
from synth_ct.production.order import CorpusRecipe, Item
from synth_ct.production.stage import Hands, finished, make_corpus
from synth_ct.production.work import BEGUN, Job, Told, Worker

STATUS_EVERY_S = 10.0
LOADS_THAT_MAY_DIE = 3
"""In a row, of all actors; then they cannot live here at all."""
RAISED = re.compile(r"(?!ray\.)[A-Za-z_][\w.]*: \S")
"""The line of a traceback that names what was raised, but for Ray's own."""
Columns = dict[str, NDArray[np.object_]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """How many actors, and what each holds. Nothing here changes what is made."""

    least: int
    most: int
    gpus: float | None = None
    """Of each actor; None takes one where the cluster has any."""

    def together(self, job: Job, items: Sequence[Item]) -> Iterator[Told]:
        """Work off all items in blocks; the pool grows and shrinks between its bounds."""
        with _failures_explained():
            for block in self._blocks(job, items):
                for told in zip(*(block[name] for name in Told._fields), strict=True):
                    yield Told(*told)

    def _blocks(self, job: Job, items: Sequence[Item]) -> Iterator[Columns]:
        import ray
        from ray.data import ActorPoolStrategy

        _hush()
        rows = [{"item": json.dumps(asdict(item))} for item in items]
        blocks = len(batches(items))
        told = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            _Actor,
            fn_constructor_args=(job,),
            batch_size=BATCH,
            compute=ActorPoolStrategy(min_size=min(self.least, blocks), max_size=self.most),
            num_cpus=1,
            num_gpus=self.gpus or 0,
        )
        yield from told.iter_batches(batch_size=None, batch_format="numpy")

    def alone(self, job: Job, items: Sequence[Item]) -> Iterator[Told | Death]:
        """One actor, one item at a time; a new actor after each death."""
        import ray
        from ray.exceptions import RayActorError

        lone = ray.remote(num_cpus=1, num_gpus=self.gpus or 0, max_restarts=0)(_LoneActor)
        actor: Any = None
        node = ""
        with _failures_explained():
            for item in items:
                if actor is None:
                    actor = lone.remote(job)
                    node = ray.get(actor.node.remote())  # loaded: what kills it now is the item
                try:
                    yield from ray.get(actor.make.remote(item))
                except RayActorError:
                    actor = None
                    asked = _was_asked_to_end(job, item)
                    yield Death(item.id, guilty=_alive(node) and not asked)
        if actor is not None:
            ray.kill(actor)


def _hush() -> None:
    """Ray Data writes into its log file alone; a few loads may die without ending the run."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = LOADS_THAT_MAY_DIE
    logger = logging.getLogger("ray.data")
    for handler in list(logger.handlers):
        if isinstance(handler, logging.StreamHandler):
            logger.removeHandler(handler)


@contextmanager
def _failures_explained() -> Generator[None, None, None]:
    """What a worker raised, without the frames of Ray around it."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        said = [line for line in str(error).splitlines() if RAISED.match(line)] or [str(error)]
        raise RuntimeError(
            f"a worker failed, and nothing that was finished is lost: {said[-1]} "
            "(mend that and run the same command again; --debug says more)"
        ) from error


class _Actor:
    """One of the pool."""

    def __init__(self, job: Job) -> None:
        self._worker = Worker(job)

    def __call__(self, columns: Columns) -> Columns:
        told = self._worker([Item(**json.loads(str(text))) for text in columns["item"]])
        return {
            name: np.array([getattr(word, name) for word in told], dtype=object)
            for name in Told._fields
        }


class _LoneActor:
    """For suspects. Says so, should somebody ask it to end."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._worker = Worker(job)
        self._item: Item | None = None
        signal.signal(signal.SIGTERM, self._end)

    def node(self) -> str:
        """On which machine it is."""
        import ray

        return ray.get_runtime_context().get_node_id()

    def make(self, item: Item) -> list[Told]:
        """One item, marked or not."""
        self._item = item
        return self._worker([item], alone=True)

    def _end(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._item is not None:
            _asked(self._job, self._item).touch()
        sys.exit(1)


def _asked(job: Job, item: Item) -> Path:
    return job.workspace / BEGUN / job.run / f"{item.id}.asked"


def _was_asked_to_end(job: Job, item: Item) -> bool:
    """Of its last death; the word is taken away, for it excuses no other."""
    asked = _asked(job, item)
    was = asked.exists()
    asked.unlink(missing_ok=True)
    return was


def _alive(node: str) -> bool:
    import ray

    return any(found["NodeID"] == node and found["Alive"] for found in ray.nodes())


# ---- before the work ---------------------------------------------------------------------------


def demand_gpus(pool: Pool, wait_for: int) -> None:
    """Refuse what the cluster cannot give; with `wait_for`, wait until it has so many GPUs.

    Ray itself would wait for ever and say nothing. A cluster scaled to zero has none now and may
    have them soon, which only a person can know.
    """
    import ray
    from ray.autoscaler.sdk import request_resources

    wanted = max(pool.least * (pool.gpus or 0), float(wait_for))
    begun = time.monotonic()
    said = begun - STATUS_EVERY_S
    try:
        while (there := float(ray.cluster_resources().get("GPU", 0))) < wanted:
            if not wait_for:
                raise ValueError(
                    f"{pool.least} actors of {pool.gpus or 0:g} GPU need {wanted:g}; the cluster "
                    f"has {there:g}; ask for fewer, or wait for them with --wait-gpus N"
                )
            request_resources(bundles=[{"GPU": 1.0}] * math.ceil(wanted))
            if time.monotonic() - said >= STATUS_EVERY_S:
                said = time.monotonic()
                waited = said - begun
                sys.stderr.write(f"waiting for {wanted:g} GPUs: {there:g} there, {waited:.0f} s\n")
            time.sleep(1)
    finally:
        if wait_for:
            request_resources(bundles=[])  # a standing request would keep the nodes for ever


def demand_cpus(pool: Pool) -> None:
    """An actor needs a CPU; a pool that cannot even begin is refused."""
    import ray

    there = ray.cluster_resources().get("CPU", 0)
    if pool.least > there:
        raise ValueError(
            f"{pool.least} actors need {pool.least} CPUs and the cluster has {there:g}; "
            "ask for fewer, or --actors MIN:MAX with a smaller MIN"
        )


# ---- the command -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a person wants of `generate`."""

    radiographs: Path
    out: Path
    model: Path
    recipe: CorpusRecipe
    pool: Pool
    wait_gpus: int = 0
    local: bool = False
    retry: frozenset[str] = frozenset()


def generate_corpus(asked: Asked) -> tuple[dict[str, Any], list[str]]:
    """Make the corpus, or go on with it; the answer for machines and for people."""
    demand_lasting(asked.out)
    begun = time.monotonic()
    with progress("reading radiographs", count_of(asked.radiographs)) as tick:
        films = films_of(asked.radiographs, tick)
    pace = Pace()
    about = finished(films, asked.model, asked.recipe, asked.out, asked.retry)
    if about is None:
        with _workers(asked, pace) as hands:
            about = make_corpus(films, asked.model, asked.recipe, asked.out, hands, asked.retry)
    seconds = time.monotonic() - begun
    result = {
        "corpus": str(asked.out),
        **about.counts.model_dump(),
        "pending": 0,
        "seconds": round(seconds, 3),
        "volumes_per_second": round(pace.items / pace.seconds, 3) if pace.items else 0.0,
        "digest": about.digest,
    }
    return result, _lines(about, asked.out, pace)


class Pace:
    """Counts what this run made, and the time it took."""

    def __init__(self) -> None:
        self.items = 0
        self.seconds = 0.0

    @contextmanager
    def counting(self, total: int) -> Generator[Tick, None, None]:
        """A progress display that counts; what earlier runs made comes in the first call."""
        begun = time.monotonic()
        first = True
        with progress("volumes", total) as shown:

            def tick(done: int = 1, note: str = "", /) -> None:
                nonlocal first
                self.items += 0 if first else done
                first = False
                self.seconds = time.monotonic() - begun
                shown(done, note)

            yield tick


@contextmanager
def _workers(asked: Asked, pace: Pace) -> Generator[Hands, None, None]:
    _demand_sensible(asked)
    with ExitStack() as open_until_done:

        def begin(total: int) -> Tick:
            return open_until_done.enter_context(pace.counting(total))

        if asked.local:
            executor: Executor = Processes(count=asked.pool.most)
            sys.stderr.write(f"starting {asked.pool.most} processes on {device()}\n")
            yield Hands(executor=executor, effort=Effort(device=device(), begin=begin))
        else:
            cluster = open_until_done.enter_context(connect(cpus=asked.pool.most + 1))
            pool = _with_gpus(asked.pool, cluster.gpus or asked.wait_gpus)
            demand_gpus(pool, asked.wait_gpus)
            demand_cpus(pool)  # those of a cluster scaled to zero come with its GPUs
            where = "cuda" if pool.gpus else "cpu"
            sys.stderr.write(f"starting {pool.least} to {pool.most} actors on {where}\n")
            yield Hands(executor=pool, effort=Effort(device=where, begin=begin))


def _demand_sensible(asked: Asked) -> None:
    """What can never come is refused before anything is started."""
    if asked.local and (asked.pool.gpus is not None or asked.wait_gpus):
        raise ValueError("--gpus-per-actor and --wait-gpus are for Ray; leave --local out")
    if joins():
        return
    if asked.pool.most > CORES:
        raise ValueError(
            f"--actors {asked.pool.most}: an actor needs a core, and this machine has {CORES}; ask "
            "for fewer, or set RAY_ADDRESS to join a cluster"
        )
    if asked.wait_gpus > torch.cuda.device_count():
        raise ValueError(
            f"--wait-gpus {asked.wait_gpus}: this machine has {torch.cuda.device_count()} and will "
            "get no more; set RAY_ADDRESS to join a cluster that may"
        )


def _with_gpus(pool: Pool, gpus: int) -> Pool:
    """One GPU an actor where there are any and nothing else is said."""
    return pool if pool.gpus is not None else replace(pool, gpus=1.0 if gpus else 0.0)


def _lines(about: About, out: Path, done: Pace) -> list[str]:
    counts = about.counts
    pace = f", {done.items / done.seconds:.2f} volumes/s" if done.items else ", nothing to do"
    failed = Counter(row.reason for row in read_manifest(out) if not row.accepted)
    why = ", ".join(f"{n} {reason}" for reason, n in failed.most_common())
    codes = ", ".join(f"{n} {code}" for code, n in about.codes.items())
    return [
        f"{counts.committed} volumes of {counts.total} items in {out}{pace}",
        f"rejected {counts.rejected}"
        + (f" by the gate ({why}; --gate record keeps such volumes)" if why else ""),
        f"quarantined {counts.quarantined}" + (f" ({codes}; see {out / REPORT})" if codes else ""),
        f"digest {about.digest}",
        f"SYNTHETIC. scale: {about.scale}; trained_on: {about.trained_on}",
    ]

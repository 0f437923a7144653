"""The stages that train, shared by the workers of Ray Train.

Each worker calls the very stage on the same workspace; the loop finds the process group by itself.
Checkpoints are the loop's: rank 0 writes them and every rank begins from the newest, so a group
that Ray starts again goes on where the one before was saved. Of Ray's own files none remains.
"""

import json
import logging
import shutil
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import torch

from pretrain.stage import PretrainRecipe
from ray_jobs import plan
from ray_jobs.cluster import Cluster, connect, joins
from ray_jobs.options import CORES
from ray_jobs.plan import Make, Step
from synth_ct.kit.checkpoint import Checkpoints
from synth_ct.kit.effort import Effort, shown_by
from synth_ct.kit.loop import Log, Training, slots_of
from synth_ct.kit.place import CHECKPOINTS, ROWS
from synth_ct.kit.recipe import Recipe
from synth_ct.learners.autoencoder import AutoencoderRecipe
from synth_ct.learners.denoiser import DenoiserRecipe
from synth_ct.learners.prior import PriorRecipe
from synth_ct.training import StyleStage

logger = logging.getLogger(__name__)

STORAGE = "ray"
"""Ray's own folder in the workspace, while it works."""
LOOK_EVERY_S = 0.5
TAIL_BYTES = 2**14
"""Longer than any row of a curve."""


class Work(NamedTuple):
    """One call of a stage."""

    stage: Make
    recipe: Recipe
    workspace: Path
    inputs: Mapping[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """Who shares it. Nothing here changes the weights, beyond the order in which sums are taken."""

    workers: int = 1
    use_gpu: bool = False
    """One for each worker."""
    threads: int = 1
    """Of torch, in each worker."""
    max_failures: int = 3
    """How often the group is started again after a worker died."""


def training_of(recipe: Recipe) -> Training | None:
    """How a step of this recipe trains; None where it does not."""
    match recipe:
        case AutoencoderRecipe() | PriorRecipe() | DenoiserRecipe():
            return recipe.training
        case StyleStage() if recipe.style.kind == "cyclegan":
            return recipe.style.training
        case PretrainRecipe() if recipe.arm != "scratch":
            return recipe.network.training
    return None


# ---- steps of a run ----------------------------------------------------------------------------


def on_ray(steps: Sequence[Step], root: Path, workers: int) -> list[Step]:
    """The same steps, their trainings shared by so many workers; refused where they cannot be."""
    found = plan.inspect(steps, root)
    return [
        step if result.status == "done" else _on_ray(step, workers)
        for step, result in zip(steps, found, strict=True)
    ]


def _on_ray(step: Step, workers: int) -> Step:
    training, stage = training_of(step.recipe), step.make
    if training is None or stage is None or (step.where == "task" and workers == 1):
        return step
    if isinstance(step.recipe, StyleStage):
        workers = 1  # its pool of earlier fakes belongs to one process
    try:
        slots_of(training, 0, workers)
    except ValueError as error:
        raise ValueError(f"{step.name}: {error}") from error

    def make(recipe: Any, workspace: Path, inputs: dict[str, Path], effort: Effort) -> None:
        with connect(cpus=max(workers, CORES)) as cluster:
            team = Team(
                workers=workers,
                use_gpu=step.gpus > 0 or cluster.gpus >= workers,
                threads=max(1, CORES // workers) if cluster.ours else 1,
            )
            train_on_ray(Work(stage, recipe, workspace, inputs), team, cluster, effort)

    # Only the cluster knows the GPUs of a cluster.
    gpus = 0.0 if joins() or not step.gpus else float(workers)
    return replace(step, make=make, gpus=gpus, where="driver")


# ---- one training ------------------------------------------------------------------------------


def train_on_ray(work: Work, team: Team, cluster: Cluster, effort: Effort) -> None:
    """Call the stage in every worker of a group; a worker that dies costs a restart of all."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    from ray_jobs.mistakes import MistakesEndIt

    training = training_of(work.recipe)
    assert training is not None, "this stage does not train"
    slots_of(training, 0, team.workers)
    if team.use_gpu and cluster.gpus < team.workers:
        raise ValueError(
            f"{team.workers} workers need a GPU each and the cluster has {cluster.gpus}; "
            "give it more, or train with fewer workers"
        )
    workspace = work.workspace.resolve()  # workers have a working directory of their own
    inputs = {name: path.resolve() for name, path in work.inputs.items()}
    storage = workspace / STORAGE
    callbacks: list[Any] = [MistakesEndIt()]
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "work": work._replace(workspace=workspace, inputs=inputs),
            "threads": team.threads,
        },
        scaling_config=ScalingConfig(num_workers=team.workers, use_gpu=team.use_gpu),
        run_config=RunConfig(
            name="run",
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=team.max_failures),
            callbacks=callbacks,
        ),
    )
    log = shown_by(effort.begin(training.steps))
    try:
        with _followed(workspace / ROWS, log):
            trainer.fit()
    except TrainingFailedError as error:
        raise explained(error, workspace, cluster.logs) from error
    except SystemExit as stop:
        if stop.code not in (0, 1):
            raise
        raise KeyboardInterrupt from stop  # what Ray makes of Ctrl-C
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    log(training.steps, {})


def _work(settings: dict[str, Any]) -> None:
    """In each worker."""
    from ray.train.torch import get_device

    work: Work = settings["work"]
    torch.set_num_threads(settings["threads"])
    effort = Effort(device=str(get_device()))
    try:
        work.stage(work.recipe, work.workspace, dict(work.inputs), effort)
    except ValueError as error:
        raise ValueError(str(error)) from error  # a class of ours may not survive the journey


def explained(error: Exception, workspace: Path, logs: Path) -> Exception:
    """A mistake in its own words; else who failed, what stands, and what to do."""
    from ray.train import ControllerError, WorkerGroupError

    if isinstance(error, ControllerError) and isinstance(error.controller_failure, ValueError):
        return ValueError(str(error.controller_failure))
    failures = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    said = [f"worker {rank}: {_in_short(failure)}" for rank, failure in sorted(failures.items())]
    saved = Checkpoints(folder=workspace / CHECKPOINTS).steps()
    stands = f"Step {saved[-1]} is saved" if saved else "Nothing is saved yet"
    return RuntimeError(
        f"the training in {workspace} failed more often than it may "
        f"({'; '.join(said) or _in_short(error)}); all that its workers said is in {logs}. "
        f"{stands}: mend the cause and run the same command again to go on from there"
    )


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {shorten(str(error), 120, placeholder='...')}"


# ---- how far it is -----------------------------------------------------------------------------


@contextmanager
def _followed(rows: Path, log: Log) -> Generator[None, None, None]:
    """Tell of the rows that rank 0 writes, until the block ends."""
    ended = threading.Event()
    follower = threading.Thread(target=_follow, args=(rows, log, ended), daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()


def _follow(rows: Path, log: Log, ended: threading.Event) -> None:
    told = 0
    while not ended.wait(LOOK_EVERY_S):
        step, row = newest_row(rows)
        if step in (0, told):
            continue
        if step < told:
            logger.warning("a worker died at step %d; the group goes on from a checkpoint", told)
        log(step, row)
        told = step


def newest_row(rows: Path) -> tuple[int, dict[str, float]]:
    """The step and the values of the last whole line; step 0 where there is none."""
    try:
        with rows.open("rb") as file:
            file.seek(max(0, rows.stat().st_size - TAIL_BYTES))
            whole, _, _ = file.read().rpartition(b"\n")
    except FileNotFoundError:
        whole = b""
    row = json.loads(whole.rpartition(b"\n")[2] or '{"step": 0}')
    return row.pop("step"), row

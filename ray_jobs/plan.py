"""The step runner: which folder is made from which, by what. Makes what is missing, in order."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ray_jobs.cluster import joins
from synth_ct.kit.artifact import Record, is_done, publish, read_record
from synth_ct.kit.effort import Effort
from synth_ct.kit.recipe import Recipe

logger = logging.getLogger(__name__)

Stage = Literal["cohorts", "generator", "corpus", "encoder", "folds", "report"]
STAGES: tuple[Stage, ...] = ("cohorts", "generator", "corpus", "encoder", "folds", "report")
Status = Literal["made", "done", "missing"]
Where = Literal["driver", "task"]
Make = Callable[[Any, Path, dict[str, Path], Effort], None]
"""make(recipe, workspace to fill, finished inputs by name, how fast)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A folder that can be made."""

    name: str
    """Where it lives below the root: "cohorts/ct"."""
    stage: Stage
    recipe: Recipe
    """Everything that changes what is in the folder, nothing else."""
    make: Make | None
    """None: real data, which a person ingests before the run."""
    inputs: tuple["Step", ...] = ()
    gpus: float = 0.0
    """GPUs it holds while it runs; without them it waits, it never falls back."""
    where: Where = "driver"
    """"task": `make` may run in any process of a cluster. What drives Ray itself may not."""
    demand: Callable[[], object] = lambda: None
    """Raises, before anything is made, if something it will want is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one step."""

    name: str
    status: Status
    seconds: float
    folder: str


def until(steps: Sequence[Step], stage: Stage) -> list[Step]:
    """The steps of all stages up to and including `stage`."""
    last = STAGES.index(stage)
    return [step for step in steps if STAGES.index(step.stage) <= last]


def wanted_record(step: Step, root: Path) -> Record | None:
    """What the folder would hold, or None while an input is not finished."""
    if step.make is None:
        return _ingested(step, root)
    prints: dict[str, str] = {}
    for source in step.inputs:
        record = read_record(root / source.name)
        if record is None:
            return None
        prints[source.name] = record.fingerprint
    return Record(kind=step.name, recipe=step.recipe.model_dump(mode="json"), inputs=prints)


def _ingested(step: Step, root: Path) -> Record | None:
    """What was ingested, if it is by the importer and seed the recipe names."""
    found = read_record(root / step.name)
    if found is None:
        return None
    asked = step.recipe.model_dump(mode="json")
    was = {field: found.recipe.get(field) for field in asked}
    if was != asked:
        raise ValueError(
            f"{root / step.name} was ingested as {was}, and the recipe asks for {asked}; "
            "ingest it anew, or choose another root"
        )
    return found


def inspect(steps: Sequence[Step], root: Path) -> list[Result]:
    """Say what is done and what is missing; refuse what was made by another recipe."""
    results = []
    for step in steps:
        wanted = wanted_record(step, root)
        done = wanted is not None and is_done(root / step.name, wanted)
        folder = str(root / step.name)
        status: Status = "done" if done else "missing"
        results.append(Result(name=step.name, status=status, seconds=0.0, folder=folder))
    return results


def run(steps: Sequence[Step], root: Path, effort: Callable[[str], Effort]) -> list[Result]:
    """Make what is missing, in the order given; finished folders are left alone.

    Everything is inspected before anything is made, so that a changed recipe is refused at once
    and not after an hour of work.
    """
    demand_possible(still_missing(steps, root), root)
    return [make_step(step, root, effort(step.name)) for step in steps]


def still_missing(steps: Sequence[Step], root: Path) -> list[Step]:
    """Those that are not done; refuse what was made by another recipe."""
    found = zip(steps, inspect(steps, root), strict=True)
    return [step for step, result in found if result.status == "missing"]


def demand_possible(missing: Sequence[Step], root: Path) -> None:
    """All that this machine cannot make, and that only a person can bring, is said at once."""
    faults = []
    if yours := [ingest_command(step, root) for step in missing if step.make is None]:
        faults.append(f"real data that only you have is missing: {'; '.join(yours)}")
    faults += dict.fromkeys(filter(None, (lacking(step) for step in missing)))
    here = torch.cuda.device_count()
    if short := [step for step in missing if step.gpus > here and not _elsewhere(step)]:
        names, most = ", ".join(step.name for step in short), max(step.gpus for step in short)
        need = "needs" if len(short) == 1 else "need"
        faults.append(
            f"{names} {need} {most:g} GPU and this machine has {here}; run where there is one, "
            "or make what can be made here with --until cohorts"
        )
    if faults:
        raise ValueError(". ".join(faults))


def demand_gpu(recipe: str, gpus: float) -> None:
    """A single training on a person's own data never falls back to the CPU unasked."""
    here = torch.cuda.device_count()
    if gpus > here and not joins():
        raise ValueError(
            f"a training of recipe {recipe} needs {gpus:g} GPU and this machine has {here}; run "
            "where there is one, or say --set gpus=0 for the CPU, or --recipe tiny to try it out"
        )


def _elsewhere(step: Step) -> bool:
    """Only the cluster knows the GPUs of a cluster."""
    return step.where == "task" and joins()


def foretold(step: Step, found: Result, root: Path) -> str:
    """A line of a dry run: what is there, what will be made, what a person must bring first."""
    if found.status == "done":
        return f"{found.status:8}{step.name}"
    if step.make is None:
        return f"{'bring':8}{step.name}  {ingest_command(step, root)}"
    wants = lacking(step)
    return f"{found.status:8}{step.name}" + (f"  but: {wants}" if wants else "")


def ingest_command(step: Step, root: Path) -> str:
    """What a person types to bring real data."""
    asked = step.recipe.model_dump()
    seed = f" --seed {asked['seed']}" if asked["seed"] else ""
    return f"synth-ct ingest {asked['importer']} SRC {root / step.name}{seed}"


def lacking(step: Step) -> str:
    """What a step will want and is not there, in its own words."""
    try:
        step.demand()
    except ValueError as error:
        return str(error)
    return ""


def make_step(step: Step, root: Path, effort: Effort) -> Result:
    """Make the folder, or find it done."""
    wanted = wanted_record(step, root)
    if wanted is None:
        missing = [s.name for s in step.inputs if read_record(root / s.name) is None]
        raise ValueError(f"{step.name} needs {', '.join(missing)}, not finished under {root}")
    folder, begun = root / step.name, time.monotonic()
    status: Status = "done"
    if step.make is not None and not is_done(folder, wanted):
        status = "made"
        logger.info("%s: making", step.name)
        with publish(folder, wanted, effort.device) as workspace:
            inputs = {source.name: root / source.name for source in step.inputs}
            step.make(step.recipe, workspace, inputs, effort)
    seconds = round(time.monotonic() - begun, 3)
    return Result(name=step.name, status=status, seconds=seconds, folder=str(folder))

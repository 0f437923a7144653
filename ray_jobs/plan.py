"""The step runner: which folder is made from which, by what. Makes what is missing, in order."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from synth_ct.kit.artifact import Record, is_done, publish, read_record
from synth_ct.kit.effort import Effort
from synth_ct.kit.recipe import Recipe

logger = logging.getLogger(__name__)

Stage = Literal["cohorts", "generator", "corpus", "encoder", "folds", "report"]
STAGES: tuple[Stage, ...] = ("cohorts", "generator", "corpus", "encoder", "folds", "report")
Status = Literal["made", "done", "missing"]
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
    for step, found in zip(steps, inspect(steps, root), strict=True):
        if found.status == "missing":
            _demand_possible(step, root)
    return [_make(step, root, effort(step.name)) for step in steps]


def _demand_possible(step: Step, root: Path) -> None:
    """What this machine cannot make, and what nobody but a person can bring, is said at once."""
    if step.make is None:
        importer = step.recipe.model_dump()["importer"]
        raise ValueError(
            f"{root / step.name} is real data, and only you have it: "
            f"synth-ct ingest {importer} SRC {root / step.name}"
        )
    step.demand()
    if step.gpus > torch.cuda.device_count():
        raise ValueError(
            f"{step.name} needs {step.gpus:g} GPU and this machine has "
            f"{torch.cuda.device_count()}; run it where there is one, or make what can be made "
            "here with --until cohorts"
        )


def _make(step: Step, root: Path, effort: Effort) -> Result:
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

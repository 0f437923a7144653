"""What a run will take, before anything is made: hours, disk, the critical path, who waits.

The schedule is that of `ray_jobs.graph`: the driver's steps one after the other, then all tasks
that can be together, those with the longest way still before them first.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ray_jobs import plan
from ray_jobs.estimates import Estimate, device_of, estimate, known
from ray_jobs.plan import STAGES, Result, Step
from ray_jobs.workload import CORE, H200
from synth_ct.production.controls import ControlRecipe
from synth_ct.production.order import CorpusRecipe

CORES = 2
"""What is planned for beside GPUs, or without."""
HOUR_S = 3600.0
OF_A_GRID = re.compile(r"-[^-]+(-f\d+)?-s\d+$")
"""Arm, fold and seed in a folder's name."""
HEADER = f"{'stage':12}{'steps':>6}{'to make':>9}{'GPU hours':>11}{'core hours':>12}  disk"
WORTH_TELLING_S = 30.0
CAVEATS = {
    H200.name: "GPU hours are the least a plain program takes, core hours are rough",
    CORE.name: "core hours are rough: within a factor of two or three",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A step as the schedule sees it."""

    name: str
    seconds: float
    slots: float
    """Devices it holds meanwhile."""
    alone: bool = False
    """The driver does nothing beside it."""
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How jobs follow one another on so many devices."""

    devices: int
    seconds: float
    """From the first to the last."""
    path: tuple[Job, ...]
    """The longest way through the graph: no number of devices makes it shorter."""

    @property
    def path_seconds(self) -> float:
        """Of the critical path."""
        return sum((job.seconds for job in self.path), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One step, and what is still to be spent on it."""

    step: Step
    found: Result
    seconds: float
    """On one device; 0 for what is done or brought."""
    cost: Estimate
    """Of what is done, nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Of a run."""

    planned: tuple[Planned, ...]
    schedule: Schedule
    device: str
    """That the schedule counts."""
    idle_share: float


# ---- the schedule ------------------------------------------------------------------------------


def scheduled(jobs: Sequence[Job], devices: int) -> Schedule:
    """A list schedule. Jobs stand after their inputs."""
    ahead = _ahead(jobs)
    waiting = sorted(jobs, key=lambda job: -ahead[job.name])
    running: dict[str, tuple[float, Job]] = {}
    done: set[str] = set()
    now = 0.0
    while waiting or running:
        for job in _startable(waiting, running, done, devices):
            running[job.name] = now + job.seconds, job
            waiting.remove(job)
        assert running, "a job that needs more devices than there are was not cut to size"
        now = min(end for end, _ in running.values())
        done |= (ended := {name for name, (end, _) in running.items() if end <= now})
        running = {name: each for name, each in running.items() if name not in ended}
    return Schedule(devices=devices, seconds=now, path=critical_path(jobs))


def _startable(
    waiting: Sequence[Job],
    running: Mapping[str, tuple[float, Job]],
    done: set[str],
    devices: int,
) -> list[Job]:
    """What may start now: a job of the driver if all is quiet, or tasks while there is room."""
    ready = [job for job in waiting if done.issuperset(job.inputs)]
    own = [job for job in ready if job.alone]
    if own or any(job.alone for _, job in running.values()):
        return [] if running else own[:1]
    free = devices - sum(job.slots for _, job in running.values())
    chosen = []
    for job in ready:
        if job.slots <= free:
            chosen.append(job)
            free -= job.slots
    return chosen


def _ahead(jobs: Sequence[Job]) -> dict[str, float]:
    """Seconds of the longest way from each job's start to the end."""
    after: dict[str, float] = dict.fromkeys((job.name for job in jobs), 0.0)
    ahead: dict[str, float] = {}
    for job in reversed(jobs):
        ahead[job.name] = job.seconds + after[job.name]
        for name in job.inputs:
            after[name] = max(after[name], ahead[job.name])
    return ahead


def critical_path(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """The longest way through the graph, without what takes no time."""
    ahead, path = _ahead(jobs), list[Job]()
    ways = list(jobs)
    while ways:
        longest = max(ways, key=lambda job: ahead[job.name])
        path.append(longest)
        ways = [job for job in jobs if longest.name in job.inputs]
    return tuple(job for job in path if job.seconds)


# ---- a run -------------------------------------------------------------------------------------


def forecast(steps: Sequence[Step], found: Sequence[Result], root: Path, gpus: int) -> Forecast:
    """For so many GPUs; for cores, where no step needs a GPU."""
    cohorts = known(steps, root)
    planned = tuple(_planned(s, r, estimate(s, cohorts)) for s, r in zip(steps, found, strict=True))
    on_gpus = any(step.gpus for step in steps)
    devices = max(1, gpus) if on_gpus else CORES
    jobs = [_job(each, devices, on_gpus) for each in planned]
    schedule = scheduled(jobs, devices)
    work = sum(job.seconds * job.slots for job in jobs)
    idle_share = 1 - work / (devices * schedule.seconds) if schedule.seconds else 0.0
    return Forecast(
        planned=planned,
        schedule=schedule,
        device=H200.name if on_gpus else CORE.name,
        idle_share=idle_share,
    )


def _planned(step: Step, found: Result, cost: Estimate) -> Planned:
    if found.status == "done":
        cost = Estimate()
    nothing = found.status == "done" or step.make is None
    seconds = 0.0 if nothing else cost.seconds(device_of(step))
    return Planned(step=step, found=found, seconds=seconds, cost=cost)


def _job(each: Planned, devices: int, on_gpus: bool) -> Job:
    """A corpus has an actor a device, other volumes a process a core; a training has one device."""
    step, alone = each.step, each.step.where == "driver"
    wanted = min(step.gpus, devices) if step.gpus else 1
    if isinstance(step.recipe, CorpusRecipe | ControlRecipe) or (alone and not each.cost.passes):
        wanted = devices if step.gpus else CORES
        shared = wanted
    else:
        shared = 1
    return Job(
        name=step.name,
        seconds=each.seconds / shared,
        slots=float(wanted) if bool(step.gpus) == on_gpus else 0.0,
        alone=alone,
        inputs=tuple(source.name for source in step.inputs),
    )


# ---- told --------------------------------------------------------------------------------------


def told(made: Forecast, root: Path, gpus: int | None) -> list[str]:
    """For a person: every kind of step, then the stages, then the schedule."""
    lines = [line for group in _alike(made.planned) for line in _group_lines(group, root)]
    lines += [
        "",
        f"{'stage':12}{'steps':>6}{'to make':>9}{'GPU hours':>11}{'core hours':>12}  disk",
    ]
    lines += [_row(name, chosen) for name, chosen in _stages(made.planned)]
    lines += [_row("all", made.planned), ""]
    lines += _schedule_lines(made)
    if brought := [each for each in made.planned if _is_brought(each)]:
        size = _size(sum(each.cost.stored for each in brought))
        lines.append(f"to bring first: {_names(brought)}, about {size}; the commands are above")
    if short := _short(made, gpus):
        lines.append(f"more GPUs needed by: {_names(short)}")
    return [*lines, f"{CAVEATS[made.device]}; see docs/forecast.md"]


def as_json(made: Forecast) -> dict[str, Any]:
    """The same for a program."""
    schedule = made.schedule
    return {
        "device": made.device,
        "devices": schedule.devices,
        "gpu_hours": _hours(made.planned, on_gpus=True),
        "core_hours": _hours(made.planned, on_gpus=False),
        "bytes": sum(each.cost.stored for each in made.planned),
        "working_bytes": _working(made),
        "makespan_hours": schedule.seconds / HOUR_S,
        "critical_path_hours": schedule.path_seconds / HOUR_S,
        "critical_path": [
            {"name": job.name, "hours": job.seconds / HOUR_S} for job in schedule.path
        ],
        "idle_share": made.idle_share,
        "bring": [each.step.name for each in made.planned if _is_brought(each)],
    }


def rows(made: Forecast) -> list[dict[str, Any]]:
    """Each step for a program."""
    return [
        {
            **asdict(each.found),
            "gpus": each.step.gpus,
            "hours": each.seconds / HOUR_S,
            "bytes": each.cost.stored,
        }
        for each in made.planned
    ]


def _alike(planned: Sequence[Planned]) -> list[list[Planned]]:
    """Steps of a grid that differ in arm, fold and seed alone and cost the same, together."""
    groups: dict[tuple[str, str, int], list[Planned]] = {}
    for each in planned:
        kind = OF_A_GRID.sub("", each.step.name)
        groups.setdefault((kind, each.found.status, round(each.seconds)), []).append(each)
    return list(groups.values())


def _group_lines(group: Sequence[Planned], root: Path) -> Iterator[str]:
    first = group[0]
    line = plan.foretold(first.step, first.found, root)
    if first.found.status == "done" or _is_brought(first):
        yield from (plan.foretold(each.step, each.found, root) for each in group[:1])
        if len(group) > 1:
            yield f"{'':8}and {len(group) - 1} more like it"
        return
    what, but, why = line.partition("  but: ")
    if len(group) > 1:
        what = f"{'missing':8}{_grid_name(group)}"
    count = f"{len(group)} x " if len(group) > 1 else ""
    device = "GPU" if first.step.gpus else "core"
    cost = f"{count}{_time(first.seconds)} of a {device}, {_size(first.cost.stored)}"
    needs = _sources(group)
    yield f"{what:40}  {cost}{f'  <- {needs}' if needs else ''}{but}{why}"


def _grid_name(group: Sequence[Planned]) -> str:
    """`fits/bcv-swin-*`; with the arm, if all have the same."""
    named = {re.sub(r"(-f\d+)?-s\d+$", "", each.step.name) for each in group}
    kind = named.pop() if len(named) == 1 else OF_A_GRID.sub("", group[0].step.name)
    return f"{kind}-*"


def _sources(group: Sequence[Planned]) -> str:
    """All inputs, those of a grid as one."""
    names = [source.name for each in group for source in each.step.inputs]
    return ", ".join(dict.fromkeys(OF_A_GRID.sub("-*", name) for name in names))


def _is_brought(each: Planned) -> bool:
    return each.step.make is None and each.found.status != "done"


def _stages(planned: Sequence[Planned]) -> Iterator[tuple[str, list[Planned]]]:
    ordered = sorted(planned, key=lambda each: STAGES.index(each.step.stage))
    for stage, chosen in groupby(ordered, key=lambda each: each.step.stage):
        yield stage, list(chosen)


def _row(name: str, chosen: Sequence[Planned]) -> str:
    missing = sum(each.found.status != "done" for each in chosen)
    gpu_hours, core_hours = (_hours(chosen, on_gpus=on_gpus) for on_gpus in (True, False))
    disk = _size(sum(each.cost.stored for each in chosen))
    return f"{name:12}{len(chosen):6}{missing:9}{gpu_hours:11.2f}{core_hours:12.2f}  {disk}"


def _schedule_lines(made: Forecast) -> list[str]:
    schedule = made.schedule
    if not schedule.seconds:
        return ["nothing is left to make"]
    many = "s" if schedule.devices > 1 else ""
    worth = [job for job in schedule.path if job.seconds >= WORTH_TELLING_S]
    path = " > ".join(f"{job.name} {_time(job.seconds)}" for job in worth)
    return [
        f"on {schedule.devices} {made.device}{many}: {_time(schedule.seconds)} from start to end, "
        f"idle {made.idle_share:.0%}",
        f"critical path {_time(schedule.path_seconds)}: {path}",
        f"beside the disk above, checkpoints while trainings last: up to {_size(_working(made))}",
    ]


def _working(made: Forecast) -> float:
    """Of the largest that may be made at once."""
    largest = sorted((each.cost.working for each in made.planned), reverse=True)
    return sum(largest[: made.schedule.devices])


def _short(made: Forecast, gpus: int | None) -> list[Planned]:
    """What would wait for ever, with the GPUs that were named."""
    if gpus is None:
        return []
    return [e for e in made.planned if e.step.gpus > gpus and e.found.status != "done"]


def _names(planned: Sequence[Planned]) -> str:
    return ", ".join(dict.fromkeys(OF_A_GRID.sub("-*", each.step.name) for each in planned))


def _hours(planned: Sequence[Planned], *, on_gpus: bool) -> float:
    return sum(e.seconds for e in planned if bool(e.step.gpus) == on_gpus) / HOUR_S


def _time(seconds: float) -> str:
    return f"{seconds / HOUR_S:.2f} h" if seconds >= 0.1 * HOUR_S else f"{seconds / 60:.1f} min"


def _size(stored: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if stored >= unit:
            return f"{stored / unit:.1f} {name}"
    return f"{stored / 1e3:.0f} kB"

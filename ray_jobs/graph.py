"""Steps that need not wait for one another, made side by side as tasks of Ray.

A step starts when its inputs are finished. A worker that dies costs another try, in the workspace
it left; a step that raises is not tried again, and all but what needs it goes on.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from ray_jobs import plan
from ray_jobs.cluster import COLOUR, Cluster, connect, joins
from ray_jobs.costs import note_cost
from ray_jobs.plan import Result, Status, Step
from synth_ct.kit.artifact import RECORD, code_hash
from synth_ct.kit.durable import write_text
from synth_ct.kit.effort import Effort
from synth_ct.kit.numerics import device
from synth_ct.kit.progress import Tick

logger = logging.getLogger(__name__)

TRIES = 3
"""Of a step whose worker dies."""
AHEAD = 2
"""Times what the cluster can run at once is handed over; the rest stays here, easily stopped."""
ENDS_WITHIN_S = 5.0
SEEN_WITHIN_S = 60.0
"""A network file system may show late what another machine wrote."""
FAILED = ".failed.txt"
"""Beside the folder that could not be made: why, with the traceback."""
NAMES, SAID = 3, 500
"""So many names, and so many letters of an error, are told in one breath."""


def run_all(steps: Sequence[Step], root: Path, effort: Callable[[str], Effort]) -> list[Result]:
    """Make what is missing: steps of the driver in order, and all tasks that can be together.

    Everything is inspected and demanded before anything is made.
    """
    wanted = plan.still_missing(steps, root)
    plan.demand_possible(wanted, root)
    tasks = [step for step in wanted if step.where == "task"]
    if tasks and joins():
        with connect(cpus=1) as cluster:
            demand_room(tasks, cluster)
    results: dict[str, Result] = {}
    left = {step.name: step for step in steps}
    while left:
        for step in list(left.values()):
            if step.where == "driver" and not _awaits(step, left):
                results[step.name] = _make_here(step, root, effort(step.name))
                del left[step.name]
        together = _together(left)
        for result in _side_by_side(together, root, effort):
            results[result.name] = result
            del left[result.name]
    return [results[step.name] for step in steps]


def _awaits(step: Step, left: Mapping[str, Step]) -> bool:
    return any(source.name in left for source in step.inputs)


def _together(left: Mapping[str, Step]) -> list[Step]:
    """All tasks that wait for nothing but one another."""
    chosen: dict[str, Step] = {}
    for step in left.values():
        others = {name: each for name, each in left.items() if name not in chosen}
        if step.where == "task" and not _awaits(step, others):
            chosen[step.name] = step
    return list(chosen.values())


def _side_by_side(
    steps: Sequence[Step], root: Path, effort: Callable[[str], Effort]
) -> list[Result]:
    """On Ray, if anything is missing; one after the other, if this process is to work alone."""
    how = effort("steps")
    alone = how.workers == 0 and not joins()
    if alone or not plan.still_missing(steps, root):
        return [_make_here(step, root, effort(step.name)) for step in steps]
    with connect(cpus=how.workers) as cluster:
        return run_graph(steps, root, cluster, how.begin(len(steps)))


def _make_here(step: Step, root: Path, effort: Effort) -> Result:
    result = plan.make_step(step, root, effort)
    note_cost(root, step, result)
    return result


# ---- the graph ---------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Course:
    """How far the steps are."""

    root: Path
    told: Tick
    left: list[Step]
    """Neither finished nor handed over, in the order of the plan."""
    group: frozenset[str]
    made: dict[str, Result]
    running: dict[Any, Step] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def take(self, there: Mapping[str, float]) -> Step | None:
        """The next step that may be handed over, if any."""
        for step in self.left:
            if self._is_ready(step) and self._has_room(step, there):
                self.left.remove(step)
                return step
        return None

    def _is_ready(self, step: Step) -> bool:
        names = {source.name for source in step.inputs} & self.group
        return names <= self.made.keys()

    def _has_room(self, step: Step, there: Mapping[str, float]) -> bool:
        """Steps that queue for GPUs leave room for those that need none."""
        held = sum(each.gpus for each in self.running.values())
        if step.gpus and held and held + step.gpus > AHEAD * there.get("GPU", 0):
            return False
        return len(self.running) < max(1, AHEAD * there.get("CPU", 0))

    def finish(self, step: Step, status: Status, seconds: float) -> None:
        """It is there, and whoever waited for it need wait no longer."""
        folder = self.root / step.name
        if not _seen(folder / RECORD):
            said = f"it was made where {self.root} is another folder; name one all machines share"
            return self.fail(step, said, said)
        (self.root / f"{step.name}{FAILED}").unlink(missing_ok=True)
        result = Result(name=step.name, status=status, seconds=seconds, folder=str(folder))
        note_cost(self.root, step, result)
        self.made[step.name] = result
        logger.info("%s: %s in %.1f s", step.name, status, seconds)
        return self.told(1, step.name)

    def fail(self, step: Step, said: str, all_of_it: str) -> None:
        """Remember it by name, and keep what was said."""
        log = self.root / f"{step.name}{FAILED}"
        log.parent.mkdir(parents=True, exist_ok=True)
        write_text(log, f"{all_of_it}\n")
        self.failed[step.name] = said
        logger.error("%s: failed: %s", step.name, said)


def run_graph(steps: Sequence[Step], root: Path, cluster: Cluster, told: Tick) -> list[Result]:
    """Make the missing steps, each as soon as its inputs are finished; one error names all faults.

    Inputs that are not among the steps must be finished.
    """
    found = plan.inspect(steps, root)
    course = _Course(
        root=root,
        told=told,
        left=[s for s, result in zip(steps, found, strict=True) if result.status == "missing"],
        group=frozenset(step.name for step in steps),
        made={result.name: result for result in found if result.status == "done"},
    )
    told(len(course.made))
    if course.left:
        demand_room(course.left, cluster)
        _work_off(course)
    if course.failed:
        raise RuntimeError(_account(course, len(steps)))
    return [course.made[step.name] for step in steps]


def _work_off(course: _Course) -> None:
    import ray
    from ray.exceptions import RayError

    # One for all steps: Ray queues each remote function apart, and may starve one of many. A
    # process chooses its GPU once: a worker that holds one makes one step and ends.
    on_cpu, on_gpu = ray.remote(_work), ray.remote(max_calls=1)(_work)
    try:
        while True:
            there = ray.cluster_resources()
            while (step := course.take(there)) is not None:
                work = on_gpu if step.gpus else on_cpu
                course.running[_handed_over(work, step, course.root)] = step
            if not course.running:
                break
            (reference,), _ = ray.wait(list(course.running), num_returns=1)
            step = course.running.pop(reference)
            try:
                status, seconds = ray.get(reference)
            except RayError as error:
                course.fail(step, _in_short(error), COLOUR.sub("", str(error)))
            else:
                course.finish(step, status, seconds)
    finally:
        _cancel(list(course.running))


def _handed_over(work: Any, step: Step, root: Path) -> Any:
    import ray

    # Of an input the worker needs the name alone. Inside a list the step is not unpacked before
    # the worker has compared its code with ours.
    names = tuple(replace(source, make=None, inputs=()) for source in step.inputs)
    packed = [ray.put(replace(step, inputs=names))]
    task = work.options(
        name=step.name,
        num_cpus=1,
        num_gpus=step.gpus,
        max_retries=TRIES - 1,
    )
    return task.remote(packed, root.resolve(), code_hash())


def _cancel(references: Sequence[Any]) -> None:
    """Workers end at once; their workspaces stay, and are continued."""
    import ray

    for reference in references:
        ray.cancel(reference, force=True)
    if references:
        ray.wait(list(references), num_returns=len(references), timeout=ENDS_WITHIN_S)


# ---- in a worker -------------------------------------------------------------------------------


def _work(packed: Sequence[Any], root: Path, code: str) -> tuple[Status, float]:
    import ray

    demand_same_code(code)
    torch.set_num_threads(1)
    step: Step = ray.get(packed[0])
    try:
        result = plan.make_step(step, root, Effort(device=device_of(step)))
    except ValueError as error:
        raise ValueError(str(error)) from error  # a class of ours may not survive the journey
    return result.status, result.seconds


def demand_same_code(code: str) -> None:
    """Other code may make another folder under the same name."""
    if (ours := code_hash()) != code:
        raise RuntimeError(
            f"a worker's code is {ours} and its driver's is {code}: install the same synth_ct on "
            "every machine, or send it along (`ray job submit --working-dir .`)"
        )


def device_of(step: Step) -> str:
    """A step works on the GPU it holds; without one it leaves alone those that others hold."""
    if not step.gpus:
        return "cpu"
    if (here := device()) == "cpu":
        raise RuntimeError(
            "Ray gave it a GPU that torch cannot use; install torch with CUDA on every machine of "
            "the cluster, and see what `synth-ct doctor` says there"
        )
    return here


# ---- what is refused, and what is told ---------------------------------------------------------


def demand_room(steps: Sequence[Step], cluster: Cluster) -> None:
    """Refuse what no node can ever give; Ray would wait for it without a word."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    able = [float(node.get("GPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    where = "this machine" if cluster.ours else "the cluster"
    if not able:
        raise ValueError(f"every step needs a CPU, and {where} has none to give; add a worker node")
    if uneven := [step for step in steps if step.gpus > 1 and step.gpus % 1]:
        raise ValueError(
            f"{_few(uneven)}: {uneven[0].gpus:g} GPU is not possible; a step takes a part of one "
            "GPU, or a whole number of them"
        )
    if short := [step for step in steps if step.gpus > max(able)]:
        need = f"{'needs' if len(short) == 1 else 'need'} {max(s.gpus for s in short):g} GPU"
        most = f"{max(able):g} on one node" if max(able) else "none"
        raise ValueError(
            f"{_few(short)} {need} and {where} has {most}; join a cluster that has them (set "
            "RAY_ADDRESS), or choose a recipe that asks for fewer"
        )


def _few(steps: Sequence[Step]) -> str:
    names = ", ".join(step.name for step in steps[:NAMES])
    return f"{names} and {len(steps) - NAMES} more" if len(steps) > NAMES else names


def _account(course: _Course, total: int) -> str:
    """Every failed step with its reason, those it keeps waiting, and how to go on."""
    names: dict[str, list[str]] = {}
    for name, said in course.failed.items():
        names.setdefault(said, []).append(name)
    lines = [f"{', '.join(whose)}: {said}" for said, whose in names.items()]
    blocked = ", ".join(step.name for step in course.left)
    return "\n".join(
        [
            f"{len(course.failed)} of {total} steps failed, and {len(course.made)} are finished:",
            *(f"{line};" for line in lines),
            *([f"blocked by that: {blocked};"] if blocked else []),
            f"tracebacks are in {course.root}/STEP{FAILED}.",
            "Mend the cause and run the same command again: it makes what is missing, no more",
        ]
    )


def _in_short(error: Exception) -> str:
    """What a step raised, in its own words; a dead worker has none."""
    from ray.exceptions import RayTaskError, UnserializableException, WorkerCrashedError

    if isinstance(error, WorkerCrashedError):
        return f"its worker died {TRIES} times, killed or out of memory"
    cause = error.cause if isinstance(error, RayTaskError) else error
    said = f"{type(cause).__name__}: {cause}"
    if isinstance(cause, UnserializableException):  # its own traceback ends with what was raised
        said = str(cause).strip().splitlines()[-1]
    return shorten(COLOUR.sub("", said), SAID, placeholder="...")


def _seen(path: Path) -> bool:
    until = time.monotonic() + SEEN_WITHIN_S
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True

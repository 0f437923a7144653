"""What each made step took: one line a step in `costs.jsonl` below the root, for this machine only.

Appended by the driver when a step is finished; the time of a try that died is not known.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ray_jobs.plan import Result, Step
from synth_ct.kit.artifact import read_record

COSTS = "costs.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """One step that was made."""

    name: str
    stage: str
    seconds: float
    """Of the try that finished it."""
    ended: float
    """Seconds since 1970."""
    device: str
    """`cpu`, or the name of a GPU."""
    devices: float
    """GPUs, or parts of one; a step without counts as one CPU, whatever cores it uses."""


def note_cost(root: Path, step: Step, result: Result) -> None:
    """Append what a step took, if it was made just now."""
    if result.status != "made":
        return
    record = read_record(root / step.name)
    assert record is not None, "it was made"
    spent = Spent(
        name=step.name,
        stage=step.stage,
        seconds=result.seconds,
        ended=round(time.time(), 3),
        device=record.numerics.get("device", "cpu"),
        devices=step.gpus or 1.0,
    )
    # A line of its own even after one that a loss of power tore.
    with (root / COSTS).open("ab", buffering=0) as file:
        file.write(f"\n{json.dumps(asdict(spent))}\n".encode())


def read_costs(root: Path) -> list[Spent]:
    """What was noted, in its order; a torn line tells nothing and is passed over."""
    path = root / COSTS
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [spent for line in lines if (spent := _spent(line)) is not None]


def _spent(line: bytes) -> Spent | None:
    try:
        return Spent(**json.loads(line))
    except (ValueError, TypeError):
        return None


def elapsed(steps: Sequence[Spent]) -> float:
    """Seconds in which at least one of them was under way."""
    total, reached = 0.0, float("-inf")
    for begun, ended in sorted((step.ended - step.seconds, step.ended) for step in steps):
        total += max(0.0, ended - max(begun, reached))
        reached = max(reached, ended)
    return total

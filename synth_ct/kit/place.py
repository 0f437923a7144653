"""Where a training leaves its checkpoints, its curve and its weights."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from synth_ct.kit import ranks
from synth_ct.kit.checkpoint import CHECKPOINTS, Checkpoints, save_weights
from synth_ct.kit.durable import write_text
from synth_ct.kit.loop import AVERAGES, Batches, Learner, Log, Training, train

CURVE = "curve.jsonl"
ROWS = "rows.jsonl"
MOST_POINTS = 2000
"""A curve of more steps than this keeps every n-th."""

Told = Callable[[int], object]
"""Called with how much more is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Nothing here changes the weights."""

    folder: Path
    device: torch.device
    log: Log = lambda step, row: None
    begin: Callable[[int], Told] = lambda total: lambda done: None
    """Called with how much there is to prepare before the first step."""
    every: int = 500
    """Steps between two checkpoints."""


def fit(learner: Learner, batches: Batches, training: Training, place: Place) -> AVERAGES:
    """Train to the end, or on to it; keep the curve; return the averaged weights."""
    checkpoints = Checkpoints(folder=place.folder / CHECKPOINTS, every=place.every)
    if ranks.world()[0] == 0:
        _drop_torn_row(place.folder / ROWS)
    averages = train(learner, batches, training, checkpoints, _noted(place))
    if ranks.world()[0] == 0:
        _write_curve(place.folder, training.steps)
    return averages


def keep(place: Place, name: str, weights: dict[str, torch.Tensor]) -> None:
    """Write `<name>.safetensors`, from rank 0."""
    if ranks.world()[0] == 0:
        save_weights(place.folder / f"{name}.safetensors", weights)
    ranks.wait_for_all()


def _noted(place: Place) -> Callable[[int, dict[str, float]], None]:
    """Pass each row on, and note it where the next run finds it."""

    def log(step: int, row: dict[str, float]) -> None:
        with (place.folder / ROWS).open("a") as file:
            file.write(json.dumps({"step": step, **row}) + "\n")
        place.log(step, row)

    return log


def _drop_torn_row(rows: Path) -> None:
    """A killed run may leave half a line; its step comes again."""
    if rows.exists():
        whole, newline, _ = rows.read_text().rpartition("\n")
        write_text(rows, whole + newline)


def _write_curve(folder: Path, steps: int) -> None:
    """Each step once, in order: a run that was stopped leaves the curve of one that was not."""
    if not (folder / ROWS).exists():
        return  # an earlier run came this far
    lines = (folder / ROWS).read_text().splitlines()
    rows = {json.loads(line)["step"]: line for line in lines}
    thinned = max(1, -(-steps // MOST_POINTS))
    kept = [rows[step] for step in sorted(rows) if step % thinned == 0 or step == steps]
    write_text(folder / CURVE, "".join(f"{line}\n" for line in kept))
    (folder / ROWS).unlink()

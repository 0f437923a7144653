"""Where and how fast a stage works. Nothing here changes what it makes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from synth_ct.kit.loop import Log
from synth_ct.kit.place import Place
from synth_ct.kit.progress import Tick

EVERY = 250
"""Steps between two checkpoints."""
TIMES_BETWEEN = 20
"""Shorter runs are saved at least this often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """The hands a stage is given."""

    workers: int = 0
    """Worker processes; 0 works in this one."""
    device: str = "cpu"
    """Where networks train, in torch's words."""
    begin: Callable[[int], Tick] = lambda total: lambda done=1, note="", /: None
    """Called with how much there is to do; gives the function that is told of each step."""


def place_of(workspace: Path, steps: int, effort: Effort) -> Place:
    """Checkpoints in the workspace, a bar for what is prepared, and one that tells of each row."""
    return Place(
        folder=workspace,
        device=torch.device(effort.device),
        log=shown_by(begun_later(effort, steps)),
        begin=effort.begin,
        every=max(1, min(EVERY, steps // TIMES_BETWEEN)),
    )


def begun_later(effort: Effort, total: int) -> Tick:
    """A bar that is not there before its first tick: of two begun, only the later is shown."""
    begun: list[Tick] = []

    def tick(done: int = 1, note: str = "", /) -> None:
        if not begun:
            begun.append(effort.begin(total))
        begun[0](done, note)

    return tick


def shown_by(tick: Tick) -> Log:
    """A log that moves a bar; the bar shows the first total of each row."""
    told = 0

    def log(step: int, row: dict[str, float]) -> None:
        nonlocal told
        total = next((v for name, v in row.items() if name.endswith("/total")), None)
        tick(step - told, "" if total is None else f"loss {total:.4f}")
        told = step

    return log

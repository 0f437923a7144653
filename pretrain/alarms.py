"""A dead run says so early: features that no longer vary, heads that guess.

Each alarm looks at the mean of the last steps and is silent before it could know better.
"""

import math
from collections import deque
from collections.abc import Mapping

from pydantic import Field

from synth_ct.kit.loop import Log
from synth_ct.kit.recipe import Recipe

CHANCE = 0.25
"""Of four rotations."""


class Alarms(Recipe):
    """When a run counts as dead."""

    after: int = Field(default=2000, gt=0)
    """Steps in which anything may happen."""
    over: int = Field(default=200, gt=0)
    """Steps whose mean is looked at."""
    least_feature_sd: float = Field(default=1e-3, ge=0)
    """Mean over channels of the standard deviation of pooled features across a batch."""
    chance_sds: float = Field(default=3.0, ge=0)
    """Rotation accuracy must lie so many binomial standard deviations above a quarter."""
    most_contrastive: float = Field(default=0.98, gt=0)
    """Of log(number of candidates), which is what guessing costs."""


class Collapsed(ValueError):
    """The run learns nothing any more."""


def watched(log: Log, alarms: Alarms, batch: int) -> Log:
    """The same log, that raises `Collapsed` when an alarm goes off. `batch`: samples a step."""
    seen: dict[str, deque[float]] = {}

    def watch(step: int, row: dict[str, float]) -> None:
        log(step, row)
        for name, value in row.items():
            seen.setdefault(name.rpartition("/")[2], deque(maxlen=alarms.over)).append(value)
        if step > alarms.after:
            full = {n: sum(v) / len(v) for n, v in seen.items() if len(v) == alarms.over}
            _raise_if_dead(step, full, alarms, batch)

    return watch


def _raise_if_dead(step: int, mean: Mapping[str, float], alarms: Alarms, batch: int) -> None:
    spread = math.sqrt(CHANCE * (1 - CHANCE) / (batch * alarms.over))
    causes = {
        "feature_sd": ("below", alarms.least_feature_sd, "features no longer differ"),
        "rotation_accuracy": (
            "below",
            CHANCE + alarms.chance_sds * spread,
            "rotations are guessed",
        ),
        "contrastive_over_log_n": ("above", alarms.most_contrastive, "views are guessed"),
    }
    for name, (side, limit, meaning) in causes.items():
        found = mean.get(name)
        if found is None:
            continue
        if (found < limit) if side == "below" else (found > limit):
            raise Collapsed(
                f"stopped at step {step}: {meaning} ({name} is {found:.4g}, {side} {limit:.4g} "
                f"over {alarms.over} steps). Lower the learning rate, enlarge the batch, or choose "
                "another objective; to go on regardless, raise alarms.after"
            )

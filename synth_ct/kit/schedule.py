"""Learning rate and weight averaging as pure functions of the step."""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from synth_ct.kit.recipe import Recipe


class Rate(Recipe):
    """How the learning rate moves; each optimiser's own rate is the peak."""

    shape: Literal["constant", "cosine", "linear"] = "constant"
    """What follows the warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    hold_steps: int = Field(default=0, ge=0)
    """Steps at the peak between warm-up and decay."""
    final: float = Field(default=0.0, ge=0.0, le=1.0)
    """Where a decay ends, as a fraction of the peak; `constant` ignores it."""


def rate_factor(rate: Rate, step: int, steps: int) -> float:
    """The fraction of the peak rate with which step `step` of `steps` (from 0) is taken."""
    if step < rate.warmup_steps:
        return (step + 1) / rate.warmup_steps
    if rate.shape == "constant":
        return 1.0
    held = rate.warmup_steps + rate.hold_steps
    way = max(0, step - held) / max(1, steps - held)
    decay = cosine(way) if rate.shape == "cosine" else 1.0 - way
    return rate.final + (1.0 - rate.final) * decay


def cosine(way: float) -> float:
    """(1 + cos(pi w)) / 2, from 1 at the start to 0 at the end."""
    return (1.0 + math.cos(math.pi * way)) / 2.0


def average_decay(decay: float, updates: int) -> float:
    """min(d, (1 + n) / (10 + n)): a young average forgets its random start quickly."""
    return min(decay, (1 + updates) / (10 + updates))


def averaged(average: Tensor, value: Tensor, decay: float) -> Tensor:
    """d a + (1 - d) v; whole numbers (counters) are taken as they are."""
    if not value.is_floating_point():
        return value.detach().clone()
    return torch.lerp(value.detach(), average, decay)

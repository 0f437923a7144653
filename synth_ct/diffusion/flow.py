"""Rectified flow: straight lines from the data x (t = 0) to a start s (t = 1).

The network learns the velocity s - x. The start is pure noise, or the prior with a little noise:
from there the way is short, so that few steps suffice, and the noise keeps samples diverse.
"""

from typing import TypeVar

import torch

from synth_ct.diffusion.ddpm import LAST_TIME

T = TypeVar("T", float, torch.Tensor)


def between(clean: torch.Tensor, start: torch.Tensor, t: float | torch.Tensor) -> torch.Tensor:
    """z_t = (1 - t) x + t s."""
    return (1.0 - t) * clean + t * start


def velocity(clean: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """dz/dt = s - x."""
    return start - clean


def velocity_from_clean(z: torch.Tensor, clean: torch.Tensor, t: float) -> torch.Tensor:
    """v = (z_t - x) / t, for t > 0."""
    return (z - clean) / t


def start_from_prior(prior: torch.Tensor, noise: torch.Tensor, amount: float) -> torch.Tensor:
    """s = y + a eps."""
    return prior + amount * noise


def time_of(t: T) -> T:
    """What the network is told: 0 at the data, 999 at the start."""
    return t * LAST_TIME

"""The variance-preserving process: z = alpha x + sigma eps, with alpha^2 + sigma^2 = 1.

How noisy z is is said by lambda = log(alpha / sigma), which falls from data to noise. The schedule
knows it at T places; between them it is interpolated, so that a sampler may stop anywhere. The
network is told the time, which is 0 at the first place and 999 at the last, whatever T is.

The paper's schedule ends at alpha = 0.047, not at 0: a trace of the data is left at the last place,
of which samples, which start from pure noise, know nothing. It is kept: the network answers with
the noise, and from noise alone no data follows where alpha is 0.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

LAST_TIME = 999.0
"""The time at which all is noise."""


# ---- the schedule (float64) --------------------------------------------------------------------


def alpha_bar(first_beta: float, last_beta: float, places: int) -> np.ndarray:
    """prod_{s <= t} (1 - beta_s), where sqrt(beta) rises evenly."""
    root_beta_T = np.linspace(math.sqrt(first_beta), math.sqrt(last_beta), places)
    return np.cumprod(1.0 - root_beta_T**2)


def log_snr(alpha_bar_T: np.ndarray) -> np.ndarray:
    """lambda = log(alpha / sigma) = (log alpha_bar - log(1 - alpha_bar)) / 2."""
    log_snr_T: np.ndarray = 0.5 * (np.log(alpha_bar_T) - np.log1p(-alpha_bar_T))
    return log_snr_T


class Level(NamedTuple):
    """A place on the way: what the network is told, and how noisy z is there."""

    time: float
    log_snr: float

    @property
    def alpha(self) -> float:
        """alpha = sqrt(sigmoid(2 lambda))."""
        return 1.0 / math.sqrt(1.0 + math.exp(-2.0 * self.log_snr))

    @property
    def sigma(self) -> float:
        """sigma = sqrt(sigmoid(-2 lambda))."""
        return 1.0 / math.sqrt(1.0 + math.exp(2.0 * self.log_snr))

    @property
    def ratio(self) -> float:
        """sigma / alpha = exp(-lambda)."""
        return math.exp(-self.log_snr)


@dataclass(frozen=True, slots=True)
class Schedule:
    """lambda at T places, and both ways between time and lambda."""

    log_snr_T: np.ndarray

    @property
    def times(self) -> np.ndarray:
        """The time of each place."""
        return np.linspace(0.0, LAST_TIME, len(self.log_snr_T))

    def at_time(self, time: float) -> Level:
        """The level of a time."""
        return Level(time, float(np.interp(time, self.times, self.log_snr_T)))

    def at_log_snr(self, log_snr: float) -> Level:
        """The level of a lambda; the sign turns, since `interp` wants what rises."""
        return Level(float(np.interp(-log_snr, -self.log_snr_T, self.times)), log_snr)


# ---- noise and data ----------------------------------------------------------------------------


def add_noise(
    clean: torch.Tensor,
    noise: torch.Tensor,
    alpha: float | torch.Tensor,
    sigma: float | torch.Tensor,
) -> torch.Tensor:
    """z = alpha x + sigma eps."""
    return alpha * clean + sigma * noise


def clean_from_noise(z: torch.Tensor, noise: torch.Tensor, level: Level) -> torch.Tensor:
    """x = (z - sigma eps) / alpha."""
    return (z - level.sigma * noise) / level.alpha


def noise_from_clean(z: torch.Tensor, clean: torch.Tensor, level: Level) -> torch.Tensor:
    """eps = (z - alpha x) / sigma."""
    return (z - level.alpha * clean) / level.sigma

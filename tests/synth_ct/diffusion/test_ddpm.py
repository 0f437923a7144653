import math

import numpy as np
import pytest
import torch

from synth_ct.diffusion.ddpm import (
    Level,
    Schedule,
    add_noise,
    alpha_bar,
    clean_from_noise,
    log_snr,
    noise_from_clean,
)

PAPER = alpha_bar(0.0015, 0.0125, 1000)


def test_alpha_bar_is_the_product_of_what_each_step_keeps() -> None:
    kept, product = 1.0, []
    for step in range(1000):
        root_beta = 0.0015**0.5 + step / 999 * (0.0125**0.5 - 0.0015**0.5)
        kept *= 1.0 - root_beta**2
        product.append(kept)
    np.testing.assert_allclose(PAPER, product, rtol=1e-12)


def test_the_papers_schedule_ends_where_a_trace_of_the_data_is_left() -> None:
    assert math.sqrt(PAPER[-1]) == pytest.approx(0.0465, abs=1e-4)
    assert log_snr(PAPER)[[0, -1]] == pytest.approx([3.25, -3.07], abs=5e-3)


@pytest.mark.parametrize("place", [0, 1, 500, 999])
def test_a_level_keeps_the_variance_and_knows_the_schedule(place: int) -> None:
    level = Schedule(log_snr(PAPER)).at_time(float(place))
    assert level.alpha**2 + level.sigma**2 == pytest.approx(1.0, abs=1e-12)
    assert level.alpha**2 == pytest.approx(PAPER[place], rel=1e-12)
    assert level.ratio == pytest.approx(level.sigma / level.alpha, rel=1e-12)


@pytest.mark.parametrize("time", [0.0, 0.25, 3.5, 321.7, 999.0])
def test_time_and_noise_level_name_each_other(time: float) -> None:
    schedule = Schedule(log_snr(PAPER))
    assert schedule.at_log_snr(schedule.at_time(time).log_snr).time == pytest.approx(time)


def test_the_network_is_told_the_same_times_whatever_the_number_of_places() -> None:
    few = Schedule(log_snr(alpha_bar(0.0015, 0.0125, 10)))
    assert few.at_log_snr(few.log_snr_T[-1]).time == 999.0
    assert few.at_time(111.0).log_snr == pytest.approx(few.log_snr_T[1])


@pytest.mark.parametrize("lam", [-3.0, 0.0, 3.0])
def test_noise_and_data_follow_from_each_other(lam: float, random: torch.Generator) -> None:
    clean, noise = torch.randn(2, 5, 7, generator=random, dtype=torch.float64)
    level = Level(0.0, lam)
    z = add_noise(clean, noise, level.alpha, level.sigma)
    torch.testing.assert_close(clean_from_noise(z, noise, level), clean)
    torch.testing.assert_close(noise_from_clean(z, clean, level), noise)

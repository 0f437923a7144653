import pytest
import torch

from synth_ct.diffusion import flow


@pytest.mark.parametrize("t", [0.1, 0.5, 1.0])
def test_the_velocity_follows_from_a_place_and_the_data(t: float, random: torch.Generator) -> None:
    clean, start = torch.randn(2, 5, 7, generator=random, dtype=torch.float64)
    z, velocity = flow.between(clean, start, t), flow.velocity(clean, start)
    torch.testing.assert_close(flow.velocity_from_clean(z, clean, t), velocity)


def test_the_velocity_is_the_slope_of_the_line_everywhere(random: torch.Generator) -> None:
    clean, start = torch.randn(2, 5, 7, generator=random, dtype=torch.float64)
    for t in (0.0, 0.3, 0.9):
        ahead, here = flow.between(clean, start, t + 0.1), flow.between(clean, start, t)
        torch.testing.assert_close((ahead - here) / 0.1, flow.velocity(clean, start))

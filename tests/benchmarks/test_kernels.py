"""The denoiser beside the same equations written plainly: an independent reference."""

import sys
from pathlib import Path

import pytest
import torch

from synth_ct.models.denoiser import Denoiser, DenoiserSizes

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from plain_denoiser import PlainDenoiser


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("conditioning", ["cross", "concat"])
def test_folded_slices_compute_what_the_plain_equations_say(
    plane: str, conditioning: str, random: torch.Generator
) -> None:
    sizes = {"latent_channels": 4, "width": 8, "multipliers": (1, 2, 2), "heads": 2}
    settings = {"head_width": 4, "longest": 12, "plane": plane, "conditioning": conditioning}
    net = Denoiser(DenoiserSizes.model_validate(sizes | settings)).eval()
    for parameter in net.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=random), alpha=0.1)
    z, prior = torch.randn(2, 2, 4, 8, 12, 8, generator=random)
    if plane == "coronal":
        z, prior = z.transpose(3, 4), prior.transpose(3, 4)
    time = torch.tensor([5.0, 900.0])
    with torch.no_grad():
        torch.testing.assert_close(net(z, time, prior), PlainDenoiser(net)(z, time, prior))

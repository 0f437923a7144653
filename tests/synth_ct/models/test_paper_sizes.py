"""Parameters and arithmetic of the default sizes beside those of the released code (a multiply-add
is two operations, one item, no memory used): a size that drifts from the paper's is seen here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from synth_ct.models.autoencoder import Autoencoder, AutoencoderSizes
from synth_ct.models.denoiser import Denoiser, DenoiserSizes
from synth_ct.models.discriminators import SliceDiscriminator, VolumeDiscriminator
from synth_ct.models.progressive_encoder import AuxiliaryDecoder, PriorSizes, ProgressiveEncoder
from synth_ct.models.style import StyleGenerator, StyleSizes

Shape = tuple[int, ...]
CT: Shape = (1, 1, 128, 128, 128)
LATENT: Shape = (1, 8, 32, 32, 32)
FILM: Shape = (1, 1, 128, 128)
LARGE_FILM: Shape = (1, 1, 256, 256)


class Step(nn.Module):
    """A denoiser as a function of its latent alone."""

    def __init__(self, sizes: DenoiserSizes) -> None:
        super().__init__()
        self.denoiser = Denoiser(sizes)

    def forward(self, z_BCXYZ: Tensor) -> Tensor:
        out_BCXYZ: Tensor = self.denoiser(z_BCXYZ, z_BCXYZ.new_zeros(1), z_BCXYZ)
        return out_BCXYZ


@dataclass(frozen=True)
class Row:
    """A part: how it is built, what it is shown, and what the released one has."""

    build: Callable[[], nn.Module]
    shown: Shape
    parameters: float
    """Millions."""
    gflop: float
    tolerance: tuple[float, float]
    """Relative, of parameters and of operations."""


TIGHT = (1e-3, 1e-3)
ROWS = {
    "encoder": Row(lambda: Autoencoder(AutoencoderSizes()).encoder, CT, 2.115, 780.8, TIGHT),
    "decoder": Row(lambda: Autoencoder(AutoencoderSizes()).decoder, LATENT, 5.201, 2829.5, TIGHT),
    # One 3D convolution more in the anatomy stage, and a wider last one.
    "progressive encoder": Row(
        lambda: ProgressiveEncoder(PriorSizes(quantiser=None)), FILM, 17.21, 69.8, (0.005, 0.01)
    ),
    "auxiliary decoder": Row(AuxiliaryDecoder, LATENT, 0.47, 72.5, (0.03, 0.03)),
    # Softmax attention from 16x16 down for linear attention everywhere; 3-wide first convolution.
    "denoiser, stacked": Row(
        lambda: Step(DenoiserSizes(conditioning="concat")), LATENT, 35.76, 129.4, (0.005, 0.03)
    ),
    # The paper's cross-attention, which its code does not have.
    "denoiser, cross": Row(
        lambda: Step(DenoiserSizes(conditioning="cross")), LATENT, 35.76, 129.4, (0.04, 0.05)
    ),
    "slice discriminator": Row(SliceDiscriminator, FILM, 2.764, 1.492, TIGHT),
    "volume discriminator": Row(VolumeDiscriminator, CT, 11.049, 110.5, TIGHT),
    "style, 256": Row(
        lambda: StyleGenerator(StyleSizes(blocks=9, upsampling="transposed")),
        LARGE_FILM,
        11.4,
        97.5,
        (0.005, 0.001),
    ),
    "style, 128": Row(
        lambda: StyleGenerator(StyleSizes(blocks=6, upsampling="transposed")),
        FILM,
        7.8,
        17.1,
        (0.005, 0.002),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_parts_are_as_large_as_those_of_the_paper(name: str) -> None:
    row = ROWS[name]
    assert millions(name) == pytest.approx(row.parameters, rel=row.tolerance[0])
    assert gflop(name) == pytest.approx(row.gflop, rel=row.tolerance[1])


def test_cross_attention_costs_little_more_than_stacking() -> None:
    cross, stacked = "denoiser, cross", "denoiser, stacked"
    assert millions(cross) / millions(stacked) == pytest.approx(1.034, abs=0.002)
    assert gflop(cross) / gflop(stacked) == pytest.approx(1.071, abs=0.002)


@cache
def part(name: str) -> nn.Module:
    with torch.device("meta"):
        return ROWS[name].build().eval()


def millions(name: str) -> float:
    return sum(p.numel() for p in part(name).parameters()) / 1e6


@cache
def gflop(name: str) -> float:
    shown = torch.zeros(ROWS[name].shown, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        part(name)(shown)
    return float(counted.get_total_flops()) / 1e9

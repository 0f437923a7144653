"""Style: real radiographs made to look like DRRs, and nothing else about them changed.

Residual generators and patch discriminators of CycleGAN (Zhu et al., 2017), its pool of earlier
fakes, and a plain rival: one grey curve a film, which moves no edge.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from synth_ct.kit.recipe import Recipe
from synth_ct.models.discriminators import patch_layers

SHRINKAGE = 4
"""Pixels of a film to one position of the residual blocks, along each side."""
INITIAL_SPREAD = 0.02


class StyleSizes(Recipe):
    """How large the networks are; CycleGAN has 6 blocks at 128 pixels and 9 at 256."""

    width: int = Field(default=64, ge=1)
    """Channels at full size; twice and four times as many below."""
    blocks: int = Field(default=6, ge=1)
    upsampling: Literal["nearest", "transposed"] = "nearest"
    """`transposed` is CycleGAN's; a 3x3 kernel at stride 2 covers pixels unevenly (chequers)."""
    judge_width: int = Field(default=64, ge=1)
    judge_layers: int = Field(default=3, ge=1)
    """Halvings before a patch is judged: 3 judge patches of 70 pixels, 2 of 34, 1 of 16."""


# ---- generator ---------------------------------------------------------------------------------


class StyleGenerator(nn.Module):
    """Film -> film: halve twice, `blocks` residual blocks, double twice, tanh."""

    def __init__(self, sizes: StyleSizes) -> None:
        super().__init__()
        w = sizes.width
        self.layers = nn.Sequential(
            nn.Conv2d(1, w, 7, padding=3, padding_mode="reflect", bias=False),
            *_normed(w),
            *_halve(w),
            *_halve(2 * w),
            *(_Residual(4 * w) for _ in range(sizes.blocks)),
            *_double(4 * w, sizes.upsampling),
            *_double(2 * w, sizes.upsampling),
            nn.Conv2d(w, 1, 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )

    def forward(self, film_B1UV: Tensor) -> Tensor:
        """Translate films of any size that four divides."""
        if any(n % SHRINKAGE for n in film_B1UV.shape[2:]):
            raise ValueError(
                f"a film of {tuple(film_B1UV.shape[2:])} pixels comes back in another size; "
                f"frame it to a multiple of {SHRINKAGE}"
            )
        styled_B1UV: Tensor = self.layers(film_B1UV)
        return styled_B1UV


class _Residual(nn.Module):
    """x + N(conv(relu(N(conv(x)))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False),
            *_normed(channels),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x_BCUV: Tensor) -> Tensor:
        """One block."""
        out_BCUV: Tensor = x_BCUV + self.layers(x_BCUV)
        return out_BCUV


def _normed(channels: int) -> tuple[nn.Module, ...]:
    return nn.InstanceNorm2d(channels), nn.ReLU(inplace=True)


def _halve(channels: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
    return convolution, *_normed(2 * channels)


def _double(channels: int, upsampling: Literal["nearest", "transposed"]) -> tuple[nn.Module, ...]:
    half = channels // 2
    if upsampling == "transposed":
        wider = nn.ConvTranspose2d(
            channels, half, 3, stride=2, padding=1, output_padding=1, bias=False
        )
        return wider, *_normed(half)
    convolution = nn.Conv2d(channels, half, 3, padding=1, padding_mode="reflect", bias=False)
    return nn.Upsample(scale_factor=2, mode="nearest"), convolution, *_normed(half)


# ---- discriminator -----------------------------------------------------------------------------


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches: 1 where one looks like the domain, 0 where it does not."""

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.layers = patch_layers(2, width, layers, nn.InstanceNorm2d)

    def forward(self, film_B1UV: Tensor) -> Tensor:
        """One score a patch."""
        scores_B1HW: Tensor = self.layers(film_B1UV)
        return scores_B1HW


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """W ~ N(0, 0.02), biases 0, as CycleGAN begins."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, INITIAL_SPREAD, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ImagePool(nn.Module):
    """Earlier fakes, half of what a discriminator sees once there are `size` of them.

    They are training state: buffers, so that a resumed run finds them again.
    """

    films_N1UV: Tensor
    filled: Tensor

    def __init__(self, size: int, pixels: int) -> None:
        super().__init__()
        self.register_buffer("films_N1UV", torch.zeros(size, 1, pixels, pixels))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, film_B1UV: Tensor, generator: torch.Generator) -> Tensor:
        """Each film, or by a coin an earlier one whose place it takes."""
        return torch.stack([self._exchange(film, generator) for film in film_B1UV.detach()])

    def _exchange(self, film_1UV: Tensor, generator: torch.Generator) -> Tensor:
        size = len(self.films_N1UV)
        place = int(self.filled)
        if place < size:
            self.films_N1UV[place] = film_1UV
            self.filled += 1
            return film_1UV
        coin, place = (int(torch.randint(n, (), generator=generator)) for n in (2, size))
        if coin == 0:
            return film_1UV
        earlier_1UV = self.films_N1UV[place].clone()
        self.films_N1UV[place] = film_1UV
        return earlier_1UV.to(film_1UV.dtype)


# ---- losses ------------------------------------------------------------------------------------


def least_squares(scores: Tensor, target: float) -> Tensor:
    """mean (D(x) - target)^2: LSGAN's loss of either side."""
    return (scores.float() - target).square().mean()


# ---- one grey curve a film ---------------------------------------------------------------------


class HistogramMatch(nn.Module):
    """Gives every film the grey values of a reference: x -> Q(F(x)), F its own shares.

    Equal grey values stay equal and their order stays, so no edge moves and none appears.
    """

    quantiles_Q: Tensor

    def __init__(self, levels: int = 256) -> None:
        super().__init__()
        self.register_buffer("quantiles_Q", torch.linspace(-1, 1, levels))

    def forward(self, film_B1UV: Tensor) -> Tensor:
        """Match each film on its own."""
        grey_BN = film_B1UV.flatten(1).float().contiguous()
        at_BN = shares(grey_BN) * len(self.quantiles_Q) - 0.5
        at_BN = at_BN.clamp(0, len(self.quantiles_Q) - 1)
        below_BN = at_BN.floor().long()
        above_BN = (below_BN + 1).clamp(max=len(self.quantiles_Q) - 1)
        low_BN, high_BN = self.quantiles_Q[below_BN], self.quantiles_Q[above_BN]
        matched_BN = torch.lerp(low_BN, high_BN, at_BN - below_BN)
        return matched_BN.reshape(film_B1UV.shape).to(film_B1UV.dtype)


def shares(grey_BN: Tensor) -> Tensor:
    """F(x) = (#{y < x} + #{y = x} / 2) / n, row by row."""
    sorted_BN = grey_BN.sort(dim=1).values
    less_BN = torch.searchsorted(sorted_BN, grey_BN, right=False)
    not_more_BN = torch.searchsorted(sorted_BN, grey_BN, right=True)
    return (less_BN + not_more_BN) / (2 * grey_BN.shape[1])


def mean_quantiles(films_N1UV: Tensor, levels: int) -> Tensor:
    """Q(q) = mean over films of the q-quantile, at q = (k + 1/2) / levels."""
    sorted_NP = films_N1UV.flatten(1).float().sort(dim=1).values
    curves_NQ = F.interpolate(sorted_NP[:, None], size=levels, mode="linear")[:, 0]
    return curves_NQ.mean(0)

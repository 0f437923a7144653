"""From the encoder's output to the latent: a homogeneous or plain codebook, FSQ, or a Gaussian.

Each quantiser has `forward` (what training reads), `embed` (the continuous latent the diffusion
learns), `snap` (from such a latent to what the decoder reads), `begin_step` and `usage`; and
`snap(embed(h))` is what `forward(h)` hands the decoder in evaluation.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from synth_ct.kit.recipe import Recipe
from synth_ct.kit.seeds import torch_random
from synth_ct.models.codebook import (
    EPSILON,
    Tally,
    cell_radius,
    codebook_loss,
    counted,
    nearest_code,
    parents_of,
    straight_through,
    use_of,
    z_score,
)


class QuantiserSizes(Recipe):
    """Which quantiser, and its settings; each kind reads its own."""

    kind: Literal["homogeneous", "plain", "fsq", "kl"] = "homogeneous"
    codes: int = Field(default=8192, gt=1)
    normalise: Literal["vector", "channel"] = "vector"
    """What N of the homogeneous codebook runs over: one vector, or one channel of all vectors."""
    commitment: float = Field(default=0.25, ge=0)
    """Weight of the term that draws the encoder to the codes."""
    levels: tuple[int, ...] = (9, 6, 6, 5, 5)
    """Of FSQ: how many values each channel can take; 8100 codes."""
    usage_decay: float = Field(default=0.98, ge=0, lt=1)
    """How much of the counts of codes used a step leaves to the next."""
    restart_below: float = Field(default=0.05, ge=0, lt=1)
    """A code that draws less than this part of a fair share is dead; 0 restarts none."""
    restart_every: int = Field(default=10, gt=0)
    """Steps between two restarts of dead codes."""

    @property
    def words(self) -> int | None:
        """How many different latents a voxel can have; None where they are continuous."""
        if self.kind == "kl":
            return None
        return math.prod(self.levels) if self.kind == "fsq" else self.codes

    @field_validator("levels")
    @classmethod
    def _at_least_two(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if not levels or min(levels) < 2:
            raise ValueError(f"levels {levels}: every channel needs two values or more to tell")
        return levels


class Latent(NamedTuple):
    """A quantised latent in training."""

    z_BCXYZ: Tensor
    """What the decoder reads; gradients pass straight through."""
    loss: Tensor
    """Codebook and commitment (Eq. 2), KL divergence, or 0."""
    indices_BXYZ: Tensor | None


def rows_of(h_BCXYZ: Tensor) -> Tensor:
    """The vectors of all voxels."""
    return h_BCXYZ.movedim(1, -1).reshape(-1, h_BCXYZ.shape[1])


def grid_of(z_NC: Tensor, h_BCXYZ: Tensor) -> Tensor:
    """Vectors back on the grid they came from."""
    batch, _, *voxels = h_BCXYZ.shape
    return z_NC.reshape(batch, *voxels, -1).movedim(-1, 1)


def full_precision(like: Tensor) -> torch.autocast:
    """Distances in bfloat16 would choose other codes."""
    return torch.autocast(like.device.type, enabled=False)


class CodebookQuantiser(nn.Module):
    """`homogeneous`: nearest N(code) to N(h), and the decoder reads N(code). `plain`: without N."""

    def __init__(self, sizes: QuantiserSizes, channels: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.latent_channels = channels
        self.codes_KC = nn.Parameter(_first_codes(sizes, channels))
        self.use_K2 = Tally((sizes.codes, 2), sizes.usage_decay)
        self.moments_3C = Tally((3, channels), sizes.usage_decay)
        self.register_buffer("grace_K", torch.zeros(sizes.codes))
        self.grace_K: Tensor
        self._begun = -1

    def forward(self, h_BCXYZ: Tensor, generator: torch.Generator | None = None) -> Latent:
        """Nearest codes with a straight-through gradient, and the loss of Eq. 2."""
        with full_precision(h_BCXYZ):
            z_NC = self._normal(rows_of(h_BCXYZ).float(), of_batch=self.training)
            codes_KC = self._normal_codes()
            indices_N = nearest_code(z_NC, codes_KC)
            q_NC = F.embedding(indices_N, codes_KC)
            loss = codebook_loss(z_NC, q_NC, self.sizes.commitment)
        if self.training:
            self.use_K2.add(counted(indices_N, z_NC, q_NC, self.sizes.codes))
        z_BCXYZ = grid_of(straight_through(z_NC, q_NC), h_BCXYZ)
        return Latent(z_BCXYZ, loss, indices_N.view(-1, *h_BCXYZ.shape[2:]))

    def embed(self, h_BCXYZ: Tensor) -> Tensor:
        """N(h), or h where the codebook is plain."""
        with full_precision(h_BCXYZ):
            return grid_of(self._normal(rows_of(h_BCXYZ).float(), of_batch=False), h_BCXYZ)

    def snap(self, z_BCXYZ: Tensor) -> Tensor:
        """The nearest codes."""
        with full_precision(z_BCXYZ):
            z_NC, codes_KC = rows_of(z_BCXYZ).float(), self._normal_codes()
            q_NC = F.embedding(nearest_code(z_NC, codes_KC), codes_KC)
        return grid_of(straight_through(z_NC, q_NC), z_BCXYZ)

    def usage(self) -> dict[str, Tensor]:
        """Share of codes used lately, and perplexity."""
        return use_of(self.use_K2.recent[:, 0])

    @torch.no_grad()
    def begin_step(self, step: int, seed: int) -> None:
        """Fold in the counts of the step before; restart dead codes. Once a step, then nothing."""
        if step == self._begun:
            return
        self._begun = step
        self.use_K2.fold()
        self.moments_3C.fold()
        self.grace_K *= self.sizes.usage_decay
        if step % self.sizes.restart_every == 0:
            self._restart(torch_random(seed, "codebook", step))

    def _restart(self, generator: torch.Generator) -> None:
        """Dead codes settle in the cells of codes that leave the largest errors.

        On the CPU, from sums that all processes share, so that all move the same codes alike.
        """
        tally_K2 = self.use_K2.recent.cpu()
        hits_K = tally_K2[:, 0]
        fair = hits_K.mean()
        dead = (hits_K + self.grace_K.cpu() < self.sizes.restart_below * fair).nonzero()[:, 0]
        if not len(dead):
            return
        parents = parents_of(len(dead), tally_K2, generator)
        codes_KC = self.codes_KC.cpu()
        radius_D1 = cell_radius(tally_K2, codes_KC.shape[1])[parents, None]
        spread_DC = self._code_scale(codes_KC)[parents] * radius_D1
        noise_DC = torch.randn(spread_DC.shape, generator=generator)
        where = dead.to(self.codes_KC.device)
        self.codes_KC[where] = (codes_KC[parents] + spread_DC * noise_DC).to(where.device)
        self.grace_K[where] = fair.to(where.device)

    def _normal(self, h_NC: Tensor, *, of_batch: bool) -> Tensor:
        """N(h). By channel: with the moments of the batch in training, the running ones after."""
        if self.sizes.kind == "plain":
            return h_NC
        if self.sizes.normalise == "vector":
            return z_score(h_NC, 1)
        if of_batch:
            count_C = torch.full_like(h_NC[0], len(h_NC))
            self.moments_3C.add(torch.stack([count_C, h_NC.sum(0), h_NC.square().sum(0)]))
            return z_score(h_NC, 0)
        mean_C, variance_C = self._running_moments()
        return (h_NC - mean_C) * torch.rsqrt(variance_C + EPSILON)

    def _running_moments(self) -> tuple[Tensor, Tensor]:
        count_C, sum_C, square_C = self.moments_3C.recent
        known_C = count_C > 0
        mean_C = torch.where(known_C, sum_C / count_C, 0.0)
        variance_C = torch.where(known_C, square_C / count_C - mean_C.square(), 1.0)
        return mean_C, variance_C.clamp(min=0)

    def _normal_codes(self) -> Tensor:
        """N(codes), likewise: by channel over all codes."""
        if self.sizes.kind == "plain":
            return self.codes_KC
        return z_score(self.codes_KC, 1 if self.sizes.normalise == "vector" else 0)

    def _code_scale(self, codes_KC: Tensor) -> Tensor:
        """What N divides each code by: a distance between N(codes) is this long between codes."""
        if self.sizes.kind == "plain":
            return torch.ones_like(codes_KC)
        dim = 1 if self.sizes.normalise == "vector" else 0
        return codes_KC.std(dim, correction=0, keepdim=True).expand_as(codes_KC)


def _first_codes(sizes: QuantiserSizes, channels: int) -> Tensor:
    """Spread like N(h) where codes are normalised; else the usual U(-1/K, 1/K)."""
    if sizes.kind == "plain":
        return torch.empty(sizes.codes, channels).uniform_(-1 / sizes.codes, 1 / sizes.codes)
    return torch.randn(sizes.codes, channels)


class FiniteScalarQuantiser(nn.Module):
    """FSQ: every channel of tanh(h) is rounded to one of a few values; no codebook to learn.

    The diffusion sees tanh(h), one channel for each entry of `levels`; where the autoencoder's
    latent has another number of channels, 1x1x1 convolutions lead there and back.
    """

    levels_C: Tensor

    def __init__(self, sizes: QuantiserSizes, channels: int) -> None:
        super().__init__()
        self.latent_channels = len(sizes.levels)
        self.codes = math.prod(sizes.levels)
        same = channels == self.latent_channels
        self.inward = nn.Identity() if same else nn.Conv3d(channels, self.latent_channels, 1)
        self.outward = nn.Identity() if same else nn.Conv3d(self.latent_channels, channels, 1)
        self.register_buffer("levels_C", torch.tensor(sizes.levels), persistent=False)
        self.use_K = Tally((self.codes,), sizes.usage_decay)
        self._begun = -1

    def forward(self, h_BCXYZ: Tensor, generator: torch.Generator | None = None) -> Latent:
        """Rounded values with a straight-through gradient; there is no loss to pay."""
        z_BCXYZ = self.embed(h_BCXYZ)
        steps_NC = level_number(rows_of(z_BCXYZ), self.levels_C)
        indices_N = mixed_radix(steps_NC, self.levels_C)
        if self.training:
            ones_N = torch.ones_like(indices_N, dtype=torch.float32)
            self.use_K.add(ones_N.new_zeros(self.codes).index_add_(0, indices_N, ones_N))
        indices_BXYZ = indices_N.view(-1, *h_BCXYZ.shape[2:])
        return Latent(self.snap(z_BCXYZ), z_BCXYZ.new_zeros(()), indices_BXYZ)

    def embed(self, h_BCXYZ: Tensor) -> Tensor:
        """tanh(h), in (-1, 1)."""
        return torch.tanh(self.inward(h_BCXYZ).float())

    def snap(self, z_BCXYZ: Tensor) -> Tensor:
        """The nearest values."""
        z_NC = rows_of(z_BCXYZ)
        q_NC = level_value(level_number(z_NC, self.levels_C), self.levels_C)
        q_BCXYZ: Tensor = self.outward(grid_of(straight_through(z_NC, q_NC), z_BCXYZ))
        return q_BCXYZ

    def usage(self) -> dict[str, Tensor]:
        """Share of combinations used lately, and perplexity."""
        return use_of(self.use_K.recent)

    def begin_step(self, step: int, seed: int) -> None:
        """Fold in the counts of the step before."""
        if step != self._begun:
            self._begun = step
            self.use_K.fold()


def level_number(z_NC: Tensor, levels_C: Tensor) -> Tensor:
    """round((z + 1) / 2 (L - 1)) in 0 .. L - 1."""
    return ((z_NC.clamp(-1, 1) + 1) / 2 * (levels_C - 1)).round()


def level_value(number_NC: Tensor, levels_C: Tensor) -> Tensor:
    """2 n / (L - 1) - 1: evenly spaced from -1 to 1."""
    return 2 * number_NC / (levels_C - 1) - 1


def mixed_radix(number_NC: Tensor, levels_C: Tensor) -> Tensor:
    """sum_c n_c prod_(i < c) L_i: one number for each combination of levels."""
    places_C = torch.cumprod(levels_C, 0) // levels_C
    return (number_NC.long() * places_C).sum(1)


FIRST_LOG_VARIANCE = -6.0
"""Noise of a Gaussian latent before training, e^-3; as large as the signal, it would hide it."""


class GaussianQuantiser(nn.Module):
    """KL autoencoder: no codes; the latent is a Gaussian near N(0, 1), kept as its mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.latent_channels = channels
        self.moments = nn.Conv3d(channels, 2 * channels, 1)
        assert self.moments.bias is not None
        nn.init.constant_(self.moments.bias[channels:], FIRST_LOG_VARIANCE)

    def forward(self, h_BCXYZ: Tensor, generator: torch.Generator | None = None) -> Latent:
        """A sample in training, the mean after; KL to the standard normal, mean over elements."""
        mean, log_variance = self._moments(h_BCXYZ)
        loss = divergence(mean, log_variance)
        if not self.training:
            return Latent(mean, loss, None)
        assert generator is not None, "a Gaussian latent is sampled in training: pass a generator"
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        return Latent(mean + (0.5 * log_variance).exp() * noise, loss, None)

    def embed(self, h_BCXYZ: Tensor) -> Tensor:
        """The mean."""
        return self._moments(h_BCXYZ)[0]

    def snap(self, z_BCXYZ: Tensor) -> Tensor:
        """The latent as it is."""
        return z_BCXYZ

    def usage(self) -> dict[str, Tensor]:
        """Nothing: there are no codes."""
        return {}

    def begin_step(self, step: int, seed: int) -> None:
        """Nothing to count."""

    def _moments(self, h_BCXYZ: Tensor) -> Sequence[Tensor]:
        mean, log_variance = self.moments(h_BCXYZ).float().chunk(2, 1)
        return mean, log_variance.clamp(-30, 20)  # exp stays finite


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(m, s^2) | N(0, 1)) = (m^2 + s^2 - 1 - log s^2) / 2, mean over elements."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


Quantiser = CodebookQuantiser | FiniteScalarQuantiser | GaussianQuantiser


def build_quantiser(sizes: QuantiserSizes, channels: int) -> Quantiser:
    """The quantiser asked for; `latent_channels` of it is what the diffusion sees."""
    if sizes.kind == "fsq":
        return FiniteScalarQuantiser(sizes, channels)
    if sizes.kind == "kl":
        return GaussianQuantiser(channels)
    return CodebookQuantiser(sizes, channels)

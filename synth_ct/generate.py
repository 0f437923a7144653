"""A framed radiograph and a seed become a CT volume. Pure: the same bytes wherever it is called.

film -> style -> prior -> diffusion -> decoder -> HU. Each item draws its own noise from its own
seed, and batches have one size, short ones padded: a volume depends neither on its companions nor
on its place among them.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synth_ct.diffusion import DiffusionRecipe, SamplerRecipe, sample
from synth_ct.kit.axes import FilmBatch
from synth_ct.kit.volume import Volume, unwindow
from synth_ct.learners.denoiser import ConditionedDenoiser
from synth_ct.models.autoencoder import Autoencoder
from synth_ct.models.progressive_encoder import AuxiliaryDecoder, ProgressiveEncoder
from synth_ct.pairs.arrays import working_affine


@dataclass(frozen=True, slots=True, kw_only=True)
class XctDiff:
    """Trained networks in evaluation mode, on one device."""

    style: nn.Module
    """Real film -> film in the style of a DRR."""
    prior: ProgressiveEncoder
    denoiser: ConditionedDenoiser | None
    """None decodes the prior itself: the control without diffusion."""
    prior_decoder: AuxiliaryDecoder | None
    """Of a prior in coordinates of its own; None where the autoencoder reads it."""
    autoencoder: Autoencoder
    diffusion: DiffusionRecipe
    sampler: SamplerRecipe
    micro_batch: int
    """Films that go through the networks together; part of what fixes the last bit."""

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.autoencoder.parameters()).device


def generate(models: XctDiff, film_B1UV: FilmBatch, seeds: Sequence[int]) -> list[Volume]:
    """One volume for each film and its seed. Films are framed, and in the style of DRRs."""
    if len(film_B1UV) != len(seeds):
        raise ValueError(f"{len(film_B1UV)} films but {len(seeds)} seeds; give one for each")
    size = models.micro_batch
    volumes: list[Volume] = []
    with even_threads():
        for start in range(0, len(seeds), size):
            films, own = film_B1UV[start : start + size], list(seeds[start : start + size])
            ct_B1XYZ = _batch(models, padded(films, size), own + [0] * (size - len(own)))
            volumes += [as_volume(ct_XYZ) for ct_XYZ in ct_B1XYZ[: len(own), 0]]
    return volumes


def restyled(models: XctDiff, film_B1UV: FilmBatch) -> FilmBatch:
    """Real films in the style of DRRs, each as if it were alone."""
    size = models.micro_batch
    with torch.inference_mode(), even_threads():
        parts = [
            models.style(padded(part, size).to(models.device))[: len(part)].cpu()
            for part in film_B1UV.split(size)
        ]
    return torch.cat(parts)


@contextmanager
def even_threads() -> Generator[None, None, None]:
    """As many threads as a power of two allows.

    torch cuts a batch into as many pieces as it has threads; three cut it in the middle of a vector
    and of an item, and the rest is computed by other instructions: the last bits would then depend
    on an item's place.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(2 ** (before.bit_length() - 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def padded(film_B1UV: FilmBatch, size: int) -> Tensor:
    """Fill a short batch up by repeating its last film."""
    missing = size - len(film_B1UV)
    return torch.cat([film_B1UV, film_B1UV[-1:].expand(missing, -1, -1, -1)])


def as_volume(ct_XYZ: Tensor) -> Volume:
    """The network's range -> HU on the nominal grid; NaN stays NaN, for a gate to see."""
    hu_XYZ = unwindow(ct_XYZ.float().cpu().numpy())
    return Volume(hu_XYZ, working_affine(hu_XYZ.shape[0]))


@torch.inference_mode()
def _batch(models: XctDiff, film_B1UV: FilmBatch, seeds: Sequence[int]) -> Tensor:
    y_BCXYZ = models.prior(film_B1UV.to(models.device)).y_BCXYZ
    if models.denoiser is None:
        return (models.prior_decoder or models.autoencoder.decode)(y_BCXYZ)
    return models.autoencoder.decode(_latents(models, models.denoiser, y_BCXYZ, seeds))


def _latents(
    models: XctDiff, denoiser: ConditionedDenoiser, y_BCXYZ: Tensor, seeds: Sequence[int]
) -> Tensor:
    """Sample what the diffusion learned, given the prior."""
    prior_BCXYZ = denoiser.standardise_prior(y_BCXYZ)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw() -> Tensor:
        noise = [torch.randn(y_BCXYZ.shape[1:], generator=g) for g in generators]
        return torch.stack(noise).to(y_BCXYZ.device)

    def predict(z_BCXYZ: Tensor, time_B: Tensor) -> Tensor:
        predicted_BCXYZ: Tensor = denoiser(z_BCXYZ, time_B, prior_BCXYZ)
        return predicted_BCXYZ

    z_BCXYZ = sample(models.diffusion, models.sampler, predict, draw, prior_BCXYZ)
    return denoiser.restore(z_BCXYZ)

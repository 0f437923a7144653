"""The prior: a progressive encoder taught the CT, or the autoencoder's latent of the CT."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from synth_ct.kit.checkpoint import load_weights
from synth_ct.kit.loop import Training
from synth_ct.kit.place import Place, Told, fit, keep
from synth_ct.kit.recipe import Recipe
from synth_ct.kit.seeds import seed_for
from synth_ct.models.autoencoder import Autoencoder
from synth_ct.models.progressive_encoder import AuxiliaryDecoder, PriorSizes, ProgressiveEncoder
from synth_ct.models.quantizers import CodebookQuantiser, QuantiserSizes
from synth_ct.pairs.arrays import Pairs, drawn, in_parts

PRIOR, AUXILIARY_DECODER = "prior", "auxiliary_decoder"
AT_ONCE = 4
"""CTs encoded together."""


class PriorRecipe(Recipe):
    """How a prior is trained; the defaults are the paper's."""

    sizes: PriorSizes = PriorSizes()
    target: Literal["ct", "latent"] = "ct"
    """`ct` teaches through an auxiliary decoder, in coordinates of the prior's own. `latent`
    teaches those of the autoencoder, so that its decoder and a flow can start from the prior."""
    rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=1e-5, ge=0)
    film_noise: float = Field(default=0.0, ge=0, le=1)
    """How much exposure, contrast, sharpness and noise of the films vary; 0 leaves them alone."""
    training: Training = Training(seed=0, steps=50_000, global_batch=16, micro_batch=4)


class PriorBatch(NamedTuple):
    """Films, and what their priors shall become."""

    film_B1UV: Tensor
    target_BCXYZ: Tensor
    step: int


class PriorLearner:
    """One phase: mean (target - guess)^2 + the quantiser's loss."""

    def __init__(self, recipe: PriorRecipe, device: torch.device) -> None:
        self.recipe = recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(recipe.training.seed, "weights/prior"))
            self.encoder = ProgressiveEncoder(recipe.sizes).to(device)
            decoder = AuxiliaryDecoder(recipe.sizes.latent_channels).to(device)
        self.decoder = decoder if recipe.target == "ct" else None
        self.modules: Mapping[str, nn.Module] = {PRIOR: self.encoder}
        if self.decoder is not None:
            self.modules = {PRIOR: self.encoder, AUXILIARY_DECODER: self.decoder}
        self.averaged: Sequence[str] = tuple(self.modules)
        weights = [p for module in self.modules.values() for p in module.parameters()]
        self.optimisers: Mapping[str, Optimizer] = {
            PRIOR: AdamW(weights, recipe.rate, weight_decay=recipe.weight_decay)
        }

    def losses(
        self, phase: str, batch: PriorBatch, generator: torch.Generator, /
    ) -> Mapping[str, Tensor]:
        """Of one micro-batch."""
        quantiser = self.encoder.quantiser
        if quantiser is not None:
            quantiser.begin_step(batch.step, self.recipe.training.seed)
        film_B1UV = batch.film_B1UV
        if self.recipe.film_noise > 0:
            film_B1UV = varied(film_B1UV, self.recipe.film_noise, generator)
        prior = self.encoder(film_B1UV)
        guess_BCXYZ = self.decoder(prior.y_BCXYZ) if self.decoder else prior.y_BCXYZ
        error = F.mse_loss(guess_BCXYZ, batch.target_BCXYZ)
        seen = quantiser.usage() if quantiser is not None else {}
        return {"total": error + prior.loss, "error": error.detach(), **seen}


# ---- films of other exposures ------------------------------------------------------------------


def varied(film_B1UV: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """f' = g (f + b (blur(f) - f))^c + n for f in [0, 1]: g, b, c for each film, n each pixel."""

    def normal(*shape: int) -> Tensor:
        numbers = strength * torch.randn(shape, generator=generator)
        return numbers.to(film_B1UV.device, film_B1UV.dtype)

    each = (len(film_B1UV), 1, 1, 1)
    g_B111, c_B111 = (0.1 * normal(*each)).exp(), (0.25 * normal(*each)).exp()
    b_B111 = (0.5 * normal(*each)).abs().clamp(max=1)
    f_B1UV = (film_B1UV + 1) / 2
    f_B1UV = torch.lerp(f_B1UV, blurred(f_B1UV), b_B111)
    f_B1UV = g_B111 * f_B1UV**c_B111 + 0.03 * normal(*film_B1UV.shape)
    return 2 * f_B1UV.clamp(0, 1) - 1


def blurred(film_B1UV: Tensor) -> Tensor:
    """Mean of 3 x 3 pixels; beyond the film its outermost pixel repeats."""
    return F.avg_pool2d(F.pad(film_B1UV, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


# ---- training ----------------------------------------------------------------------------------


def train_prior(
    recipe: PriorRecipe, pairs: Pairs, autoencoder: Autoencoder | None, place: Place
) -> None:
    """Train on the part `train`; leave the averaged weights in the place.

    Target `latent` needs the finished autoencoder; target `ct` ignores it.
    """
    numbers = pairs.of("train")
    latents_NCXYZ = None
    if recipe.target == "latent":
        latents_NCXYZ = _latents(recipe, pairs, autoencoder, place)

    def batches(step: int, slot: int) -> PriorBatch:
        count, seed = recipe.training.micro_batch, recipe.training.seed
        rows = drawn(seed, "prior", step, slot, count, np.arange(len(numbers)))
        chosen = numbers[rows]
        if latents_NCXYZ is None:
            target_BCXYZ = pairs.ct(chosen, place.device)
        else:
            target_BCXYZ = latents_NCXYZ[torch.from_numpy(rows).to(place.device)]
        return PriorBatch(pairs.film(chosen, place.device), target_BCXYZ, step)

    averages = fit(PriorLearner(recipe, place.device), batches, recipe.training, place)
    for name, weights in averages.items():
        keep(place, name, weights)


def _latents(
    recipe: PriorRecipe, pairs: Pairs, autoencoder: Autoencoder | None, place: Place
) -> Tensor:
    """The training latents, once the autoencoder is known to fit."""
    if autoencoder is None:
        raise ValueError(
            "a prior with target `latent` learns an autoencoder's latents and was given no "
            "autoencoder; train one first, or choose target `ct`"
        )
    _demand_same_space(recipe.sizes.quantiser, autoencoder)
    numbers = pairs.of("train")
    told = place.begin(len(numbers))
    latents_NCXYZ = embedded(autoencoder, pairs, numbers, place.device, told)
    sizes = recipe.sizes
    wanted = (sizes.latent_channels, *(3 * [sizes.depth]))
    if latents_NCXYZ.shape[1:] != wanted:
        raise ValueError(
            f"the autoencoder's latents of these CTs are {tuple(latents_NCXYZ.shape[1:])}, the "
            f"prior's {wanted}; make `latent_channels` and `film` agree"
        )
    return latents_NCXYZ


def _demand_same_space(ours: QuantiserSizes | None, autoencoder: Autoencoder) -> None:
    """Codes of another normalisation never meet the latents they are to learn."""
    if ours is None:
        return
    book = autoencoder.quantiser
    theirs = book.sizes if isinstance(book, CodebookQuantiser) else None
    if theirs is None or (theirs.kind, theirs.normalise) != (ours.kind, ours.normalise):
        kind = f"{theirs.kind} by {theirs.normalise}" if theirs else "no codebook"
        raise ValueError(
            f"the prior's quantiser is {ours.kind} by {ours.normalise}, the autoencoder's {kind}; "
            "give both the same, or leave the prior's empty"
        )


def embedded(
    autoencoder: Autoencoder,
    pairs: Pairs,
    numbers: np.ndarray,
    device: torch.device,
    told: Told = lambda done: None,
) -> Tensor:
    """What the frozen autoencoder makes of these CTs, each encoded once."""
    latents = []
    with torch.no_grad():
        for part in in_parts(numbers, AT_ONCE):
            latents.append(autoencoder.embed(pairs.ct(part, device)))
            told(len(part))
    return torch.cat(latents)


# ---- the finished prior ------------------------------------------------------------------------


def load_prior(recipe: PriorRecipe, folder: Path, device: torch.device) -> ProgressiveEncoder:
    """Film -> prior."""
    encoder = ProgressiveEncoder(recipe.sizes)
    load_weights(folder / f"{PRIOR}.safetensors", encoder)
    return encoder.to(device).eval()


def load_auxiliary_decoder(
    recipe: PriorRecipe, folder: Path, device: torch.device
) -> AuxiliaryDecoder:
    """Prior -> CT, for a prior of target `ct`: no other decoder reads its coordinates."""
    if recipe.target != "ct":
        raise ValueError(
            "a prior of target `latent` has no decoder of its own; use the autoencoder's"
        )
    decoder = AuxiliaryDecoder(recipe.sizes.latent_channels)
    load_weights(folder / f"{AUXILIARY_DECODER}.safetensors", decoder)
    return decoder.to(device).eval()

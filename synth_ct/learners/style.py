"""Style transfer: real radiographs to DRR style, learnt from films that are no pairs.

CycleGAN trains four networks, of which the one from real to DRR is kept. `histogram` fits one grey
curve instead, and `none` changes nothing: what style transfer is worth shows beside them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from synth_ct.kit.checkpoint import load_weights
from synth_ct.kit.loop import Batches, Training
from synth_ct.kit.place import Place, fit, keep
from synth_ct.kit.recipe import Recipe
from synth_ct.kit.seeds import torch_random
from synth_ct.models.style import (
    HistogramMatch,
    ImagePool,
    PatchDiscriminator,
    StyleGenerator,
    StyleSizes,
    initialise,
    least_squares,
    mean_quantiles,
)
from synth_ct.pairs.arrays import drawn

NAME = "style"
TO_DRR, TO_REAL = "to_drr", "to_real"
QUANTILES = 256
FEWEST_FILMS = 2


class StyleRecipe(Recipe):
    """How radiographs come to look like DRRs. CycleGAN's own values, where it has one."""

    kind: Literal["cyclegan", "histogram", "none"] = "cyclegan"
    sizes: StyleSizes = StyleSizes()
    cycle_weight: float = Field(default=10.0, ge=0)
    identity_weight: float = Field(default=5.0, ge=0)
    """Half the cycle's, as CycleGAN has it where colours must stay."""
    pool: int = Field(default=50, ge=1)
    """Earlier fakes kept for each discriminator."""
    learning_rate: float = Field(default=2e-4, gt=0)
    betas: tuple[float, float] = (0.5, 0.999)
    training: Training

    @model_validator(mode="after")
    def _one_process(self) -> "StyleRecipe":
        if self.training.global_batch != self.training.micro_batch:
            raise ValueError(
                f"global_batch {self.training.global_batch} is not micro_batch "
                f"{self.training.micro_batch}; style trains in one process, whose image pool no "
                "other shares: make them equal"
            )
        return self


class StyleBatch(NamedTuple):
    """As many films of each domain; nobody is in both."""

    real_B1UV: Tensor
    drr_B1UV: Tensor


class Fakes(NamedTuple):
    """What the generators made of a batch."""

    drr_B1UV: Tensor
    real_B1UV: Tensor


class StyleLearner:
    """Two generators and two discriminators, one phase each; fakes are made once a step."""

    averaged: Sequence[str] = (TO_DRR,)

    def __init__(self, recipe: StyleRecipe, pixels: int, device: torch.device) -> None:
        self.recipe = recipe
        sizes = recipe.sizes
        self.to_drr, self.to_real = StyleGenerator(sizes), StyleGenerator(sizes)
        self.judge_drr = PatchDiscriminator(sizes.judge_width, sizes.judge_layers)
        self.judge_real = PatchDiscriminator(sizes.judge_width, sizes.judge_layers)
        self.pool_drr, self.pool_real = (ImagePool(recipe.pool, pixels) for _ in range(2))
        self.modules: dict[str, nn.Module] = {
            TO_DRR: self.to_drr,
            TO_REAL: self.to_real,
            "judge_drr": self.judge_drr,
            "judge_real": self.judge_real,
            "pool_drr": self.pool_drr,
            "pool_real": self.pool_real,
        }
        for name, module in self.modules.items():
            initialise(module, torch_random(recipe.training.seed, f"style/{name}"))
            module.to(device)
        self.optimisers = {
            "generators": self._adam(self.to_drr, self.to_real),
            "discriminators": self._adam(self.judge_drr, self.judge_real),
        }
        self._made: tuple[StyleBatch, Fakes] | None = None

    def losses(
        self, phase: str, batch: StyleBatch, generator: torch.Generator, /
    ) -> dict[str, Tensor]:
        """The generators first; the discriminators then judge what these made."""
        if phase == "generators":
            return self._generators(batch)
        assert self._made is not None, "the generators come first"
        made_of, fakes = self._made
        assert made_of is batch, "the fakes are another batch's"
        self._made = None
        return self._discriminators(batch, fakes, generator)

    def _generators(self, batch: StyleBatch) -> dict[str, Tensor]:
        """(D(G(x)) - 1)^2 + 10 |F(G(x)) - x| + 5 |G(y) - y|, both ways."""
        count = len(batch.real_B1UV)
        both_B1UV = torch.cat([batch.real_B1UV, batch.drr_B1UV])
        fake_drr, same_drr = self.to_drr(both_B1UV).split(count)
        fake_real, same_real = self.to_real(both_B1UV.roll(count, 0)).split(count)
        self._made = batch, Fakes(fake_drr.detach(), fake_real.detach())
        losses = {
            "drr": least_squares(self.judge_drr(fake_drr), 1.0),
            "real": least_squares(self.judge_real(fake_real), 1.0),
            "cycle": F.l1_loss(self.to_real(fake_drr), batch.real_B1UV)
            + F.l1_loss(self.to_drr(fake_real), batch.drr_B1UV),
            "identity": F.l1_loss(same_drr, batch.drr_B1UV) + F.l1_loss(same_real, batch.real_B1UV),
        }
        total = (
            losses["drr"]
            + losses["real"]
            + self.recipe.cycle_weight * losses["cycle"]
            + self.recipe.identity_weight * losses["identity"]
        )
        return {"total": total, **losses}

    def _discriminators(
        self, batch: StyleBatch, fakes: Fakes, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """((D(y) - 1)^2 + D(G(x))^2) / 2, the fakes through the pool."""
        losses = {
            "drr": _judged(
                self.judge_drr, batch.drr_B1UV, self.pool_drr(fakes.drr_B1UV, generator)
            ),
            "real": _judged(
                self.judge_real, batch.real_B1UV, self.pool_real(fakes.real_B1UV, generator)
            ),
        }
        return {"total": losses["drr"] + losses["real"], **losses}

    def _adam(self, *networks: nn.Module) -> Adam:
        parameters = [p for network in networks for p in network.parameters()]
        return Adam(parameters, lr=self.recipe.learning_rate, betas=self.recipe.betas)


def _judged(judge: nn.Module, true_B1UV: Tensor, fake_B1UV: Tensor) -> Tensor:
    return (least_squares(judge(true_B1UV), 1.0) + least_squares(judge(fake_B1UV), 0.0)) / 2


# ---- training and loading ----------------------------------------------------------------------


def build_style(recipe: StyleRecipe) -> nn.Module:
    """film_B1UV -> film_B1UV, untrained."""
    if recipe.kind == "cyclegan":
        return StyleGenerator(recipe.sizes)
    return HistogramMatch(QUANTILES) if recipe.kind == "histogram" else nn.Identity()


def train_style(
    recipe: StyleRecipe, real_films_NUV: np.ndarray, drr_films_NUV: np.ndarray, place: Place
) -> None:
    """Learn from framed films of both domains, and keep what turns a real one into a DRR."""
    if recipe.kind == "cyclegan":
        _demand_films(real_films_NUV, drr_films_NUV, recipe.training.micro_batch)
        learner = StyleLearner(recipe, real_films_NUV.shape[-1], place.device)
        batches = style_batches(recipe.training, real_films_NUV, drr_films_NUV, place.device)
        weights = fit(learner, batches, recipe.training, place)[TO_DRR]
    else:
        style = build_style(recipe)
        if isinstance(style, HistogramMatch):
            style.quantiles_Q = mean_quantiles(torch.from_numpy(drr_films_NUV), QUANTILES)
        weights = style.state_dict()
    keep(place, NAME, weights)


def load_style(recipe: StyleRecipe, folder: Path, device: torch.device) -> nn.Module:
    """What `train_style` kept, ready for use."""
    style = build_style(recipe)
    load_weights(folder / f"{NAME}.safetensors", style)
    return style.to(device).eval()


def style_batches(
    training: Training, real_films_NUV: np.ndarray, drr_films_NUV: np.ndarray, device: torch.device
) -> Batches:
    """Films of both domains, drawn apart: nothing pairs them."""

    def films(films_NUV: np.ndarray, domain: str, step: int, slot: int) -> Tensor:
        everyone = np.arange(len(films_NUV))
        chosen = drawn(training.seed, domain, step, slot, training.micro_batch, everyone)
        return torch.from_numpy(films_NUV[chosen][:, None]).to(device)

    def batch(step: int, slot: int) -> StyleBatch:
        return StyleBatch(
            films(real_films_NUV, "real films", step, slot),
            films(drr_films_NUV, "DRR films", step, slot),
        )

    return batch


def _demand_films(real_films_NUV: np.ndarray, drr_films_NUV: np.ndarray, micro_batch: int) -> None:
    fewest = max(FEWEST_FILMS, micro_batch)
    for name, films in (("real", real_films_NUV), ("DRR", drr_films_NUV)):
        if len(films) < fewest:
            raise ValueError(
                f"{len(films)} {name} films; style transfer needs at least {fewest} of each "
                'domain: give it more, or choose kind = "none"'
            )
    if real_films_NUV.shape[1:] != drr_films_NUV.shape[1:]:
        raise ValueError(
            f"real films of {real_films_NUV.shape[1:]} pixels and DRR films of "
            f"{drr_films_NUV.shape[1:]}; frame both to the same size"
        )

"""Training the denoiser: what it is given, what it keeps, and that it learns."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from synth_ct.diffusion import SamplerRecipe, sample
from synth_ct.kit.loop import Training
from synth_ct.kit.place import Place
from synth_ct.learners import denoiser as learners_denoiser
from synth_ct.learners.denoiser import (
    DENOISER,
    SMALLEST_SD,
    ConditionedDenoiser,
    DenoiserBatch,
    DenoiserLearner,
    DenoiserRecipe,
    load_denoiser,
    measured,
    priors_of,
    train_denoiser,
)
from synth_ct.learners.prior import embedded
from synth_ct.models.autoencoder import Autoencoder, AutoencoderSizes
from synth_ct.models.denoiser import DenoiserSizes
from synth_ct.models.progressive_encoder import PriorSizes, ProgressiveEncoder
from synth_ct.models.quantizers import QuantiserSizes
from synth_ct.pairs.arrays import Pair, Pairs, Part

CPU, META = torch.device("cpu"), torch.device("meta")
SIZES = DenoiserSizes(
    latent_channels=4,
    width=16,
    multipliers=(1, 2),
    attend_from=0,
    heads=2,
    head_width=8,
    longest=4,
)
TRAINING = Training(seed=0, steps=2, global_batch=4, micro_batch=2)


def recipe_with(**fields: Any) -> DenoiserRecipe:
    return DenoiserRecipe.model_validate({"sizes": SIZES, "training": TRAINING} | fields)


def pairs(count: int = 5, size: int = 16) -> Pairs:
    """Blocks of random densities; the film is their mean along Y. The last pair is held out."""
    blocks_NXYZ = np.random.default_rng(0).integers(-900, 1400, (count, 4, 4, 4), np.int16)
    hu_NXYZ = blocks_NXYZ.repeat(size // 4, 1).repeat(size // 4, 2).repeat(size // 4, 3)
    films = (hu_NXYZ.mean(2).transpose(0, 2, 1)[:, ::-1, ::-1] / 1000).clip(-1, 1)
    parts: list[Part] = [*["train"] * (count - 1), "test"]  # type: ignore[list-item]
    rows = tuple(
        Pair(id=f"{n}", patient=f"{n}", split=part, box=(0.0, 1.0, 0.0, 1.0), likeness=1.0)
        for n, part in enumerate(parts)
    )
    return Pairs(rows, hu_NXYZ, films.astype(np.float32))


class CountingAutoencoder(Autoencoder):
    """An autoencoder that notes how many CTs it encoded at a time."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        quantiser = QuantiserSizes(kind="plain", codes=64)
        sizes = AutoencoderSizes(
            channels=(8, 8, 8), blocks=1, latent_channels=4, quantiser=quantiser
        )
        super().__init__(sizes)
        self.eval()
        self.encoded: list[int] = []

    def embed(self, ct_B1XYZ: Tensor) -> Tensor:
        self.encoded.append(len(ct_B1XYZ))
        return super().embed(ct_B1XYZ)


def untrained_prior(latent_channels: int = 4) -> ProgressiveEncoder:
    """Says nothing of the CT, but something else of each film."""
    torch.manual_seed(4)
    sizes = PriorSizes(
        film=16, channels=(8, 16, 32), blocks=1, latent_channels=latent_channels, quantiser=None
    )
    return ProgressiveEncoder(sizes).eval()


@dataclass
class Rows:
    rows: dict[int, dict[str, float]] = field(default_factory=dict)

    def __call__(self, step: int, row: dict[str, float]) -> None:
        self.rows[step] = row


def trained(recipe: DenoiserRecipe, folder: Path, count: int = 5) -> ConditionedDenoiser:
    place = Place(folder=folder, device=CPU)
    train_denoiser(recipe, pairs(count), CountingAutoencoder(), untrained_prior(), place)
    return load_denoiser(recipe, folder, CPU)


# ---- it learns ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "conditioning"),
    [("noise", "concat"), ("prior", "cross")],
    ids=["from noise", "from the prior"],
)
def test_each_prior_leads_to_its_own_latent(start: str, conditioning: str, tmp_path: Path) -> None:
    sizes = SIZES.model_copy(update={"multipliers": (1,), "conditioning": conditioning})
    recipe = recipe_with(
        sizes=sizes,
        diffusion={"objective": "flow", "start": start},
        training=Training(seed=0, steps=80, global_batch=4, micro_batch=4),
        rate=8e-3,
        loss="l2",
    )
    model, data = trained(recipe, tmp_path), pairs()
    numbers = data.of("train")
    latents = model.standardise(embedded(CountingAutoencoder(), data, numbers, CPU))
    priors = model.standardise_prior(priors_of(untrained_prior(), data, numbers, CPU))
    random = torch.Generator().manual_seed(5)

    def draw() -> Tensor:
        return torch.randn(latents.shape, generator=random)

    sampler = SamplerRecipe(name="euler", evaluations=10)
    made = sample(recipe.diffusion, sampler, lambda z, t: model(z, t, priors), draw, priors)
    distance = torch.cdist(made.flatten(1), latents.flatten(1)) ** 2
    assert distance.argmin(1).tolist() == [0, 1, 2, 3]
    assert distance.diag().mean() < 0.6 * distance.mean()


def test_noise_is_told_from_latents(tmp_path: Path) -> None:
    training = Training(seed=0, steps=40, global_batch=4, micro_batch=4)
    sizes = SIZES.model_copy(update={"multipliers": (1,)})
    recipe, rows = recipe_with(training=training, rate=5e-3, sizes=sizes), Rows()
    place = Place(folder=tmp_path, device=CPU, log=rows)
    train_denoiser(recipe, pairs(), CountingAutoencoder(), untrained_prior(), place)
    losses = [row["denoiser/total"] for row in rows.rows.values()]
    assert np.mean(losses[-10:]) < 0.75 * losses[0]


# ---- what it is given --------------------------------------------------------------------------


def test_each_training_ct_is_encoded_once(tmp_path: Path) -> None:
    autoencoder, told = CountingAutoencoder(), list[int]()
    place = Place(folder=tmp_path, device=CPU, begin=lambda total: told.append)
    train_denoiser(recipe_with(), pairs(count=8), autoencoder, untrained_prior(), place)
    assert sum(told) == 2 * sum(autoencoder.encoded)
    assert sum(autoencoder.encoded) == 7
    assert min(autoencoder.encoded) > 1


def test_latents_and_priors_are_standardised_by_what_the_training_part_measures(
    tmp_path: Path,
) -> None:
    model, data = trained(recipe_with(), tmp_path), pairs()
    numbers = data.of("train")
    latents = embedded(CountingAutoencoder(), data, numbers, CPU)
    priors = priors_of(untrained_prior(), data, numbers, CPU)
    for standard in (model.standardise(latents), model.standardise_prior(priors)):
        mean, sd = measured(standard)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
        torch.testing.assert_close(sd, torch.ones_like(sd))
    torch.testing.assert_close(model.restore(model.standardise(latents)), latents)


def test_scales_are_those_of_each_channel(random: torch.Generator) -> None:
    z = torch.randn(6, 2, 5, 5, 5, generator=random) * torch.tensor([3.0, 0.5]).view(2, 1, 1, 1)
    z[:, 1] += 1000
    mean, sd = measured(z)
    assert mean.shape == (2, 1, 1, 1)
    torch.testing.assert_close(mean.flatten(), z.double().mean((0, 2, 3, 4)).float())
    wanted = z.double().var((0, 2, 3, 4), correction=0).sqrt().float()
    torch.testing.assert_close(sd.flatten(), wanted)


def test_a_channel_that_never_changes_stays_finite() -> None:
    assert measured(torch.full((2, 1, 3, 3, 3), 7.0)).sd_C111.item() == pytest.approx(SMALLEST_SD)


def test_priors_are_those_of_the_films_in_order() -> None:
    data, prior, numbers = pairs(count=8), untrained_prior(), np.array([5, 0, 3, 1, 2])
    priors = priors_of(prior, data, numbers, CPU)
    for y, number in zip(priors, numbers.tolist(), strict=True):
        alone = prior(data.film([number], CPU)).y_BCXYZ[0]
        torch.testing.assert_close(y, alone, atol=1e-4, rtol=1e-4)
    assert not priors.requires_grad


def test_a_denoiser_of_half_precision_takes_what_a_full_one_takes(random: torch.Generator) -> None:
    model = ConditionedDenoiser(SIZES)
    model.denoiser.to(torch.bfloat16)
    z, prior = batch_of(random)
    assert model(z, torch.zeros(2), prior).dtype == torch.bfloat16
    assert model.standardise(z).dtype == torch.float32


# ---- the loss ----------------------------------------------------------------------------------


class Answers(nn.Module):
    """Predicts what it is told to."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, z: Tensor, time: Tensor, prior: Tensor) -> Tensor:
        return self.answer


def batch_of(random: torch.Generator) -> DenoiserBatch:
    latent, prior = torch.randn(2, 2, 4, 4, 4, 4, generator=random).unbind()
    return DenoiserBatch(latent, prior)


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_the_noise_is_what_it_should_answer(
    loss: str, random: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, batch = DenoiserLearner(recipe_with(loss=loss), CPU), batch_of(random)
    noise = torch.randn(batch.latent_BCXYZ.shape, generator=torch.Generator().manual_seed(1))

    def error(answer: Tensor) -> float:
        monkeypatch.setattr(learner, "model", Answers(answer))
        return learner.losses(DENOISER, batch, torch.Generator().manual_seed(1))["total"].item()

    assert error(noise) == 0
    assert error(noise + 3) == pytest.approx({"l1": 3, "l2": 9}[loss], rel=1e-5)


def test_the_generator_alone_decides(random: torch.Generator) -> None:
    learner, batch = DenoiserLearner(recipe_with(), CPU), batch_of(random)

    def total(seed: int) -> float:
        torch.manual_seed(seed + 10)
        generator = torch.Generator().manual_seed(seed)
        return learner.losses(DENOISER, batch, generator)["total"].item()

    assert total(0) == total(0)
    assert total(0) != total(1)


# ---- what is kept ------------------------------------------------------------------------------


def test_the_average_is_kept_and_the_seed_alone_begins_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    fit = learners_denoiser.fit

    def spied(learner: DenoiserLearner, *rest: Any) -> Any:
        seen["first"] = {k: v.clone() for k, v in learner.model.state_dict().items()}
        seen["averages"] = fit(learner, *rest)
        seen["last"] = learner.model.state_dict()
        return seen["averages"]

    monkeypatch.setattr(learners_denoiser, "fit", spied)
    torch.manual_seed(99)
    kept = trained(recipe_with(rate=1e-2), tmp_path).state_dict()
    average = seen["averages"][DENOISER]
    assert all(torch.equal(kept[name], average[name]) for name in average)
    assert not torch.equal(kept["denoiser.last.weight"], seen["last"]["denoiser.last.weight"])
    again = DenoiserLearner(recipe_with(), CPU).model.state_dict()
    weights = [name for name in again if name.startswith("denoiser.")]
    assert all(torch.equal(again[name], seen["first"][name]) for name in weights)


def test_the_defaults_are_those_of_the_paper() -> None:
    recipe = DenoiserRecipe()
    assert (recipe.loss, recipe.rate, recipe.diffusion.objective) == ("l1", 1e-4, "epsilon")
    assert (recipe.training.steps, recipe.training.global_batch) == (100_000, 8)
    assert recipe.training.average_decay == 0.9999


# ---- refusals ----------------------------------------------------------------------------------


def test_models_that_do_not_fit_one_another_are_refused(tmp_path: Path) -> None:
    place = Place(folder=tmp_path, device=CPU)
    with pytest.raises(ValueError, match="same latent_channels"):
        train_denoiser(recipe_with(), pairs(), CountingAutoencoder(), untrained_prior(8), place)
    sizes = SIZES.model_copy(update={"latent_channels": 8})
    with pytest.raises(ValueError, match="latents have 4 channels and the denoiser 8"):
        trained(recipe_with(sizes=sizes), tmp_path)


# ---- what it costs -----------------------------------------------------------------------------


def test_a_step_of_the_paper_is_a_third_of_one_that_encodes_anew() -> None:
    learner = DenoiserLearner(DenoiserRecipe(), META)
    with META:
        autoencoder, prior = Autoencoder(AutoencoderSizes()), ProgressiveEncoder(PriorSizes())
        batch = DenoiserBatch(*torch.zeros(2, 1, 8, 32, 32, 32))
        ct, film = torch.zeros(1, 1, 128, 128, 128), torch.zeros(1, 1, 128, 128)
    with FlopCounterMode(display=False) as cached:
        learner.losses(DENOISER, batch, torch.Generator())["total"].backward()
    with FlopCounterMode(display=False) as encoding, torch.no_grad():
        autoencoder.encoder(ct)
        prior.shape(film)
    cost = cached.get_total_flops()
    assert cost + encoding.get_total_flops() > 3 * cost

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from synth_ct.kit.loop import Training
from synth_ct.kit.place import Place
from synth_ct.learners.prior import (
    PriorBatch,
    PriorLearner,
    PriorRecipe,
    embedded,
    load_auxiliary_decoder,
    load_prior,
    train_prior,
    varied,
)
from synth_ct.models.autoencoder import Autoencoder, AutoencoderSizes
from synth_ct.models.progressive_encoder import PriorSizes
from synth_ct.models.quantizers import QuantiserSizes
from synth_ct.pairs.arrays import Pair, Pairs, Part

CPU = torch.device("cpu")
BOOK = QuantiserSizes(kind="homogeneous", codes=64)
SIZES = PriorSizes(
    film=16, channels=(8, 16, 32), blocks=1, anatomy_channels=16, latent_channels=4, quantiser=BOOK
)
TRAINING = Training(seed=0, steps=3, global_batch=4, micro_batch=2)
RECIPE = PriorRecipe(sizes=SIZES, target="latent", rate=3e-3, training=TRAINING)


def pairs(count: int = 5, size: int = 16) -> Pairs:
    """A bright ball each; the film is the mean along Y. The last is held out."""
    random = np.random.default_rng(0)
    centres = random.uniform(2, size - 2, (count, 3))
    grid = np.stack(np.meshgrid(*3 * [np.arange(size)], indexing="ij"), -1)
    inside = np.linalg.norm(grid - centres[:, None, None, None], axis=-1) < 7
    hu_NXYZ = np.where(inside, 500, -900).astype(np.int16)
    films = (hu_NXYZ.mean(2).transpose(0, 2, 1)[:, ::-1, ::-1] / 500).clip(-1, 1)
    parts: list[Part] = [*["train"] * (count - 1), "test"]  # type: ignore[list-item]
    rows = tuple(
        Pair(id=f"{n}", patient=f"{n}", split=part, box=(0.0, 1.0, 0.0, 1.0), likeness=1.0)
        for n, part in enumerate(parts)
    )
    return Pairs(rows, hu_NXYZ, films.astype(np.float32))


class Counting(Autoencoder):
    """An autoencoder that notes how many CTs it encoded at a time."""

    def __init__(self, quantiser: QuantiserSizes = BOOK) -> None:
        torch.manual_seed(3)
        sizes = AutoencoderSizes(
            channels=(8, 8, 8), blocks=1, latent_channels=4, quantiser=quantiser
        )
        super().__init__(sizes)
        self.eval()
        self.encoded: list[int] = []

    def embed(self, ct_B1XYZ: Tensor) -> Tensor:
        self.encoded.append(len(ct_B1XYZ))
        return super().embed(ct_B1XYZ)


@dataclass
class Rows:
    rows: dict[int, dict[str, float]] = field(default_factory=dict)

    def __call__(self, step: int, row: dict[str, float]) -> None:
        self.rows[step] = row


def error_left(recipe: PriorRecipe, folder: Path) -> float:
    """The last error of a training, as a part of what the mean of all targets leaves."""
    data, autoencoder, rows = pairs(), Counting(), Rows()
    numbers = data.of("train")
    if recipe.target == "ct":
        targets = data.ct(numbers, CPU)
    else:
        targets = embedded(autoencoder, data, numbers, CPU)
    train_prior(recipe, data, autoencoder, Place(folder=folder, device=CPU, log=rows))
    return rows.rows[recipe.training.steps]["prior/error"] / float(
        targets.var(0, correction=0).mean()
    )


@pytest.mark.parametrize("quantiser", [BOOK, None], ids=["quantised", "regressed"])
def test_four_latents_are_learnt_by_heart(quantiser: QuantiserSizes | None, tmp_path: Path) -> None:
    training = Training(seed=0, steps=110, global_batch=4, micro_batch=4)
    sizes = SIZES.model_copy(update={"quantiser": quantiser})
    recipe = RECIPE.model_copy(update={"sizes": sizes, "training": training})
    assert error_left(recipe, tmp_path) < 0.3


def test_four_cts_are_learnt_by_heart(tmp_path: Path) -> None:
    training = Training(seed=0, steps=50, global_batch=4, micro_batch=4)
    recipe = RECIPE.model_copy(update={"target": "ct", "rate": 1e-3, "training": training})
    assert error_left(recipe, tmp_path) < 0.5


def test_each_training_ct_is_encoded_once(tmp_path: Path) -> None:
    autoencoder, told = Counting(), list[int]()
    place = Place(folder=tmp_path, device=CPU, begin=lambda total: told.append)
    train_prior(RECIPE, pairs(count=7), autoencoder, place)
    assert told == autoencoder.encoded
    assert sum(autoencoder.encoded) == 6
    assert min(autoencoder.encoded) > 1


def test_latents_are_those_of_the_cts_in_order() -> None:
    data, autoencoder = pairs(count=7), Counting()
    numbers = np.array([5, 0, 3, 1, 2])
    latents = embedded(autoencoder, data, numbers, CPU)
    for latent, number in zip(latents, numbers, strict=True):
        alone = autoencoder.embed(data.ct([int(number)], CPU))[0]
        torch.testing.assert_close(latent, alone, atol=1e-4, rtol=1e-4)
    assert not latents.requires_grad


@pytest.mark.parametrize("target", ["ct", "latent"])
def test_what_was_kept_is_loaded_and_guesses_from_a_film_alone(target: str, tmp_path: Path) -> None:
    recipe = PriorRecipe.model_validate({**RECIPE.model_dump(), "target": target})
    data = pairs()
    train_prior(recipe, data, Counting(), Place(folder=tmp_path, device=CPU))
    prior = load_prior(recipe, tmp_path, CPU)
    assert not prior.training
    film = data.film([0, 4], CPU)
    with torch.no_grad():
        y = prior(film).y_BCXYZ
        torch.testing.assert_close(prior(film[1:]).y_BCXYZ, y[1:])
    assert y.shape == (2, 4, 4, 4, 4)
    if target == "ct":
        assert load_auxiliary_decoder(recipe, tmp_path, CPU)(y).shape == (2, 1, 16, 16, 16)
    else:
        assert not (tmp_path / "auxiliary_decoder.safetensors").exists()
        with pytest.raises(ValueError, match="use the autoencoder's"):
            load_auxiliary_decoder(recipe, tmp_path, CPU)


def test_the_seed_alone_makes_the_first_weights() -> None:
    torch.manual_seed(1)
    first = PriorLearner(RECIPE, CPU).encoder.state_dict()
    torch.manual_seed(2)
    second = PriorLearner(RECIPE, CPU).encoder.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_codes_are_counted_once_a_step(random: torch.Generator) -> None:
    learner = PriorLearner(RECIPE, CPU)
    batch = PriorBatch(torch.zeros(2, 1, 16, 16), torch.zeros(2, 4, 4, 4, 4), step=0)
    learner.losses("prior", batch, random)
    assert learner.losses("prior", batch, random)["usage"] == 0
    assert learner.losses("prior", batch._replace(step=1), random)["usage"] > 0


# ---- refusals ----------------------------------------------------------------------------------


def test_latents_cannot_be_learnt_without_an_autoencoder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="given no autoencoder"):
        train_prior(RECIPE, pairs(), None, Place(folder=tmp_path, device=CPU))


def test_latents_of_another_size_are_refused(tmp_path: Path) -> None:
    sizes = SIZES.model_copy(update={"latent_channels": 8})
    recipe = RECIPE.model_copy(update={"sizes": sizes})
    with pytest.raises(ValueError, match=r"are \(4, 4, 4, 4\), the prior's \(8, 4, 4, 4\)"):
        train_prior(recipe, pairs(), Counting(), Place(folder=tmp_path, device=CPU))


@pytest.mark.parametrize(
    ("theirs", "complaint"),
    [
        (QuantiserSizes(kind="plain", codes=64), "plain by vector"),
        (QuantiserSizes(kind="homogeneous", codes=64, normalise="channel"), "by channel"),
        (QuantiserSizes(kind="fsq", levels=(5, 5, 5, 5)), "no codebook"),
    ],
)
def test_codes_of_another_space_are_refused(
    theirs: QuantiserSizes, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=complaint):
        train_prior(RECIPE, pairs(), Counting(theirs), Place(folder=tmp_path, device=CPU))


# ---- films of other exposures ------------------------------------------------------------------


def test_varied_films_differ_each_in_its_own_way_and_stay_in_range() -> None:
    film = pairs().film([0, 0, 1], CPU)
    out = [varied(film, 1.0, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(out[0], out[1])
    assert (out[0] - out[2]).abs().max() > 0.05
    assert (out[0][0] - out[0][1]).mean().abs() > 0.02
    assert out[0].abs().max() <= 1


def test_a_weaker_variation_changes_less() -> None:
    film = pairs().film([0, 1, 2, 3], CPU)

    def change(strength: float) -> float:
        out = varied(film, strength, torch.Generator().manual_seed(0))
        return float((out - film).abs().mean())

    assert 0 < change(0.1) < 0.5 * change(1.0)
    assert change(0.0) == pytest.approx(0, abs=1e-6)


def test_films_vary_in_training_only_where_asked(random: torch.Generator) -> None:
    batch = PriorBatch(pairs().film([0, 1], CPU), torch.zeros(2, 4, 4, 4, 4), step=0)

    def errors(noise: float) -> set[float]:
        learner = PriorLearner(RECIPE.model_copy(update={"film_noise": noise}), CPU)
        return {float(learner.losses("prior", batch, random)["error"]) for _ in range(2)}

    untouched = random.get_state()
    assert len(errors(0.0)) == 1
    assert torch.equal(random.get_state(), untouched)
    assert len(errors(1.0)) == 2

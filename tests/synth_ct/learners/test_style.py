import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from synth_ct.kit.checkpoint import Checkpoints
from synth_ct.kit.loop import Learner, Training, own_slots, train
from synth_ct.kit.place import Place
from synth_ct.kit.quarantine import Refused
from synth_ct.learners.style import (
    StyleLearner,
    StyleRecipe,
    load_style,
    style_batches,
    train_style,
)
from synth_ct.models.style import StyleSizes

PIXELS = 16
CPU = torch.device("cpu")
SMALL = StyleSizes(width=4, blocks=1, judge_width=4, judge_layers=1)


def recipe(**changes: Any) -> StyleRecipe:
    training = {"seed": 1, "steps": 8, "global_batch": 2, "micro_batch": 2}
    training |= changes.pop("training", {})
    values = {"sizes": SMALL, "pool": 3, "training": Training.model_validate(training)}
    return StyleRecipe.model_validate(values | changes)


def blobs(rng: np.random.Generator, count: int = 12) -> np.ndarray:
    """Bright discs anywhere on dark ground, in [-0.8, 0.8]."""
    u, v = np.mgrid[:PIXELS, :PIXELS]
    centre = rng.uniform(4, PIXELS - 4, (count, 2, 1, 1))
    distance = np.hypot(u - centre[:, 0], v - centre[:, 1])
    return (1.6 / (1 + np.exp(2 * (distance - 3))) - 0.8).astype(np.float32)


@pytest.fixture
def films(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return blobs(rng), -blobs(rng)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


# ---- what is learnt ----------------------------------------------------------------------------


def test_inverted_films_come_back_from_a_round_trip(rng: np.random.Generator) -> None:
    bright, dark = blobs(rng, 64), -blobs(rng, 64)
    asked = recipe(
        sizes=StyleSizes(width=8, blocks=1, judge_width=8, judge_layers=1),
        identity_weight=0.0,
        learning_rate=2e-3,
        training={"steps": 120, "global_batch": 4, "micro_batch": 4},
    )
    learner, draws = StyleLearner(asked, PIXELS, CPU), torch.Generator().manual_seed(0)
    batches = style_batches(asked.training, bright, dark, CPU)
    for step in range(asked.training.steps):
        batch = batches(step, 0)
        for phase, optimiser in learner.optimisers.items():
            optimiser.zero_grad()
            learner.losses(phase, batch, draws)["total"].backward()
            optimiser.step()
    there = learner.to_drr(torch.from_numpy(bright)[:, None])
    back = learner.to_real(there).detach().numpy()[:, 0]
    assert np.abs(back - bright).mean() < 0.35 * np.abs(bright - bright.mean()).mean()
    assert correlation(there.detach().numpy(), -bright) > 0.85, "it looks like the other domain"


def test_fakes_are_made_once_a_step(films: tuple[np.ndarray, np.ndarray]) -> None:
    learner, draws = StyleLearner(recipe(), PIXELS, CPU), torch.Generator()
    batch = style_batches(recipe().training, *films, CPU)(0, 0)
    learner.losses("generators", batch, draws)
    calls = []
    for name in ("to_drr", "to_real"):
        learner.modules[name].register_forward_hook(lambda *_: calls.append(1))
    learner.losses("discriminators", batch, draws)
    assert not calls
    assert int(learner.pool_drr.filled) == 2


def test_another_batchs_fakes_are_not_judged(films: tuple[np.ndarray, np.ndarray]) -> None:
    learner, draws = StyleLearner(recipe(), PIXELS, CPU), torch.Generator()
    batches = style_batches(recipe().training, *films, CPU)
    learner.losses("generators", batches(0, 0), draws)
    with pytest.raises(AssertionError, match="another batch"):
        learner.losses("discriminators", batches(0, 0), draws)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, film: torch.Tensor) -> torch.Tensor:
        return self.factor * film


def test_the_losses_of_generators_that_undo_each_other(
    films: tuple[np.ndarray, np.ndarray],
) -> None:
    learner = StyleLearner(recipe(), PIXELS, CPU)
    learner.to_drr, learner.to_real = Times(0.5), Times(2.0)  # type: ignore[assignment]
    real, drr = batch = style_batches(recipe().training, *films, CPU)(0, 0)
    losses = learner.losses("generators", batch, torch.Generator())
    assert losses["cycle"] == 0
    torch.testing.assert_close(losses["identity"], 0.5 * drr.abs().mean() + real.abs().mean())
    for name, judge, fake in (
        ("drr", learner.judge_drr, real / 2),
        ("real", learner.judge_real, drr * 2),
    ):
        torch.testing.assert_close(losses[name], (judge(fake) - 1).square().mean())


def test_weights_begin_as_the_seed_has_them() -> None:
    first, again = (StyleLearner(recipe(), PIXELS, CPU) for _ in range(2))
    other = StyleLearner(recipe(training={"seed": 2}), PIXELS, CPU)
    w1, w2, w3, back = (
        next(network.parameters())
        for network in (first.to_drr, again.to_drr, other.to_drr, first.to_real)
    )
    assert torch.equal(w1, w2)
    assert not torch.equal(w1, w3)
    assert not torch.equal(w1, back)


def test_discriminators_tell_true_films_from_fakes(films: tuple[np.ndarray, np.ndarray]) -> None:
    learner, draws = StyleLearner(recipe(), PIXELS, CPU), torch.Generator()
    batch = style_batches(recipe().training, *films, CPU)(0, 0)
    learner.losses("generators", batch, draws)
    losses = learner.losses("discriminators", batch, draws)
    domains = {
        "drr": (learner.judge_drr, batch.drr_B1UV, learner.to_drr(batch.real_B1UV)),
        "real": (learner.judge_real, batch.real_B1UV, learner.to_real(batch.drr_B1UV)),
    }
    for name, (judge, true_B1UV, fake_B1UV) in domains.items():
        expected = ((judge(true_B1UV) - 1).square().mean() + judge(fake_B1UV).square().mean()) / 2
        torch.testing.assert_close(losses[name], expected)
    torch.testing.assert_close(losses["total"], losses["drr"] + losses["real"])


def test_the_weights_of_cycle_and_identity_are_the_recipes(
    films: tuple[np.ndarray, np.ndarray],
) -> None:
    asked = recipe(cycle_weight=3.0, identity_weight=7.0)
    batch = style_batches(asked.training, *films, CPU)(0, 0)
    losses = StyleLearner(asked, PIXELS, CPU).losses("generators", batch, torch.Generator())
    total = losses["drr"] + losses["real"] + 3 * losses["cycle"] + 7 * losses["identity"]
    torch.testing.assert_close(losses["total"], total)


def test_the_learner_is_one_the_loop_knows() -> None:
    learner = StyleLearner(recipe(), PIXELS, CPU)
    assert isinstance(learner, Learner)
    assert list(learner.optimisers) == ["generators", "discriminators"]


# ---- stopped and resumed -----------------------------------------------------------------------


class Stopped(Exception):
    pass


def test_a_run_stopped_in_the_middle_ends_with_the_same_weights(
    films: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    asked = recipe()

    def run(folder: Path, stop_after: float) -> StyleLearner:
        def log(step: int, row: dict[str, float]) -> None:
            if step > stop_after:
                raise Stopped

        learner = StyleLearner(asked, PIXELS, CPU)
        batches = style_batches(asked.training, *films, CPU)
        train(learner, batches, asked.training, Checkpoints(folder=folder, every=2), log)
        return learner

    whole = run(tmp_path / "whole", math.inf)
    with pytest.raises(Stopped):
        run(tmp_path / "halves", stop_after=5)
    halves = run(tmp_path / "halves", math.inf)
    for name, module in whole.modules.items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, halves.modules[name].state_dict()[key]), f"{name}/{key}"
    pooled = whole.pool_drr.films_N1UV
    assert pooled.abs().sum((1, 2, 3)).all(), "the pool was full, so that it took part"


# ---- one face ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cyclegan", "histogram", "none"])
def test_each_kind_is_trained_kept_and_loaded_alike(
    kind: str, films: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    asked = recipe(kind=kind, training={"steps": 2})
    train_style(asked, *films, Place(folder=tmp_path, device=CPU))
    style = load_style(asked, tmp_path, CPU)
    film_B1UV = torch.from_numpy(films[0][:3, None])
    styled = style(film_B1UV)
    assert styled.shape == film_B1UV.shape
    assert not style.training
    assert torch.equal(styled, film_B1UV) == (kind == "none")


def test_the_average_of_the_generator_to_drr_is_kept(
    films: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    asked = recipe()
    train_style(asked, *films, Place(folder=tmp_path, device=CPU))
    saved = Checkpoints(folder=tmp_path / "checkpoints").newest_good()
    assert saved is not None
    average = saved.below("averages/to_drr")
    loaded = load_style(asked, tmp_path, CPU).state_dict()
    assert all(torch.equal(tensor, average[name]) for name, tensor in loaded.items())
    latest = saved.below("modules/to_drr")
    assert any(not torch.equal(latest[name], average[name]) for name in average)


def test_histogram_gives_radiographs_the_grey_values_of_drrs(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    real, drr = (rng.uniform(-1, top, (4, PIXELS, PIXELS)) for top in (1, 0))
    real, drr = real.astype(np.float32), drr.astype(np.float32)
    asked = recipe(kind="histogram")
    train_style(asked, real, drr, Place(folder=tmp_path, device=CPU))
    styled = load_style(asked, tmp_path, CPU)(torch.from_numpy(real)[:, None])
    quantiles = (np.quantile(x, [0.1, 0.5, 0.9]) for x in (styled.numpy(), drr))
    np.testing.assert_allclose(*quantiles, atol=0.02)


def test_weights_of_another_kind_are_refused(
    films: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    train_style(recipe(kind="histogram"), *films, Place(folder=tmp_path, device=CPU))
    with pytest.raises(Refused, match="does not fit"):
        load_style(recipe(kind="none"), tmp_path, CPU)


# ---- refusals ----------------------------------------------------------------------------------


def test_too_few_films_are_refused(films: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    real, drr = films
    place = Place(folder=tmp_path, device=CPU)
    with pytest.raises(ValueError, match="1 real films; style transfer needs at least 2"):
        train_style(recipe(), real[:1], drr, place)
    with pytest.raises(ValueError, match="3 DRR films; style transfer needs at least 4"):
        train_style(recipe(training={"global_batch": 4, "micro_batch": 4}), real, drr[:3], place)


def test_films_of_two_sizes_are_refused(
    films: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="same size"):
        train_style(recipe(), films[0], films[1][:, :8, :8], Place(folder=tmp_path, device=CPU))


def test_a_share_of_the_batch_for_another_process_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="one process"):
        recipe(training={"global_batch": 4, "micro_batch": 2})
    monkeypatch.setattr("synth_ct.kit.ranks.world", lambda: (0, 2))
    with pytest.raises(ValueError, match="shared evenly"):
        own_slots(recipe().training)

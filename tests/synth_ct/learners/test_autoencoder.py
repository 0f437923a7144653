"""Training the autoencoder: one encoding for two phases, discriminators from their step on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import l1_loss, softplus

from synth_ct.kit.loop import Learner, Training
from synth_ct.kit.place import Place
from synth_ct.learners.autoencoder import (
    Adversary,
    AutoencoderBatch,
    AutoencoderLearner,
    AutoencoderRecipe,
    adaptive_weight,
    cropped,
    load_autoencoder,
    train_autoencoder,
)
from synth_ct.models.autoencoder import AutoencoderSizes
from synth_ct.models.quantizers import QuantiserSizes
from synth_ct.pairs.arrays import Pair, Pairs

CPU = torch.device("cpu")
ADVERSARY = Adversary(start=2, width=8, layers=1)


def recipe(steps: int = 4, batch: int = 2, **changes: Any) -> AutoencoderRecipe:
    sizes = AutoencoderSizes(
        channels=(8, 16, 16),
        blocks=1,
        latent_channels=4,
        bottleneck=None,
        quantiser=QuantiserSizes(kind="homogeneous", codes=32),
        super_resolution="subpixel",
    )
    training = Training(seed=3, steps=steps, global_batch=batch, micro_batch=2)
    settings: dict[str, Any] = {"sizes": sizes, "training": training, "rate": 2e-3}
    return AutoencoderRecipe(**(settings | changes))


def pairs(size: int = 16) -> Pairs:
    rng = np.random.default_rng(0)
    coarse = rng.integers(-900, 900, (4, 4, 4, 4))
    volumes = coarse.repeat(size // 4, 1).repeat(size // 4, 2).repeat(size // 4, 3)
    rows = tuple(
        Pair(id=str(n), patient=str(n), split="train", box=(0.0, 1.0, 0.0, 1.0), likeness=1.0)
        for n in range(4)
    )
    return Pairs(rows, volumes.astype(np.int16), np.zeros((4, size, size), np.float32))


def trained(one: AutoencoderRecipe, folder: Path) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    folder.mkdir(exist_ok=True)
    place = Place(folder=folder, device=CPU, log=lambda _, row: rows.append(row), every=100)
    train_autoencoder(one, pairs(), place)
    return rows


def batch_at(step: int, size: int = 16) -> AutoencoderBatch:
    return AutoencoderBatch(pairs(size).ct([0, 1], CPU), step)


# ---- phases ------------------------------------------------------------------------------------


def test_it_is_a_learner_with_a_phase_for_each_optimiser() -> None:
    assert isinstance(AutoencoderLearner(recipe(), CPU), Learner)
    assert list(AutoencoderLearner(recipe(), CPU).optimisers) == ["generator"]
    both = AutoencoderLearner(recipe(adversary=ADVERSARY), CPU)
    assert list(both.optimisers) == ["generator", "discriminator"]


def test_a_micro_batch_is_encoded_once_for_both_phases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    made: list[AutoencoderLearner] = []
    begin = AutoencoderLearner.__init__

    def noted(self: AutoencoderLearner, one: AutoencoderRecipe, device: torch.device) -> None:
        begin(self, one, device)
        made.append(self)
        self.autoencoder.encoder.register_forward_hook(lambda *_: calls.append(1))

    monkeypatch.setattr(AutoencoderLearner, "__init__", noted)
    rows = trained(recipe(batch=4, adversary=ADVERSARY), tmp_path)
    assert len(calls) == 4 * 2
    assert "discriminator/volume_discriminator" in rows[-1]
    assert not made[0]._kept, "reconstructions are dropped once judged"


def test_the_discriminators_begin_exactly_at_their_step(tmp_path: Path) -> None:
    rows = trained(recipe(adversary=ADVERSARY), tmp_path)
    assert ["generator/adversarial" in row for row in rows] == [False, False, True, True]
    assert [row["discriminator/grad_norm"] > 0 for row in rows] == [False, False, True, True]


def test_before_their_step_the_discriminators_change_nothing(tmp_path: Path) -> None:
    alone = trained(recipe(), tmp_path / "alone")
    late = trained(recipe(adversary=ADVERSARY), tmp_path / "late")
    assert [row["generator/total"] for row in alone[:2]] == [
        row["generator/total"] for row in late[:2]
    ]


def test_the_generator_is_told_to_please_both_discriminators() -> None:
    learner = AutoencoderLearner(recipe(adversary=ADVERSARY), CPU)
    plain = learner.losses("generator", batch_at(1), torch.Generator())
    judged = learner.losses("generator", batch_at(2), torch.Generator())
    weight = judged["adaptive_weight"] * judged["adversarial"]
    expected = judged["reconstruction"] + judged["codebook"] + weight
    torch.testing.assert_close(judged["total"], expected)
    torch.testing.assert_close(plain["total"], plain["reconstruction"] + plain["codebook"])


def test_discriminators_are_taught_that_ct_is_real_and_the_reconstruction_is_not() -> None:
    learner, one = AutoencoderLearner(recipe(adversary=ADVERSARY), CPU), batch_at(2)
    judge = learner.discriminators["volume_discriminator"]
    torch.nn.init.normal_(next(judge.parameters()))  # scores far enough from 0 to tell apart
    made = learner.autoencoder(one.ct_B1XYZ).ct_B1XYZ
    learner.losses("generator", one, torch.Generator())
    row = learner.losses("discriminator", one, torch.Generator())
    real, fake = softplus(-judge(one.ct_B1XYZ)).mean(), softplus(judge(made)).mean()
    assert abs(real - fake) > 1e-3
    torch.testing.assert_close(row["volume_discriminator"], (real + fake) / 2)
    both = row["volume_discriminator"] + row["slice_discriminator"]
    torch.testing.assert_close(row["total"], both)


# ---- losses ------------------------------------------------------------------------------------


def test_each_term_counts_with_its_weight() -> None:
    weighed = recipe(
        reconstruction_weight=2.0,
        codebook_weight=3.0,
        perceptual="random",
        perceptual_weight=5.0,
    )
    row = AutoencoderLearner(weighed, CPU).losses("generator", batch_at(0), torch.Generator())
    expected = 2 * row["reconstruction"] + 3 * row["codebook"] + 5 * row["perceptual"]
    torch.testing.assert_close(row["total"], expected)
    assert row["perceptual"] > 0


def test_the_reconstruction_term_is_the_mean_absolute_error() -> None:
    learner, one = AutoencoderLearner(recipe(), CPU), batch_at(0)
    row = learner.losses("generator", one, torch.Generator())
    made = learner.autoencoder(one.ct_B1XYZ).ct_B1XYZ
    torch.testing.assert_close(row["reconstruction"], l1_loss(made, one.ct_B1XYZ))


def test_the_adaptive_weight_makes_both_gradients_equally_long() -> None:
    w = torch.tensor([3.0, 4.0], requires_grad=True)
    likeness, adversarial = 6 * w.sum(), 2 * (w * torch.tensor([1.0, -1.0])).sum()
    torch.testing.assert_close(
        adaptive_weight(likeness, adversarial, w), torch.tensor(3.0), atol=1e-3, rtol=0
    )


def test_usage_and_perplexity_are_logged_from_the_second_step_on(tmp_path: Path) -> None:
    rows = trained(recipe(), tmp_path)
    assert 0 < rows[-1]["generator/usage"] <= 1
    assert 1 <= rows[-1]["generator/perplexity"] <= 32


# ---- training ----------------------------------------------------------------------------------


def test_it_learns_two_crops_by_heart() -> None:
    free = AutoencoderSizes(
        channels=(8, 16, 16),
        blocks=1,
        latent_channels=4,
        bottleneck=None,
        quantiser=QuantiserSizes(kind="fsq", levels=(9, 9, 9, 9)),
        super_resolution="subpixel",
    )
    learner, one = AutoencoderLearner(recipe(sizes=free, rate=1e-2), CPU), batch_at(0, size=8)
    optimiser, errors = learner.optimisers["generator"], []
    for _ in range(50):
        row = learner.losses("generator", one, torch.Generator().manual_seed(0))
        optimiser.zero_grad()
        row["total"].backward()
        optimiser.step()
        errors.append(row["reconstruction"].item())
    assert errors[-1] < errors[0] / 4


def test_training_leaves_weights_that_load(tmp_path: Path) -> None:
    one = recipe(crop=8)
    trained(one, tmp_path)
    model = load_autoencoder(one, tmp_path, CPU)
    assert not model.training
    assert model.embed(torch.zeros(2, 1, 16, 16, 16)).shape == (2, 4, 4, 4, 4)


def test_two_trainings_of_one_recipe_are_the_same(tmp_path: Path) -> None:
    first = trained(recipe(crop=8, adversary=ADVERSARY), tmp_path / "first")
    second = trained(recipe(crop=8, adversary=ADVERSARY), tmp_path / "second")
    assert first == second


def test_crops_are_parts_of_their_own_volume() -> None:
    ct = torch.arange(2 * 6**3, dtype=torch.float32).reshape(2, 1, 6, 6, 6)
    corners = set()
    for seed in range(40):
        parts = cropped(ct, 4, np.random.default_rng(seed))
        assert parts.shape == (2, 1, 4, 4, 4)
        assert (parts[0] < 6**3).all()
        assert (parts[1] >= 6**3).all()
        corners.add(parts[0, 0, 0, 0, 0].item())
    assert len(corners) > 15
    assert 2 * 36 + 2 * 6 + 2 in corners, "the last place is one of them"


# ---- refusals ----------------------------------------------------------------------------------


def test_discriminators_that_would_start_after_the_run_are_refused() -> None:
    with pytest.raises(ValueError, match="never"):
        recipe(steps=4, adversary=Adversary(start=4))


def test_crops_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for side in (10, 32):
        with pytest.raises(ValueError, match="multiple of 4"):
            trained(recipe(crop=side), tmp_path)


def test_lpips_without_its_weights_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", "/nowhere")
    with pytest.raises(ValueError, match="random"):
        AutoencoderLearner(recipe(perceptual="lpips"), CPU)


def test_half_precision_with_discriminators_is_refused() -> None:
    half = Training(seed=0, steps=4, global_batch=2, micro_batch=2, precision="float16")
    with pytest.raises(ValueError, match="bfloat16"):
        recipe(training=half, adversary=ADVERSARY)

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from synth_ct.kit.checkpoint import SUMS, Checkpoints
from synth_ct.kit.loop import AVERAGES, Diverged, Learner, Training, train
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.seeds import torch_random

FIT = Training(seed=0, steps=6, global_batch=4, micro_batch=4)


def seeded_linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 1)


@dataclass
class Fit:
    """Least squares, one optimiser, nothing random."""

    net: nn.Module = field(default_factory=seeded_linear)
    factor: float = 1.0

    def __post_init__(self) -> None:
        self.modules = {"net": self.net}
        self.averaged = ("net",)
        self.optimisers = {"fit": torch.optim.Adam(self.net.parameters(), lr=1e-2)}

    def losses(self, phase: str, batch: Tensor, random: torch.Generator, /) -> dict[str, Tensor]:
        error = self.net(batch) - batch.sum(1, keepdim=True)
        return {"total": self.factor * error.square().mean(), "bias": error.mean()}


def batches(size: int, seed: int = 0) -> Callable[[int, int], Tensor]:
    """Micro-batches of `size`; sample i of a step is the same however a step is cut."""

    def sample(step: int, i: int) -> Tensor:
        return torch.randn(4, generator=torch_random(seed, "sample", f"{step}/{i}"))

    return lambda step, slot: torch.stack([sample(step, slot * size + i) for i in range(size)])


@dataclass
class Rows:
    """The log of a run."""

    rows: dict[int, dict[str, float]] = field(default_factory=dict)

    def __call__(self, step: int, row: dict[str, float], /) -> None:
        assert step not in self.rows
        self.rows[step] = row


def run(
    learner: Learner, training: Training, folder: Path, every: int = 100
) -> tuple[Rows, AVERAGES]:
    rows = Rows()
    checkpoints = Checkpoints(folder=folder, every=every)
    averages = train(learner, batches(training.micro_batch), training, checkpoints, rows)
    return rows, averages


def weights(learner: Any) -> Tensor:
    tensors = [p.detach().reshape(-1) for m in learner.modules.values() for p in m.parameters()]
    return torch.cat(tensors)


# ---- resume ------------------------------------------------------------------------------------


def checkpoint_of(folder: Path, step: int) -> str:
    return (Checkpoints(folder=folder).of(step) / SUMS).read_text()


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(Fit(), FIT, tmp_path, every=2)
    good = checkpoint_of(tmp_path, 6)
    newest = Checkpoints(folder=tmp_path).of(6) / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        rows, _ = run(Fit(), FIT, tmp_path, every=2)
    assert "step-00000006" in caplog.text
    assert "sha256" in caplog.text
    assert list(rows.rows) == [5, 6]
    assert checkpoint_of(tmp_path, 6) == good


def test_another_recipe_does_not_continue_a_run_and_is_told_the_field(tmp_path: Path) -> None:
    run(Fit(), FIT, tmp_path)
    with pytest.raises(Refused, match="clip_norm"):
        run(Fit(), FIT.model_copy(update={"clip_norm": 0.5}), tmp_path)
    faster = Fit()
    faster.optimisers["fit"].param_groups[0]["lr"] = 1.0
    with pytest.raises(Refused, match="initial_lr"):
        run(faster, FIT, tmp_path)


# ---- what a step is ----------------------------------------------------------------------------


def test_the_loop_is_the_loop_written_out(tmp_path: Path) -> None:
    ours = Fit()
    rows, averages = run(ours, FIT, tmp_path)
    net = seeded_linear()
    adam = torch.optim.Adam(net.parameters(), lr=1e-2)
    average = net.weight.detach().clone()
    for step in range(6):
        batch = batches(4)(step, 0)
        loss = (net(batch) - batch.sum(1, keepdim=True)).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        decay = (1 + step) / (10 + step)
        average = decay * average + (1 - decay) * net.weight.detach()
        assert rows.rows[step + 1]["fit/total"] == pytest.approx(loss.item())
    torch.testing.assert_close(weights(ours)[:4], net.weight[0].detach())
    torch.testing.assert_close(averages["net"]["weight"], average)


def test_four_micro_batches_of_one_are_one_of_four(tmp_path: Path) -> None:
    whole, parts = Fit(), Fit()
    rows, _ = run(whole, FIT, tmp_path / "whole")
    piece_rows, _ = run(parts, FIT.model_copy(update={"micro_batch": 1}), tmp_path / "parts")
    torch.testing.assert_close(weights(whole), weights(parts), rtol=0, atol=1e-6)
    for step, row in rows.rows.items():
        assert piece_rows.rows[step] == pytest.approx(row, abs=1e-5)


def test_gradients_are_clipped_together(tmp_path: Path) -> None:
    fit = Fit()
    fit.optimisers["fit"] = torch.optim.SGD(fit.net.parameters(), lr=1.0)
    before = weights(fit).clone()
    one_step = FIT.model_copy(update={"steps": 1, "clip_norm": 0.01})
    rows, _ = run(fit, one_step, tmp_path)
    assert (weights(fit) - before).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert rows.rows[1]["fit/grad_norm"] > 0.1  # as it was before clipping


def test_bfloat16_computes_in_bfloat16_and_keeps_weights_in_float32(tmp_path: Path) -> None:
    exact, rounded = Fit(), Fit()
    run(exact, FIT, tmp_path / "float32")
    run(rounded, FIT.model_copy(update={"precision": "bfloat16"}), tmp_path / "bfloat16")
    assert weights(rounded).dtype == torch.float32
    assert not torch.equal(weights(exact), weights(rounded))
    torch.testing.assert_close(weights(exact), weights(rounded), rtol=0, atol=1e-2)


# ---- refusals ----------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_checkpoint(tmp_path: Path) -> None:
    fit = Fit()

    def poisoned(step: int, slot: int) -> Tensor:
        return batches(4)(step, slot) * (math.nan if step == 4 else 1.0)

    with pytest.raises(Diverged, match=r"step 4: fit/total, fit/bias, fit/grad_norm"):
        train(fit, poisoned, FIT, Checkpoints(folder=tmp_path, every=2), Rows())
    assert Checkpoints(folder=tmp_path).steps() == [2, 4]
    assert torch.isfinite(weights(fit)).all()


def test_an_infinite_gradient_of_a_finite_loss_stops_the_run(tmp_path: Path) -> None:
    class Kink(Fit):
        def losses(
            self, phase: str, batch: Tensor, random: torch.Generator, /
        ) -> dict[str, Tensor]:
            return {"total": self.net(batch).sub(self.net(batch)).abs().sqrt().mean()}

    with pytest.raises(Diverged, match="fit/grad_norm"):
        run(Kink(), FIT, tmp_path)


def test_a_learner_is_told_by_what_it_has() -> None:
    assert isinstance(Fit(), Learner)
    assert not isinstance(nn.Linear(1, 1), Learner)


def test_an_optimiser_that_could_not_be_resumed_is_refused_before_training(tmp_path: Path) -> None:
    fit = Fit()
    fit.optimisers["fit"] = torch.optim.Rprop(fit.net.parameters())
    with pytest.raises(ValueError, match="Rprop cannot be resumed"):
        run(fit, FIT, tmp_path)


def test_float16_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bfloat16"):
        run(Fit(), FIT.model_copy(update={"precision": "float16"}), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        ({"micro_batch": 3}, "no multiple"),
        ({"rate": {"warmup_steps": 7}}, "never reach its peak"),
        ({"clip_norm": math.nan}, "clip_norm"),
        ({"epochs": 3}, "epochs"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(wrong: dict[str, Any], cause: str) -> None:
    with pytest.raises(ValidationError, match=cause):
        Training.model_validate(FIT.model_dump() | wrong)

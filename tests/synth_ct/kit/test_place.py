"""What a training leaves beside its checkpoints: one curve, however often it was stopped."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from synth_ct.kit import place
from synth_ct.kit.loop import Training
from synth_ct.kit.place import CURVE, ROWS, Place, fit, keep

STEPS = 12


class Line:
    """y = w x."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(1, 1)
        self.modules = {"line": self.model}
        self.averaged = ("line",)
        self.optimisers = {"line": torch.optim.SGD(self.model.parameters(), 0.1)}

    def losses(
        self, phase: str, batch: Tensor, generator: torch.Generator, /
    ) -> Mapping[str, Tensor]:
        return {"total": (self.model(batch) - 2 * batch).square().mean()}


def batches(step: int, slot: int) -> Tensor:
    return torch.full((2, 1), step / STEPS)


def train(folder: Path, stop_at: int | None = None) -> None:
    folder.mkdir(exist_ok=True)

    def log(step: int, row: dict[str, float]) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    recipe = Training(seed=0, steps=STEPS, global_batch=2, micro_batch=2)
    fit(Line(), batches, recipe, Place(folder=folder, device=torch.device("cpu"), log=log, every=5))


def steps_of(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / CURVE).read_text().splitlines()]


def test_a_stopped_training_leaves_the_curve_of_one_that_was_not(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", stop_at=8)
    train(tmp_path / "stopped")
    whole, stopped = ((tmp_path / name / CURVE).read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped
    assert steps_of(tmp_path / "stopped") == list(range(1, STEPS + 1))
    assert not (tmp_path / "stopped" / ROWS).exists()


def test_half_a_row_of_a_killed_run_is_dropped(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_at=8)
    with (tmp_path / ROWS).open("a") as file:
        file.write('{"step": 9, "line/to')
    train(tmp_path)
    assert steps_of(tmp_path) == list(range(1, STEPS + 1))


def test_a_training_that_was_finished_finishes_again_without_a_step(tmp_path: Path) -> None:
    train(tmp_path)
    before = (tmp_path / CURVE).read_bytes()
    train(tmp_path)
    assert (tmp_path / CURVE).read_bytes() == before


def test_a_long_curve_keeps_every_nth_step_and_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "MOST_POINTS", 3)
    train(tmp_path)
    assert steps_of(tmp_path) == [4, 8, 12]


def test_kept_weights_lie_beside_their_sum(tmp_path: Path) -> None:
    keep(Place(folder=tmp_path, device=torch.device("cpu")), "line", Line().model.state_dict())
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "line.safetensors",
        "line.safetensors.sha256",
    ]

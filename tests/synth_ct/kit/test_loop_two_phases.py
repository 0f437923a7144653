"""Run as a program, this file trains the small GAN below: to be killed, or as one of two ranks."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synth_ct.kit.checkpoint import SUMS, Checkpoints
from synth_ct.kit.loop import AVERAGES, Learner, Training, own_slots, train
from synth_ct.kit.schedule import Rate
from synth_ct.kit.seeds import torch_random

Row = dict[str, float]

GAN = Training(
    seed=3,
    steps=20,
    global_batch=8,
    micro_batch=2,
    rate=Rate(shape="cosine", warmup_steps=5),
    clip_norm=1.0,
)


@dataclass
class SmallGan:
    """Two optimisers, dropout, noise from the generator, running statistics, two averages."""

    on_call: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        painter = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.GELU(), nn.Linear(8, 4))
        critic = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.GELU(), nn.Linear(8, 1))
        self.modules = {"painter": painter, "critic": critic}
        self.averaged = ("painter", "critic")
        self.optimisers = {
            "paint": torch.optim.AdamW(painter.parameters(), lr=1e-2),
            "judge": torch.optim.SGD(critic.parameters(), lr=1e-2, momentum=0.9),
        }

    def losses(self, phase: str, batch: Tensor, random: torch.Generator, /) -> dict[str, Tensor]:
        self.on_call(phase)
        painted = self.modules["painter"](torch.randn(batch.shape, generator=random))
        critic = self.modules["critic"]
        if phase == "judge":
            real, fake = F.softplus(-critic(batch)).mean(), F.softplus(critic(painted)).mean()
            return {"total": real + fake, "real": real, "fake": fake}
        return {"total": F.softplus(-critic(painted)).mean()}


def batches(step: int, slot: int) -> Tensor:
    return torch.randn(2, 4, generator=torch_random(0, "batch", f"{step}/{slot}"))


def run(gan: Learner, training: Training, folder: Path) -> tuple[list[Row], AVERAGES]:
    rows: list[Row] = []
    kept = Checkpoints(folder=folder, every=100)
    averages = train(gan, batches, training, kept, lambda _, row: rows.append(row))
    return rows, averages


def weights(learner: Any) -> Tensor:
    tensors = [p.detach().reshape(-1) for m in learner.modules.values() for p in m.parameters()]
    return torch.cat(tensors)


# ---- resume ------------------------------------------------------------------------------------


def as_a_program(folder: Path, **choices: Any) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, json.dumps({"folder": str(folder), **choices})]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> int:
    _, said = process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL, 128 + signal.SIGTERM), said
    return process.returncode


def losses_of(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    last = {row["step"]: row for row in rows}  # steps after the last checkpoint came twice
    return [last[step] for step in sorted(last)]


def checkpoint_of(folder: Path, step: int) -> str:
    return (Checkpoints(folder=folder).of(step) / SUMS).read_text()


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert ended(as_a_program(folder)) == 0
    return folder


@pytest.mark.parametrize("moment", [{"kill_after_step": 10}, {"kill_in_call": 13 * 8 + 5}])
def test_a_killed_run_resumes_bit_for_bit(
    moment: dict[str, int], uninterrupted: Path, tmp_path: Path
) -> None:
    assert ended(as_a_program(tmp_path, **moment)) == -signal.SIGKILL
    assert Checkpoints(folder=tmp_path).steps()
    assert ended(as_a_program(tmp_path)) == 0
    # Weights, moments, averages, rates: the sums are over every byte of them.
    assert checkpoint_of(tmp_path, 20) == checkpoint_of(uninterrupted, 20)
    assert losses_of(tmp_path) == losses_of(uninterrupted)
    assert len(losses_of(tmp_path)) == 20


def test_sigterm_saves_the_step_it_interrupts(uninterrupted: Path, tmp_path: Path) -> None:
    assert ended(as_a_program(tmp_path, terminate_in_step=7)) == 128 + signal.SIGTERM
    assert max(Checkpoints(folder=tmp_path).steps()) == 7
    assert ended(as_a_program(tmp_path)) == 0
    assert checkpoint_of(tmp_path, 20) == checkpoint_of(uninterrupted, 20)


def test_a_finished_run_is_only_restored(tmp_path: Path) -> None:
    first = SmallGan()
    _, averages = run(first, GAN, tmp_path)
    again = SmallGan()
    rows, restored = run(again, GAN, tmp_path)
    assert rows == []
    assert torch.equal(weights(again), weights(first))
    for name in first.averaged:
        for key, value in averages[name].items():
            assert torch.equal(restored[name][key], value)


# ---- randomness and phases ---------------------------------------------------------------------


def test_the_same_seed_gives_the_same_curve_and_another_seed_another(tmp_path: Path) -> None:
    runs = {
        name: run(SmallGan(), GAN.model_copy(update={"seed": seed}), tmp_path / name)[0]
        for name, seed in {"first": 3, "again": 3, "other": 4}.items()
    }
    assert runs["first"] == runs["again"]
    assert runs["first"] != runs["other"]


def test_what_was_drawn_before_a_run_does_not_matter(tmp_path: Path) -> None:
    first = run(SmallGan(), GAN, tmp_path / "first")[0]
    gan = SmallGan()
    torch.rand(7)
    assert run(gan, GAN, tmp_path / "second")[0] == first


def test_every_phase_step_and_slot_draws_its_own_numbers(tmp_path: Path) -> None:
    gan, drawn = SmallGan(), set()

    def draw(_: str) -> None:
        drawn.add(torch.rand(()).item())

    gan.on_call = draw
    run(gan, GAN, tmp_path)
    assert len(drawn) == 2 * 20 * 4


def test_a_phase_moves_only_its_own_modules(tmp_path: Path) -> None:
    gan = SmallGan()
    seen: list[tuple[str, list[bool]]] = []

    def look(phase: str) -> None:
        modules = gan.modules.values()
        seen.append((phase, [all(p.requires_grad for p in m.parameters()) for m in modules]))

    gan.on_call = look
    run(gan, GAN.model_copy(update={"steps": 1, "rate": Rate()}), tmp_path)
    assert seen == [("paint", [True, False])] * 4 + [("judge", [False, True])] * 4
    assert all(p.requires_grad for m in gan.modules.values() for p in m.parameters())


def test_every_optimiser_follows_the_schedule_from_its_own_peak(tmp_path: Path) -> None:
    gan = SmallGan()
    gan.optimisers["judge"].param_groups[0]["lr"] = 0.5
    rows, _ = run(gan, GAN.model_copy(update={"steps": 7, "rate": Rate(warmup_steps=4)}), tmp_path)
    assert [row["rate"] for row in rows] == [0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert [o.param_groups[0]["lr"] for o in gan.optimisers.values()] == [1e-2, 0.5]


# ---- several processes -------------------------------------------------------------------------


def in_two_processes(folder: Path, **choices: Any) -> list[int]:
    ranks = [as_a_program(folder, rank=rank, **choices) for rank in range(2)]
    return [ended(process) for process in ranks]


def test_two_processes_take_the_steps_of_one(uninterrupted: Path, tmp_path: Path) -> None:
    assert in_two_processes(tmp_path) == [0, 0]
    for one, two in zip(losses_of(uninterrupted), losses_of(tmp_path), strict=True):
        assert two == pytest.approx(one, abs=1e-5)
    alone, shared = (Checkpoints(folder=f).newest_good() for f in (uninterrupted, tmp_path))
    assert alone is not None
    assert shared is not None
    for name, tensor in alone.tensors.items():
        torch.testing.assert_close(shared.tensors[name], tensor, rtol=0, atol=1e-5)
    assert (tmp_path / "weights-0").read_text() == (tmp_path / "weights-1").read_text()


def test_running_statistics_are_agreed_on_after_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gan, calls = SmallGan(), []
    monkeypatch.setattr("synth_ct.kit.ranks.average_buffers", lambda m: calls.append(list(m)))
    run(gan, GAN.model_copy(update={"steps": 3, "rate": Rate()}), tmp_path)
    assert calls == [list(gan.modules.values())] * 3


def test_processes_that_cannot_share_a_batch_evenly_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("synth_ct.kit.ranks.world", lambda: (0, 3))
    with pytest.raises(ValueError, match=r"4 micro-batches .* by 3 processes"):
        own_slots(GAN)


def test_processes_divide_the_slots_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    for rank in range(2):
        monkeypatch.setattr("synth_ct.kit.ranks.world", lambda rank=rank: (rank, 2))
        shares.append(list(own_slots(GAN)))
    assert shares == [[0, 1], [2, 3]]


# ---- the program -------------------------------------------------------------------------------


def program(
    folder: Path,
    rank: int | None = None,
    kill_after_step: int = 0,
    kill_in_call: int = 0,
    terminate_in_step: int = 0,
) -> None:
    gan, calls = SmallGan(), 0

    def call(_: str) -> None:
        nonlocal calls
        calls += 1
        if calls == kill_in_call:
            os.kill(os.getpid(), signal.SIGKILL)
        if math.ceil(calls / 8) == terminate_in_step:
            os.kill(os.getpid(), signal.SIGTERM)

    def log(step: int, row: dict[str, float]) -> None:
        with (folder / "rows.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **row}) + "\n")
        if step == kill_after_step:
            os.kill(os.getpid(), signal.SIGKILL)

    gan.on_call = call
    if rank is not None:
        store = f"file://{folder}/rendezvous"
        torch.distributed.init_process_group("gloo", store, rank=rank, world_size=2)
    train(gan, batches, GAN, Checkpoints(folder=folder, every=3), log)
    (folder / f"weights-{rank}").write_text(str(weights(gan).tolist()))
    if rank is not None:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    choices = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    program(Path(choices.pop("folder")), **choices)

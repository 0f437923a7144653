"""Run as a program, this file is two ranks that say what they agreed on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from synth_ct.kit import ranks


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / str(rank)).read_text()) for rank in range(2)]


def test_gradients_are_averaged_and_unused_ones_stay_absent(both: list[dict[str, Any]]) -> None:
    # rank 0 has [1, 1] and [6]; rank 1 has [3, 3]; the third parameter nobody used
    assert [rank["gradients"] for rank in both] == [[[2.0, 2.0], [3.0], None]] * 2


def test_running_statistics_are_averaged_and_counters_shared(both: list[dict[str, Any]]) -> None:
    assert [rank["mean"] for rank in both] == [[0.5, 0.5]] * 2
    assert [rank["counter"] for rank in both] == [10, 10]


def test_one_rank_that_is_asked_to_stop_stops_all(both: list[dict[str, Any]]) -> None:
    assert [rank["one"] for rank in both] == [True, True]
    assert [rank["none"] for rank in both] == [False, False]


def test_ranks_that_start_apart_are_refused(both: list[dict[str, Any]]) -> None:
    for rank in both:
        assert "different weights or steps" in rank["other weights"]
        assert "different weights or steps" in rank["other step"]
        assert rank["same"] == ""


def test_one_process_alone_changes_nothing() -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    ranks.average_gradients([parameter])
    assert parameter.grad.tolist() == [1.0, 2.0]
    assert ranks.world() == (0, 1)
    assert ranks.any_rank(True, torch.device("cpu"))
    ranks.wait_for_all()


# ---- the program -------------------------------------------------------------------------------


def refusal(module: nn.Module, step: int) -> str:
    try:
        ranks.demand_same_start([module], step)
    except ValueError as error:
        return str(error)
    return ""


def said_by(rank: int) -> dict[str, Any]:
    parameters = [nn.Parameter(torch.zeros(n)) for n in (2, 1, 3)]
    parameters[0].grad = torch.full((2,), 1.0 + 2 * rank)
    if rank == 0:
        parameters[1].grad = torch.tensor([6.0])
    ranks.average_gradients(parameters)
    norm = nn.BatchNorm1d(2)
    for buffer in norm.buffers():
        buffer.fill_(10 + rank if buffer.dtype == torch.int64 else rank)
    ranks.average_buffers([norm])
    assert norm.running_mean is not None
    assert norm.num_batches_tracked is not None
    alike, apart = nn.Linear(2, 1), nn.Linear(2, 1)
    nn.init.constant_(alike.weight, 1.0)
    nn.init.zeros_(alike.bias)
    nn.init.constant_(apart.weight, float(rank))
    return {
        "gradients": [None if p.grad is None else p.grad.tolist() for p in parameters],
        "mean": norm.running_mean.tolist(),
        "counter": norm.num_batches_tracked.item(),
        "one": ranks.any_rank(rank == 1, torch.device("cpu")),
        "none": ranks.any_rank(False, torch.device("cpu")),
        "same": refusal(alike, 3),
        "other weights": refusal(apart, 3),
        "other step": refusal(alike, rank),
    }


def program(folder: Path, rank: int) -> None:
    store = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", store, rank=rank, world_size=2)
    said = said_by(rank)
    ranks.wait_for_all()
    (folder / str(rank)).write_text(json.dumps(said))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    child = os.fork()  # two ranks for one import of torch
    program(Path(sys.argv[1]), 0 if child else 1)
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

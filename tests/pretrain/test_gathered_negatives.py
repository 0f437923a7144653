"""Two processes with half a batch each see what one with all of it sees. Run as a program: both."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pretrain.losses import nt_xent
from synth_ct.kit import ranks


def crops() -> tuple[torch.Tensor, torch.Tensor, nn.Linear]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 6, 5, generator=generator).unbind(0)
    layer = nn.Linear(5, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(4, 5, generator=generator))
        layer.bias.zero_()
    return first, second, layer


def test_loss_and_gradient_are_those_of_one_process(tmp_path: Path) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    both = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(2)]
    first, second, layer = crops()
    loss = nt_xent(layer(first), layer(second), 0.5)
    loss.backward()
    assert layer.weight.grad is not None
    for told in both:
        assert told["mean"] == pytest.approx(float(loss.detach()), rel=1e-6)
        assert torch.allclose(torch.tensor(told["gradient"]), layer.weight.grad, atol=1e-6)
    assert both[0]["own"] != both[1]["own"]


# ---- the program -------------------------------------------------------------------------------


def told(rank: int) -> dict[str, Any]:
    first, second, layer = crops()
    half = slice(3 * rank, 3 * rank + 3)
    loss = nt_xent(layer(first[half]), layer(second[half]), 0.5, gather=True)
    loss.backward()
    ranks.average_gradients(list(layer.parameters()))
    assert layer.weight.grad is not None
    return {
        "own": float(loss.detach()),
        "mean": float(ranks.mean_over_ranks(loss.detach().clone())),
        "gradient": layer.weight.grad.tolist(),
    }


def program(folder: Path, rank: int) -> None:
    store = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", store, rank=rank, world_size=2)
    said = told(rank)
    ranks.wait_for_all()
    (folder / str(rank)).write_text(json.dumps(said))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    child = os.fork()  # two ranks for one import of torch
    program(Path(sys.argv[1]), 0 if child else 1)
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

"""Two workers of Ray, one of them killed, pretrain to the bit what two plain processes do.

Run as a program, this file is those two plain processes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist
from corpora import make_corpus
from murder import Murder

from pretrain.backbones import UNetSizes
from pretrain.encoder import WEIGHTS
from pretrain.objectives.mae import MaeRecipe
from pretrain.stage import Network, PretrainRecipe, pretrain_stage
from ray_jobs.cluster import connect
from ray_jobs.train import Team, Work, train_on_ray, training_of
from synth_ct.kit.effort import Effort
from synth_ct.kit.loop import Training
from synth_ct.kit.place import CURVE, ROWS
from synth_ct.kit.recipe import changed

# Ray's own default settings, which it then warns about.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

STEPS = 60
RECIPE = PretrainRecipe(
    network=Network(
        backbone=UNetSizes(width=2, levels=2, norm="instance"),
        objective=MaeRecipe(),
        transfer="all_but_head",
        crop=(16, 16, 16),
        probe_crops=0,
        rate=1e-2,
        training=Training(seed=0, steps=STEPS, global_batch=4, micro_batch=2, average_decay=0.9),
    ),
    arm="synthetic",
    evidence="plumbing",
    spacing_mm=(20.0, 20.0, 20.0),
)
TWO = Team(workers=2, max_failures=1)


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A corpus, and a cache that no other test fills."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    make_corpus(tmp_path / "corpus", range(40), patients=40)
    return {"corpus/synthetic": tmp_path / "corpus"}


@pytest.mark.chaos  # a minute and a half; test_train.py kills a worker of the same group
def test_a_worker_killed_while_pretraining_changes_not_a_bit(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    for workspace in (plain, killed):
        workspace.mkdir()
    murder = Murder(killed / ROWS, after=STEPS // 4)
    with connect(cpus=2) as cluster:
        train_on_ray(Work(pretrain_stage, RECIPE, killed, inputs), TWO, cluster, Effort())
    murder.join()
    assert STEPS // 4 <= murder.at < STEPS
    undisturbed(plain, inputs)
    for name in (WEIGHTS, CURVE):
        assert (killed / name).read_bytes() == (plain / name).read_bytes()
    assert len((killed / CURVE).read_text().splitlines()) == STEPS


def undisturbed(out: Path, inputs: dict[str, Path]) -> None:
    """Run this file."""
    here = {"PYTHONPATH": str(Path(__file__).parents[1])}
    environment = {**os.environ, **here, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, __file__, str(out), *map(str, inputs.values())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_an_arm_that_trains_is_sent_to_ray() -> None:
    assert training_of(RECIPE) == RECIPE.network.training
    assert training_of(changed(RECIPE, arm="scratch")) is None


# ---- the program -------------------------------------------------------------------------------


def one_of_two(rank: int, out: Path, corpus: Path) -> None:
    meeting = f"file://{out.parent / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    pretrain_stage(RECIPE, out, {"corpus/synthetic": corpus}, Effort())
    dist.destroy_process_group()


if __name__ == "__main__":
    child = os.fork()  # two ranks for one import of torch
    one_of_two(int(child == 0), *map(Path, sys.argv[1:]))
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

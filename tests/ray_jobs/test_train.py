"""Two workers of Ray, one of them killed, train to the bit what two plain processes train.

Run as a program, this file is those two plain processes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from murder import Murder
from safetensors.torch import load_file

from ray_jobs.cluster import Cluster, connect
from ray_jobs.generators import tiny_generator
from ray_jobs.plan import Step
from ray_jobs.train import STORAGE, Team, Work, explained, newest_row, on_ray, train_on_ray
from synth_ct.cohort import Cohort
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.checkpoint import save_weights
from synth_ct.kit.effort import Effort
from synth_ct.kit.loop import Training
from synth_ct.kit.place import CHECKPOINTS, CURVE, ROWS
from synth_ct.kit.recipe import changed
from synth_ct.learners.autoencoder import AutoencoderLearner
from synth_ct.learners.style import StyleRecipe
from synth_ct.pairs.disk import PairsRecipe, make_pairs
from synth_ct.phantom.recipe import PhantomCohort, make_phantom_cohort
from synth_ct.training import StyleStage, prior_stage, style_stage

# Ray's own default settings, which it then warns about.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

STEPS = 40
AUTOENCODER = tiny_generator().autoencoder
PRIOR = tiny_generator().prior
RECIPE = changed(
    PRIOR,
    sizes=changed(PRIOR.sizes, channels=(8, 8, 16)),
    training=Training(seed=0, steps=STEPS, global_batch=4, micro_batch=2, average_decay=0.9),
)
ALONE, TWO = Effort(), Team(workers=2, max_failures=1)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pairs of four phantoms, and an autoencoder that learned nothing."""
    folder = tmp_path_factory.mktemp("inputs")
    ct, pairs, autoencoder = (folder / name for name in ("ct", "pairs", "autoencoder"))
    with publish(ct, Record(kind="phantoms", recipe={})) as workspace:
        phantoms = PhantomCohort(kind="chest", count=4, size=32)
        make_phantom_cohort(phantoms, workspace, ALONE)
    with publish(pairs, Record(kind="pairs", recipe={})) as workspace:
        make_pairs(PairsRecipe(size=32), Cohort.open(ct), workspace, ALONE)
    fields = AUTOENCODER.model_dump(mode="json")
    with publish(autoencoder, Record(kind="autoencoder", recipe=fields)) as workspace:
        model = AutoencoderLearner(AUTOENCODER, torch.device("cpu")).autoencoder
        save_weights(workspace / "autoencoder.safetensors", model.state_dict())
    return {"cohorts/pairs": pairs, "autoencoder/tiny": autoencoder}


@pytest.fixture(scope="module")
def plain(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes train that nobody disturbs."""
    out = tmp_path_factory.mktemp("plain")
    here = {"PYTHONPATH": str(Path(__file__).parents[1])}
    environment = {**os.environ, **here, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, __file__, str(out), *map(str, inputs.values())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def files(workspace: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workspace.iterdir() if path.is_file()}


def test_a_worker_killed_in_the_middle_changes_not_a_bit(
    plain: Path, inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    told: list[int] = []
    effort = Effort(begin=lambda total: lambda done=1, note="", /: told.append(done))
    murder = Murder(tmp_path / ROWS, after=STEPS // 4)
    with connect(cpus=2) as cluster:
        train_on_ray(Work(prior_stage, RECIPE, tmp_path, inputs), TWO, cluster, effort)
    murder.join()
    assert STEPS // 4 <= murder.at < STEPS
    assert sum(told) == STEPS
    assert files(tmp_path) == files(plain)
    assert not (tmp_path / STORAGE).exists()


def test_two_processes_train_what_one_trains(
    plain: Path, inputs: dict[str, Path], tmp_path: Path
) -> None:
    prior_stage(RECIPE, tmp_path, inputs, ALONE)
    shared, alone = (load_file(folder / "prior.safetensors") for folder in (plain, tmp_path))
    assert shared.keys() == alone.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(shared[name], tensor, rtol=1e-3, atol=1e-4)
    assert files(plain).keys() == files(tmp_path).keys()
    assert len((plain / CURVE).read_text().splitlines()) == STEPS


# ---- without Ray -------------------------------------------------------------------------------


def test_more_failures_than_allowed_say_where_it_stands_and_what_to_do(tmp_path: Path) -> None:
    from ray.train import WorkerGroupError

    error = WorkerGroupError("", {1: ConnectionError("closed " * 99), 0: OSError("disk full")})
    said = str(explained(error, tmp_path, Path("/logs")))
    assert "(worker 0: OSError: disk full; worker 1: ConnectionError: closed" in said
    assert "is in /logs. Nothing is saved yet: mend" in said
    assert len(said) < 500 + len(str(tmp_path))
    saved = tmp_path / CHECKPOINTS / "step-00000040"
    saved.mkdir(parents=True)
    (saved / "SHA256SUMS").touch()
    assert "Step 40 is saved" in str(explained(error, tmp_path, Path("/logs")))


def test_a_mistake_is_told_in_its_own_words(tmp_path: Path) -> None:
    from ray.train import ControllerError

    told = explained(ControllerError(ValueError("choose another rate")), tmp_path, tmp_path)
    assert isinstance(told, ValueError)
    assert str(told) == "choose another rate"


def step(training: Training) -> Step:
    recipe = changed(RECIPE, training=training)
    return Step(name="prior/x", stage="generator", recipe=recipe, make=prior_stage)


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_starts(tmp_path: Path) -> None:
    whole = Training(seed=0, steps=1, global_batch=4, micro_batch=4)
    with pytest.raises(ValueError, match=r"prior/x: 1 micro-batches .* by 2 processes"):
        on_ray([step(whole)], tmp_path, workers=2)
    assert list(tmp_path.iterdir()) == []


def test_gpus_that_are_not_there_are_refused(tmp_path: Path) -> None:
    cluster = Cluster(ours=True, gpus=1, logs=tmp_path)
    team = Team(workers=2, use_gpu=True)
    with pytest.raises(ValueError, match="2 workers need a GPU each and the cluster has 1"):
        train_on_ray(Work(prior_stage, RECIPE, tmp_path, {}), team, cluster, Effort())


def test_only_trainings_go_to_ray_and_style_to_one_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    whole = Training(seed=0, steps=1, global_batch=2, micro_batch=2)
    recipe = StyleStage(style=StyleRecipe(training=whole))
    style = Step(name="style/x", stage="generator", recipe=recipe, make=style_stage, gpus=1.0)
    histogram = changed(recipe, style=changed(recipe.style, kind="histogram"))
    simple = Step(name="style/y", stage="generator", recipe=histogram, make=style_stage)
    cohort = Step(
        name="cohorts/x", stage="cohorts", recipe=PairsRecipe(size=32), make=make_pairs_nowhere
    )
    halves = Training(seed=0, steps=1, global_batch=4, micro_batch=2)
    sent = on_ray([cohort, simple, style, step(halves)], tmp_path, workers=2)
    assert sent[:2] == [cohort, simple]
    assert sent[2].make is not style_stage
    assert sent[3].make is not prior_stage
    assert [s.gpus for s in sent] == [0, 0, 1, 0]


def make_pairs_nowhere(
    recipe: PairsRecipe, folder: Path, inputs: dict[str, Path], effort: Effort
) -> None:
    """Never called."""


def test_the_newest_row_is_the_last_whole_one(tmp_path: Path) -> None:
    rows = tmp_path / ROWS
    assert newest_row(rows) == (0, {})
    rows.write_text('{"step": 1')
    assert newest_row(rows) == (0, {})
    rows.write_text('{"step": 1}\n{"step": 2, "a": 0.5}\n{"st')
    assert newest_row(rows) == (2, {"a": 0.5})


# ---- the program -------------------------------------------------------------------------------


def one_of_two(rank: int, out: Path, inputs: dict[str, Path]) -> None:
    meeting = f"file://{out.parent / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    prior_stage(RECIPE, out, inputs, ALONE)
    dist.destroy_process_group()


if __name__ == "__main__":
    out, pairs, autoencoder = map(Path, sys.argv[1:])
    child = os.fork()  # two ranks for one import of torch
    one_of_two(int(child == 0), out, {"cohorts/pairs": pairs, "autoencoder/tiny": autoencoder})
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

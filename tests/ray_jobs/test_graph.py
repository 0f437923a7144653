"""Steps as tasks: side by side, in the order of their inputs, whatever dies or raises."""

import os
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from little_steps import (
    die,
    die_once,
    fail,
    fail_oddly,
    meet,
    say_who,
    task,
    wait_for_sign,
    write,
)

from ray_jobs import graph, plan
from ray_jobs.cluster import Cluster, connect
from ray_jobs.console import guarded
from ray_jobs.costs import COSTS, read_costs
from ray_jobs.generators import tiny_generator
from ray_jobs.graph import FAILED, demand_room, device_of, run_all, run_graph
from ray_jobs.plan import Result, Step
from ray_jobs.train import on_ray
from synth_ct.kit.artifact import partial_of
from synth_ct.kit.effort import Effort
from synth_ct.kit.loop import Training
from synth_ct.kit.recipe import changed
from synth_ct.training import prior_stage


@pytest.fixture(scope="module")
def cluster() -> Generator[Cluster, None, None]:
    """One for all: it takes seconds to start. Its workers import what these tests import."""
    tests = Path(__file__).parents[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(tests.parent), str(tests)]))
        with connect(cpus=2) as ours:
            yield ours


def go(
    steps: list[Step], root: Path, cluster: Cluster, ticks: list[int] | None = None
) -> list[str]:
    told = [] if ticks is None else ticks
    results = run_graph(steps, root, cluster, lambda done=1, note="", /: told.append(done))
    assert [r.name for r in results] == [s.name for s in steps]
    return [r.status for r in results]


def files(root: Path) -> dict[str, bytes]:
    """Of all that is made; what it cost is another every time."""
    found = [path for path in root.rglob("*") if path.is_file() and path.name != COSTS]
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def diamond() -> list[Step]:
    first = task("fits/first", write, number=1)
    left = task("fits/left", partial(write), first, number=2)
    right = task("fits/right", lambda *given: write(*given[:3], given[3]), first, number=3)
    return [first, left, right, task("fits/last", write, left, right, number=4)]


def test_a_graph_leaves_what_the_plain_runner_leaves_and_only_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    plain, root, ticks = tmp_path / "plain", tmp_path / "graph", []  # type: ignore[var-annotated]
    plan.run(diamond(), plain, lambda name: Effort())
    assert go(diamond()[:2], root, cluster) == ["made"] * 2
    assert go(diamond(), root, cluster, ticks) == ["done", "done", "made", "made"]
    assert ticks == [2, 1, 1]
    assert files(root) == files(plain)
    assert len(files(root)) == 8
    assert go(diamond(), root, cluster, ticks) == ["done"] * 4
    assert [spent.name for spent in read_costs(root)] == [step.name for step in diamond()]


def test_steps_that_do_not_need_one_another_overlap(cluster: Cluster, tmp_path: Path) -> None:
    both = [task(f"fits/{n}", meet, number=n) for n in range(2)]
    assert go(both, tmp_path, cluster) == ["made", "made"]


def test_a_worker_makes_many_steps_with_one_thread(cluster: Cluster, tmp_path: Path) -> None:
    go([task(f"fits/{n}", say_who, number=n) for n in range(12)], tmp_path, cluster)
    said = [path.read_text().split() for path in tmp_path.glob("fits/*/n")]
    assert {threads for _, threads in said} == {"1"}
    assert len({pid for pid, _ in said}) <= 3
    assert str(os.getpid()) not in {pid for pid, _ in said}


def test_no_step_waits_while_many_later_ones_are_made(cluster: Cluster, tmp_path: Path) -> None:
    go([task(f"fits/{n:02}", say_who, number=n) for n in range(24)], tmp_path, cluster)
    order = [int(spent.name.removeprefix("fits/")) for spent in read_costs(tmp_path)]
    assert max(place - number for place, number in enumerate(order)) <= 4


def test_one_that_raises_stops_only_what_needs_it(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = task("fits/wrong", fail, number=7)
    needs = task("fits/needs", write, wrong)
    lost = [wrong, task("fits/dying", die), task("fits/odd", fail_oddly), needs]
    lost += [task("fits/table", write, needs)]
    steps = [*lost, *diamond()]
    assert guarded(lambda words: go(steps, tmp_path, cluster), ["run"]) == 1
    said = capsys.readouterr().err
    assert "3 of 9 steps failed, and 4 are finished: " in said
    assert "fits/wrong: ValueError: no luck with 7;" in said
    assert "fits/dying: its worker died 3 times" in said
    assert "fits/odd: little_steps.OddError: spleen: too large;" in said
    assert "blocked by that: fits/needs, fits/table;" in said
    assert f"{tmp_path}/STEP{FAILED}" in said
    assert "run the same command again" in said
    assert "in fail\n" in (tmp_path / f"fits/wrong{FAILED}").read_text()
    assert plan.still_missing(steps, tmp_path) == lost


def test_when_the_cause_is_mended_only_what_is_missing_is_made(
    cluster: Cluster, tmp_path: Path
) -> None:
    wrong = task("fits/wrong", fail)
    steps = [*diamond(), wrong, task("fits/needs", meet, wrong, number=9)]
    with pytest.raises(RuntimeError, match="blocked by that: fits/needs"):
        go(steps, tmp_path, cluster)
    (tmp_path / "mended").touch()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "nobody").touch()
    assert go(steps, tmp_path, cluster) == ["done"] * 4 + ["made"] * 2
    assert not list(tmp_path.rglob(f"*{FAILED}"))
    assert {path.name for path in (tmp_path / wrong.name).iterdir()} == {"record.json", "tried"}


def test_a_step_whose_worker_is_killed_is_made_again_in_its_workspace(
    cluster: Cluster, tmp_path: Path
) -> None:
    killed = task("fits/killed", die_once, number=5)
    assert go([killed, task("fits/after", write, killed)], tmp_path, cluster) == ["made", "made"]
    assert files(tmp_path / "fits/killed").keys() == {"half", "n", "record.json"}
    assert (tmp_path / "fits/killed/n").read_text() == "5"


def test_one_may_stop_it_and_go_on(cluster: Cluster, tmp_path: Path) -> None:
    steps = [task(f"fits/{n}", wait_for_sign, number=n) for n in range(20)]
    begun = partial_of(tmp_path / steps[0].name) / "begun-0"

    def interrupt() -> None:
        for _ in range(600):
            if begun.exists():
                break
            time.sleep(0.05)
        stopped.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    stopped: list[float] = []
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        go(steps, tmp_path, cluster)
    assert time.monotonic() - stopped[0] < 8
    assert begun.exists()
    (tmp_path / "go").touch()
    assert len(list((tmp_path / "fits").iterdir())) < 2 * 2 + 1  # the others had never begun
    assert go(steps[:3], tmp_path, cluster) == ["made"] * 3
    assert (tmp_path / steps[0].name / "begun-1").exists()


# ---- a whole plan ------------------------------------------------------------------------------


def run_whole(steps: list[Step], root: Path, workers: int) -> list[Result]:
    return run_all(steps, root, lambda name: Effort(workers=workers))


def driven(name: str, *inputs: Step) -> Step:
    return replace(task(name, say_who, *inputs), where="driver")


def test_steps_of_the_driver_stay_and_tasks_go_together(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    @contextmanager
    def again(cpus: int) -> Generator[Cluster, None, None]:
        started.append(cpus)
        yield cluster

    monkeypatch.setattr(graph, "connect", again)
    corpus = driven("corpus/a")
    encoders = [task(f"encoder/{n}", say_who, corpus, number=n) for n in range(3)]
    folds = [task(f"fits/{step.name[-1]}", say_who, step) for step in encoders]
    table = driven("fits/results", *folds)
    steps = [corpus, *encoders, driven("corpus/b"), *folds, table, task("fits/x", say_who, table)]
    results = run_whole(steps, tmp_path, workers=2)
    assert [r.name for r in results] == [s.name for s in steps]
    assert started == [2, 2]  # all encoders and folds, then what waited for the table
    here = {
        s.name
        for s in steps
        if (tmp_path / s.name / "n").read_text().split()[0] == str(os.getpid())
    }
    assert here == {"corpus/a", "corpus/b", "fits/results"}
    assert {r.status for r in run_whole(steps, tmp_path, workers=2)} == {"done"}
    assert started == [2, 2]  # nothing missing, nothing started


def test_without_workers_all_is_made_in_this_process(tmp_path: Path) -> None:
    steps = [task("fits/a", say_who), driven("fits/b")]
    assert [r.status for r in run_whole(steps, tmp_path, workers=0)] == ["made", "made"]
    pids = {path.read_text().split()[0] for path in tmp_path.glob("fits/*/n")}
    assert pids == {str(os.getpid())}


def test_a_training_is_a_task_or_shared_from_the_driver(tmp_path: Path) -> None:
    halves = Training(seed=0, steps=1, global_batch=4, micro_batch=2)
    recipe = changed(tiny_generator().prior, training=halves)
    step = replace(task("prior/x", prior_stage), recipe=recipe)
    assert on_ray([step], tmp_path, workers=1) == [step]
    (shared,) = on_ray([step], tmp_path, workers=2)
    assert shared.where == "driver"
    assert shared.make is not prior_stage


# ---- what is refused ---------------------------------------------------------------------------


def test_gpus_that_are_nowhere_are_refused_before_anything_is_made(
    cluster: Cluster, tmp_path: Path
) -> None:
    steps = [task("fits/a", write), task("fits/b", write, gpus=0.5)]
    with pytest.raises(ValueError, match=r"fits/b needs 0.5 GPU and this machine has none; .*RAY_"):
        go(steps, tmp_path, cluster)
    assert list(tmp_path.iterdir()) == []


def test_more_gpus_than_one_node_has_are_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"GPU": 8.0}},  # nothing can run there
        {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    many = [task(f"fits/{n}", write, gpus=4.0) for n in range(5)]
    joined = replace_ours(cluster)
    with pytest.raises(ValueError, match=r"fits/2 and 2 more need 4 GPU .* 2 on one node; join"):
        demand_room(many, joined)
    with pytest.raises(ValueError, match=r"fits/x: 1.5 GPU is not possible"):
        demand_room([task("fits/x", write, gpus=1.5)], joined)
    demand_room([task("fits/x", write, gpus=2.0), task("fits/y", write, gpus=0.25)], joined)
    monkeypatch.setattr(ray, "nodes", lambda: nodes[2:])
    with pytest.raises(ValueError, match=r"needs a CPU, and the cluster has none"):
        demand_room([task("fits/x", write)], joined)


def replace_ours(cluster: Cluster) -> Cluster:
    return cluster._replace(ours=False)


def test_a_worker_with_other_code_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "code_hash", lambda: "mine")
    graph.demand_same_code("mine")
    with pytest.raises(RuntimeError, match=r"code is mine and its driver's is theirs: install"):
        graph.demand_same_code("theirs")


def test_a_step_uses_the_gpu_it_holds_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    some, none = task("fits/a", write, gpus=0.5), task("fits/b", write)
    monkeypatch.setattr(graph, "device", lambda: "cuda")
    assert (device_of(some), device_of(none)) == ("cuda", "cpu")
    monkeypatch.setattr(graph, "device", lambda: "cpu")
    with pytest.raises(RuntimeError, match="a GPU that torch cannot use"):
        device_of(some)


def test_steps_that_queue_for_gpus_do_not_keep_others_waiting(tmp_path: Path) -> None:
    gpu = [task(f"fits/g{n}", write, gpus=0.5) for n in range(9)]
    course = graph._Course(
        root=tmp_path, told=lambda done=1, note="", /: None, left=[*gpu, task("fits/c", write)],
        group=frozenset(), made={},
    )  # fmt: skip
    names = []
    while (step := course.take({"CPU": 4.0, "GPU": 1.0})) is not None:
        course.running[step.name] = step
        names.append(step.name)
    assert names == ["fits/g0", "fits/g1", "fits/g2", "fits/g3", "fits/c"]


def test_a_folder_that_this_machine_does_not_see_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "SEEN_WITHIN_S", 0.0)
    course = graph._Course(
        root=tmp_path, told=lambda done=1, note="", /: None, left=[], group=frozenset(), made={}
    )
    course.finish(task("fits/a", write), "made", 1.0)
    assert "one all machines share" in course.failed["fits/a"]

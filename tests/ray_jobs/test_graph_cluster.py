"""Four nodes of eight GPUs and a head without any: who works where. The GPUs are numbers only."""

import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from four_nodes import TOGETHER, hold_a_gpu
from little_steps import task, write

from ray_jobs import graph
from ray_jobs.cluster import connect, joins
from ray_jobs.graph import run_graph

pytestmark = pytest.mark.chaos  # a minute: 32 workers start

NODES, GPUS = 4, 8
TOKEN = 64 * "7"


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Generator[str, None, None]:
    """The id of the head; RAY_ADDRESS leads to it."""
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests.parent), str(tests)]))
    for name, value in {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN", TOKEN),
        "RAY_USAGE_STATS_ENABLED": "0",
    }.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    try:
        small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
        first = nodes.add_node(num_cpus=0, num_gpus=0, **small)
        for _ in range(NODES):
            nodes.add_node(num_cpus=GPUS, num_gpus=GPUS, wait=False, **small)
        nodes.wait_for_nodes(timeout=60)
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        yield first.node_id
    finally:
        nodes.shutdown()


def test_every_gpu_of_every_node_has_a_step_at_once_and_the_head_none(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "_work", hold_a_gpu)
    assert joins()
    steps = [task(f"fits/{n}", write, number=n, gpus=1.0) for n in range(TOGETHER)]
    with connect(cpus=1) as cluster:
        assert (cluster.ours, cluster.gpus) == (False, NODES * GPUS)
        with pytest.raises(ValueError, match=r"fits/x needs 9 GPU and the cluster has 8 on one"):
            run_graph([task("fits/x", write, gpus=9.0)], tmp_path, cluster, lambda *said: None)
        results = run_graph(steps, tmp_path, cluster, lambda *said: None)
    assert {result.status for result in results} == {"made"}
    said = [(tmp_path / step.name / "record.json").read_text().split() for step in steps]
    assert Counter(Counter(node for node, _ in said).values()) == {GPUS: NODES}
    assert head not in {node for node, _ in said}
    assert len({(node, gpu) for node, gpu in said}) == TOGETHER

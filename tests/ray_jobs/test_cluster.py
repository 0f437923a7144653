"""A cluster of our own listens to nobody else and ends; one that was joined is left as it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs.cluster import LOOPBACK, connect, demand_lasting

LOOPBACKS = {"0100007F", 24 * "0" + "01000000", 16 * "0" + "FFFF00000100007F"}
"""127.0.0.1, ::1 and ::ffff:127.0.0.1, as /proc writes them."""
JOINING = """
import ray
from ray_jobs.cluster import connect
with connect(cpus=1) as joined:
    print(joined.ours, int(ray.cluster_resources()["CPU"]))
assert not ray.is_initialized()
"""


def joining(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", JOINING]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def listening() -> dict[int, str]:
    """Port -> address, of every TCP socket that processes below this one listen on."""
    inodes = set()
    for pid in below(os.getpid()):
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(link)
            except OSError:
                continue  # closed, or ended, meanwhile
            if target.startswith("socket:"):
                inodes.add(target[8:-1])
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            if fields[3] == "0A" and fields[9] in inodes:
                found[int(port, 16)] = address
    return found


def below(pid: int) -> list[int]:
    """A process, its children, and theirs."""
    try:
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        children = [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return []
    return [pid, *(p for child in children for p in below(child))]


def test_ours_listens_on_the_loopback_can_be_joined_and_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = below(os.getpid())
    with connect(cpus=1) as ours:
        import ray

        context = ray.get_runtime_context()
        assert ours.ours
        assert ray.cluster_resources()["CPU"] == 1
        assert ray.util.get_node_ip_address() == LOOPBACK
        addresses = set(listening().values())
        assert addresses
        assert addresses <= LOOPBACKS
        environment = {**os.environ, "RAY_ADDRESS": context.gcs_address}
        friend = joining(environment)
        assert friend.stdout.split() == ["False", "1"], friend.stderr
        assert ray.cluster_resources()["CPU"] == 1  # it left without ending ours
    assert not ray.is_initialized()
    assert not ours.logs.parents[2].exists()
    assert set(below(os.getpid())) <= set(before)


@pytest.mark.chaos  # Ray asks again for twenty seconds before it gives up
def test_without_the_token_nobody_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with connect(cpus=1):
        import ray

        address = ray.get_runtime_context().gcs_address
        stranger = {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_TOKEN": 64 * "0"}
        assert joining(stranger).returncode != 0
        assert joining(stranger | {"RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"]}).returncode == 0


def test_a_job_keeps_nothing_in_its_copy_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(ValueError, match=r"^runs/tiny lies in .* which Ray deletes; .* absolute"):
        demand_lasting(Path("runs/tiny"))
    demand_lasting(tmp_path / "corpus")

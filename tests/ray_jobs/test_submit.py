"""A real head on the loopback: who has no token gets nothing; a job that was killed is finished by
submitting it again; and head and all that it started end with one signal.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from synth_ct.corpus import Corpus
from synth_ct.kit.artifact import partial_of

HERE = Path(__file__).parents[2]
HEAD = HERE / "ray_jobs" / "deploy" / "head.sh"
STRAYS = 1
"""The twin's copy of a film, written down before any work begins."""
OPTIONS = ("--samples", "2", "--gate", "record", "--actors", "2")
ENOUGH_S = 120.0
PROGRAM = ("python", "-m", "ray_jobs")
TALKATIVE = (
    "python",
    "-c",
    "from synth_ct.kit import progress; progress.LINE_EVERY_S = 0.5; "
    "from ray_jobs.cli import main; main()",
)
"""The same, for machines so fast that nothing would be said in between."""


class Head(NamedTuple):
    """A running head, and how it is spoken to."""

    process: subprocess.Popen[bytes]
    dashboard: int
    agent: int
    token: str


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def of_session(leader: int) -> list[int]:
    """Processes of a session, by their leader."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_for(what: Callable[[], Any], seconds: float = ENOUGH_S) -> Any:
    end = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s"
        time.sleep(0.1)
    return answer


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Generator[Head, None, None]:
    """As docs/cluster.md starts it, but for the ports."""
    folder = tmp_path_factory.mktemp("head")
    short = Path("/tmp") / f"synth-ct-head-{os.getpid()}"  # paths of sockets must be short
    dashboard, agent, client = free_ports(3)
    token = folder / "new" / "token"
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    command = [
        str(HEAD),
        "--port=0",
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}",
        f"--ray-client-server-port={client}",
        "--num-cpus=2",
        f"--object-store-memory={80 * 2**20}",
        f"--temp-dir={short}",
    ]
    environment |= {"RAY_AUTH_TOKEN_PATH": str(token), "OMP_NUM_THREADS": "1"}
    environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "1"  # nobody is left to wait for
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(lambda: process.poll() is None and status_of(dashboard, "/api/version") == 401)
        yield Head(process, dashboard, agent, token.read_text())
        assert token.stat().st_mode & 0o777 == 0o600
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(ENOUGH_S)
            wait_for(lambda: not of_session(process.pid))
        finally:
            for left in of_session(process.pid):
                os.kill(left, signal.SIGKILL)
            process.wait()
            shutil.rmtree(short, ignore_errors=True)


def status_of(
    port: int, path: str, job: dict[str, Any] | None = None, token: str = ""
) -> int | None:
    """What HTTP answers; None where nobody listens yet."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=None if job is None else json.dumps(job).encode(),
        headers={"Content-Type": "application/json"}
        | ({"Authorization": f"Bearer {token}"} if token else {}),
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None


@pytest.mark.parametrize("token", ["", 64 * "0"], ids=["none", "wrong"])
def test_who_has_no_token_runs_nothing(head: Head, tmp_path: Path, token: str) -> None:
    proof = tmp_path / "ran"
    job = {"entrypoint": f"touch {proof}"}
    doors = {head.dashboard: "/api/jobs/", head.agent: "/api/job_agent/jobs/"}
    for port, path in doors.items():
        wait_for(lambda port=port, path=path: status_of(port, path, job, token) is not None)
        assert status_of(port, path, job, token) in (401, 403)
    assert status_of(head.dashboard, "/api/jobs/", token=head.token) == 200
    assert not proof.exists()


class Jobs(NamedTuple):
    """Submitted as docs/cluster.md says; asked about over HTTP."""

    head: Head

    def begin(self, name: str, command: list[str]) -> None:
        self._submit(name, command, "--no-wait")

    def run(self, name: str, command: list[str], program: tuple[str, ...] = PROGRAM) -> list[str]:
        """Until its end; what it logged."""
        return self._submit(name, command, program=program).splitlines()

    def _submit(
        self, name: str, command: list[str], *options: str, program: tuple[str, ...] = PROGRAM
    ) -> str:
        address = f"http://127.0.0.1:{self.head.dashboard}"
        words = ["submit", "--address", address, "--working-dir", ".", "--submission-id", name]
        job = [str(Path(sys.executable).with_name("ray")), "job", *words, *options]
        done = subprocess.run(
            [*job, "--", *program, *command],
            cwd=HERE,
            env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.head.token},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout

    def told(self, name: str) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.head.dashboard}/api/jobs/{name}",
            headers={"Authorization": f"Bearer {self.head.token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            told: dict[str, Any] = json.load(answer)
        return told

    def end(self, name: str) -> tuple[str, int]:
        """Its status, and the only place that holds the exit code itself."""
        wait_for(lambda: self.told(name)["status"] not in ("PENDING", "RUNNING"))
        told = self.told(name)
        return told["status"], told["driver_exit_code"]


def films_of(root: Path, folder: Path) -> Path:
    """Films of phantoms, one of them cut short."""
    shutil.copytree(root / "cohorts" / "chest_xray" / "chest_xray", folder)
    first = min(folder.rglob("*.jpeg"))
    first.write_bytes(first.read_bytes()[:500])
    return folder


def receipts(corpus: Path) -> int:
    """Lines, of items and of files that never became any."""
    found = (partial_of(corpus) / "receipts").glob("*.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in found)


def volumes(corpus: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (corpus / "volumes").glob("*/*.nii.gz")}


def test_a_killed_job_is_submitted_again_and_ends_in_the_same_corpus(
    head: Head, generator_root: Path, tmp_path: Path
) -> None:
    films = films_of(generator_root, tmp_path / "films")
    jobs, corpus = Jobs(head), tmp_path / "corpus"
    command = ["generate", str(films), str(corpus), "--model", str(generator_root), *OPTIONS]

    jobs.begin("first", command)
    wait_for(lambda: receipts(corpus) > STRAYS)
    os.kill(int(jobs.told("first")["driver_info"]["pid"]), signal.SIGKILL)
    done = receipts(corpus)
    assert jobs.end("first") == ("FAILED", 128 + signal.SIGKILL)
    assert not corpus.exists()

    log = jobs.run("second", command, TALKATIVE)
    assert jobs.end("second") == ("SUCCEEDED", 0)
    about = Corpus.open(corpus).about
    counts = about.counts
    assert STRAYS < done < counts.total
    assert f"{counts.committed} volumes of {counts.total} items" in "\n".join(log)
    assert f"digest {about.digest}" in log
    assert [line for line in log if line.startswith("volumes  ") and "pending, " in line]

    log = jobs.run("strict", [*command, "--strict"])
    assert jobs.end("strict") == ("FAILED", 3)
    assert "nothing to do" in "\n".join(log)
    assert f"finished, {counts.quarantined} set aside (exit 3)" in log

    local = [*command[:2], str(tmp_path / "local"), *command[3:], "--local"]
    subprocess.run([sys.executable, "-m", "ray_jobs", *local], check=True, capture_output=True)
    assert Corpus.open(tmp_path / "local").about.digest == about.digest
    assert volumes(tmp_path / "local") == volumes(corpus)
    assert len(volumes(corpus)) == counts.committed == counts.total - counts.quarantined

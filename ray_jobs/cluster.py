"""Ray for as long as it is needed: the cluster that RAY_ADDRESS names, or a small one of our own.

Ours listens on the loopback alone, wants a token that only this process and its children know, and
ends with the block. Nothing here ends what somebody else started.
"""

import io
import logging
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TextIO

OBJECT_STORE_BYTES = 256 * 2**20
"""Arrays travel as files; left alone, Ray would take a third of the memory."""
LOOPBACK = "127.0.0.1"
UPLOADED = "working_dir_files"
"""Where Ray unpacks what `ray job submit --working-dir` uploaded."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
COLOUR = re.compile(r"\x1b\[\d*m")
BRIEF = 150
STDERR = 2


class Cluster(NamedTuple):
    """What may be asked of it."""

    ours: bool
    """Started here, on this machine, and ended here."""
    gpus: int
    logs: Path
    """Where Ray Train writes what its workers said."""


def joins() -> bool:
    """Whether `connect` would join a cluster."""
    return bool(os.environ.get("RAY_ADDRESS"))


def demand_lasting(folder: Path) -> None:
    """Refuse to make what goes away with the job: its copy of the working directory does."""
    if UPLOADED in folder.resolve().parts:
        raise ValueError(
            f"{folder} lies in the job's own copy of the working directory, which Ray deletes; "
            "give an absolute path that every node sees"
        )


@contextmanager
def connect(cpus: int) -> Generator[Cluster, None, None]:
    """Join the cluster of RAY_ADDRESS, or start one with so many CPUs; leave, or end it, after."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what it calls errors often is none
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # or what it held back comes on stdout at the end
    with _signals_restored(), redirect_stdout(_Answers(sys.stdout)):
        if joins():
            import ray

            with _silence():
                context = ray.init(log_to_driver=False)
            yield from _until_left(context, ours=False)
        else:
            with _short_folder() as folder:
                with _silence():
                    context = _started(cpus, folder)
                yield from _until_left(context, ours=True)


def _until_left(context: Any, ours: bool) -> Generator[Cluster, None, None]:
    import ray

    try:
        logs = Path(context.address_info["session_dir"]) / "logs" / "train"
        yield Cluster(ours=ours, gpus=int(ray.cluster_resources().get("GPU", 0)), logs=logs)
    finally:
        ray.shutdown()


def _started(cpus: int, folder: Path) -> Any:
    os.environ.update(
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",  # in spite of its name: every port on the loopback
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=_token(),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_worker_niceness="0",  # else below every other program of the machine
    )
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    import ray  # reads the first of these when it is imported

    context: Any = ray.init(
        address="local",
        num_cpus=cpus,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=str(folder),
    )
    where = context.address_info["node_ip_address"]
    if where != LOOPBACK:
        ray.shutdown()
        raise RuntimeError(
            f"Ray listens on {where} and not on the loopback alone, because `ray` was imported "
            "before ray_jobs.cluster.connect was called; import it only inside that block"
        )
    return context


@cache
def _token() -> str:
    """One for the life of this process: Ray reads it once."""
    return secrets.token_hex(32)


@contextmanager
def _short_folder() -> Generator[Path, None, None]:
    """A folder for Ray's sockets, whose paths must be short; its logs stay where work failed."""
    folder = Path(tempfile.mkdtemp(prefix="synth-ct-", dir="/tmp"))
    try:
        yield folder
    finally:
        if not isinstance(sys.exception(), Exception):  # done, or stopped by a person
            shutil.rmtree(folder, ignore_errors=True)  # a daemon may still write its last line


@contextmanager
def _silence() -> Generator[None, None, None]:
    """Nothing on stderr, not from native code either: what matters of a start is raised."""
    sys.stderr.flush()
    ours = os.dup(STDERR)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), STDERR)
    try:
        yield
    finally:
        os.dup2(ours, STDERR)
        os.close(ours)


class _Answers(io.TextIOBase):
    """Standard output is for answers: what Ray's threads say there goes to stderr, in brief."""

    def __init__(self, ours: TextIO) -> None:
        self._ours = ours

    def write(self, text: str) -> int:
        """Ours as it is; of theirs, what happened, without the advice."""
        if not threading.current_thread().name.startswith("ray_"):
            return self._ours.write(text)
        if text.strip():
            sys.stderr.write(f"{COLOUR.sub('', text).strip()[:BRIEF]}\n")
        return len(text)

    def flush(self) -> None:
        """Whatever was written."""
        self._ours.flush()


@contextmanager
def _signals_restored() -> Generator[None, None, None]:
    """Ray installs handlers of its own, and leaves them behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [(which, signal.getsignal(which)) for which in SIGNALS]
    try:
        yield
    finally:
        for which, handler in before:
            signal.signal(which, handler)

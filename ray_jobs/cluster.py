"""Ray for as long as it is needed: the cluster that RAY_ADDRESS names, or a small one of our own.

Ours listens on the loopback alone, wants a token that only this process and its children know, and
ends with the block. Nothing here ends what somebody else started.
"""

import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

OBJECT_STORE_BYTES = 256 * 2**20
"""Arrays travel as files; left alone, Ray would take a third of the memory."""
LOOPBACK = "127.0.0.1"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


@contextmanager
def connect(cpus: int) -> Generator[Cluster, None, None]:
    """Join the cluster of RAY_ADDRESS, or start one with so many CPUs; leave, or end it, after."""
    with _signals_restored():
        if joins():
            import ray

            yield from _until_left(ray.init(log_to_driver=False), ours=False)
        else:
            with _short_folder() as folder:
                yield from _until_left(_started(cpus, folder), ours=True)


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

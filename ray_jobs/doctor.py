"""What this machine can do, what is missing, and how to get it."""

import errno
import os
import platform
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.version import Version

from ray_jobs.cluster import LOOPBACK, OBJECT_STORE_BYTES

if TYPE_CHECKING:
    from ray_jobs.plan import Step

Verdict = Literal["ok", "note", "missing"]

FLOORS = {
    "torch": "2.10",
    "torchvision": "0.25",
    "monai": "1.5.2",
    "ray": "2.52",
    "mlflow": "3.11",
    "einops": "0.8",
    "lpips": "0.1.4",
    "scikit-learn": "1.5",
    "nibabel": "5.3",
    "pydicom": "3.0",
    "isal": "1.7",
    "safetensors": "0.5",
}
"""Below these a known security hole or a missing function; pyproject.toml asks for the same."""
UNSAFE = {
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "it lets a weights file run code",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "it lets an MLflow model run code",
}
GB = 1e9
MIN_DISK_GB, MIN_MEMORY_GB = 5, 6
PAIR = (
    "import torch, torchvision; torchvision.ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5); "
    "print(torch.cuda.device_count())"
)
CGROUPS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""What a container may use, where it is limited."""
SHARED_MEMORY = Path("/dev/shm")
RAYS_SHARE, RAYS_MOST = 0.3, 200 * GB
"""Of the memory, for the objects of a Ray head that is told nothing else."""
RUNS = Path("runs")
"""Where each run has a root of its own unless it is given one."""
PORTS = {
    8265: "Ray's dashboard and jobs; is it not your Ray, start yours with --dashboard-port",
    6379: "a Ray head; is it not yours, start yours with another --port",
    5000: "MLflow's page; is it not yours, start yours with another --port",
}
"""Who asks for each, and what to do where somebody else has it."""
HEADS_TOKEN = "~/.synth-ct/ray-token"
RAYS_TOKEN = Path("~/.ray/auth_token")
INCEPTION = "inception_v3_google-0cc3c7bd.pth"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    what: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def examine(folder: Path, environment: Mapping[str, str]) -> list[Finding]:
    """Look at everything; nothing is changed, nobody but a tracking server is asked."""
    tried = import_pair()
    return [
        _python(),
        *(_package(name, floor) for name, floor in FLOORS.items()),
        _pair(tried),
        gpu(tried.stdout.strip() if tried.returncode == 0 else ""),
        *(_lpips(trunk) for trunk in ("vgg16", "alexnet")),
        _inception(),
        cores_and_memory(),
        shared_memory(),
        _disk(folder),
        *data(folder),
        *(port(number) for number in PORTS),
        ray_token(environment),
        mlflow_store(folder, environment),
        _chromium(),
        *(_variable(name, why, environment) for name, why in UNSAFE.items()),
    ]


# ---- what is installed -------------------------------------------------------------------------


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    remedy = "" if ok else "install Python 3.11 or newer"
    return Finding(
        what="python",
        verdict="ok" if ok else "missing",
        detail=platform.python_version(),
        remedy=remedy,
    )


def _package(name: str, floor: str) -> Finding:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(
            what=name,
            verdict="missing",
            detail="not installed",
            remedy="run `make setup`, or pip install -c constraints.txt -e .",
        )
    if Version(found) < Version(floor):
        remedy = f"pip install '{name}>={floor}'"
        return Finding(
            what=name, verdict="missing", detail=f"{found} is below {floor}", remedy=remedy
        )
    return Finding(what=name, verdict="ok", detail=found)


def pair_problem(output: str) -> str:
    """The last line of a failed import of torch and torchvision."""
    lines = [line for line in output.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "the import ended without a word"


def import_pair() -> subprocess.CompletedProcess[str]:
    """Import both in a process of their own, which says how many GPUs torch sees."""
    return subprocess.run([sys.executable, "-c", PAIR], capture_output=True, text=True, check=False)


def _pair(tried: subprocess.CompletedProcess[str]) -> Finding:
    """lpips needs torchvision, whose operators load only into the torch they were built for."""
    if tried.returncode == 0:
        return Finding(what="torch with torchvision", verdict="ok", detail="import together")
    return Finding(
        what="torch with torchvision",
        verdict="missing",
        detail=pair_problem(tried.stderr),
        remedy="install both from the same index with the pins of constraints.txt "
        "(a CPU-only torch does not work with the stock torchvision)",
    )


def _chromium() -> Finding:
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found:
        return Finding(what="Chromium", verdict="ok", detail=found)
    remedy = "only tests that look at pages want it; Debian: apt-get install chromium"
    return Finding(what="Chromium", verdict="note", detail="none", remedy=remedy)


def _variable(name: str, why: str, environment: Mapping[str, str]) -> Finding:
    if environment.get(name, "").lower() in {"1", "true", "yes"}:
        return Finding(what=name, verdict="missing", detail=f"set: {why}", remedy=f"unset {name}")
    return Finding(what=name, verdict="ok", detail="not set")


# ---- the machine -------------------------------------------------------------------------------


def gpu(seen: str) -> Finding:
    """What the driver lists, and whether torch sees as much: `seen` is its count."""
    tool = shutil.which("nvidia-smi")
    query = [tool or "", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    asked = subprocess.run(query, capture_output=True, text=True, check=False) if tool else None
    if asked is None or asked.returncode != 0:
        remedy = "recipes `tiny` and `small_cpu` run without; larger ones want a CUDA device"
        return Finding(what="gpu", verdict="note", detail="none", remedy=remedy)
    listed = "; ".join(asked.stdout.strip().splitlines())
    if seen == "0":
        remedy = (
            "install a torch built for CUDA, and a driver as new as that; or unset "
            "CUDA_VISIBLE_DEVICES if it hides them"
        )
        detail = f"{listed}, but torch sees none"
        return Finding(what="gpu", verdict="note", detail=detail, remedy=remedy)
    return Finding(what="gpu", verdict="ok", detail=listed)


def cores_and_memory() -> Finding:
    """Of this process: a container may have less than the machine."""
    cores = len(os.sched_getaffinity(0))
    memory_gb = memory_bytes() / GB
    enough = memory_gb >= MIN_MEMORY_GB
    return Finding(
        what="cores and memory",
        verdict="ok" if enough else "note",
        detail=f"{cores} cores, {memory_gb:.0f} GB",
        remedy="" if enough else f"`tiny` needs {MIN_MEMORY_GB} GB",
    )


def memory_bytes() -> int:
    """Of the machine, or of the container where that is less."""
    texts = [path.read_text().strip() for path in CGROUPS if path.is_file()]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(int(text) for text in texts if text.isdigit())])


def shared_memory() -> Finding:
    """A Ray head whose share of memory does not fit there keeps its objects on disk, slowly."""
    what = "shared memory"
    if not SHARED_MEMORY.is_dir():
        return Finding(what=what, verdict="ok", detail=f"no {SHARED_MEMORY} on this system")
    free = shutil.disk_usage(SHARED_MEMORY).free
    wanted = min(RAYS_SHARE * memory_bytes(), RAYS_MOST)
    detail = f"{free / GB:.1f} GB free in {SHARED_MEMORY}, a Ray head takes {wanted / GB:.1f}"
    if free >= wanted:
        return Finding(what=what, verdict="ok", detail=detail)
    remedy = (
        f"for a head give it more (docker run --shm-size={wanted / GB:.0f}g) or ask for less "
        f"(ray start --object-store-memory={OBJECT_STORE_BYTES}, which is what a run on this "
        "machine alone takes); else its objects lie on disk"
    )
    return Finding(what=what, verdict="note", detail=detail, remedy=remedy)


def _disk(folder: Path) -> Finding:
    existing = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
    free_gb = shutil.disk_usage(existing).free / GB
    enough = free_gb >= MIN_DISK_GB
    return Finding(
        what="free disk",
        verdict="ok" if enough else "missing",
        detail=f"{free_gb:.0f} GB below the run's root",
        remedy="" if enough else f"free {MIN_DISK_GB} GB, or choose another --root",
    )


def port(number: int) -> Finding:
    """Whether a server can be started there, on the loopback."""
    what, (asks, _, remedy) = f"port {number}", PORTS[number].partition("; ")
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one just closed is free
        try:
            tried.bind((LOOPBACK, number))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return Finding(what=what, verdict="note", detail=f"taken; {asks}", remedy=remedy)
    return Finding(what=what, verdict="ok", detail=f"free for {asks}")


# ---- what only a person can bring --------------------------------------------------------------


def _lpips(trunk: Literal["vgg16", "alexnet"]) -> Finding:
    """Only recipe `paper` and LPIPS columns want them, so that their absence is no fault."""
    from synth_ct.models.perceptual import TRUNKS, demand_weights

    what, wanted = f"LPIPS weights, {trunk}", f"for {TRUNKS[trunk].used_by}"
    try:
        path = demand_weights("lpips", trunk)
    except ValueError as error:
        return Finding(what=what, verdict="note", detail=f"absent, {wanted}", remedy=str(error))
    return Finding(what=what, verdict="ok", detail=f"{path}, {wanted}")


def _inception() -> Finding:
    import torch

    from synth_ct.models.perceptual import PUBLISHED

    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION
    what, wanted = "FID weights, Inception", "for FID and KID of `synth-ct evaluate --extractor`"
    if path.is_file():
        return Finding(what=what, verdict="ok", detail=f"{path}, {wanted}")
    remedy = (
        f"fetch {PUBLISHED}{INCEPTION}, put it there or anywhere, and name it with --extractor; "
        "or read the tables without"
    )
    detail = f"{path} is absent, {wanted}"
    return Finding(what=what, verdict="note", detail=detail, remedy=remedy)


def data(folder: Path) -> list[Finding]:
    """Each cohort of real data that the root's recipe wants, or `paper` where there is none."""
    from ray_jobs.recipes import paper
    from ray_jobs.report_step import RECIPE, recipe_of
    from ray_jobs.steps import steps_of

    known = (folder / RECIPE).exists()
    try:
        run = recipe_of(folder) if known else paper()
    except ValueError as error:
        remedy = "mend it, or run there with the recipe that made what is there"
        return [Finding(what="data", verdict="missing", detail=str(error), remedy=remedy)]
    root = folder / run.name if folder == RUNS and not known else folder
    brought = [step for step in steps_of(run) if step.make is None]
    if not brought:
        detail = f"`{run.name}` in {root} makes its own"
        return [Finding(what="data", verdict="ok", detail=detail)]
    return [_cohort(step, root, run.name) for step in brought]


def _cohort(step: "Step", root: Path, recipe: str) -> Finding:
    from ray_jobs.plan import ingest_command, wanted_record

    what, command = f"data, {step.name}", ingest_command(step, root)
    try:
        record = wanted_record(step, root)
    except ValueError as error:
        return Finding(what=what, verdict="missing", detail=str(error), remedy=command)
    if record is None:
        detail = f"not ingested below {root}; for recipe `{recipe}`"
        return Finding(what=what, verdict="note", detail=detail, remedy=command)
    return Finding(what=what, verdict="ok", detail=f"ingested, {root / step.name}")


# ---- servers -----------------------------------------------------------------------------------


def ray_token(environment: Mapping[str, str]) -> Finding:
    """Whether the cluster that is named would let us in, and nobody else reads our token."""
    what = "Ray token"
    cluster = environment.get("RAY_ADDRESS") or environment.get("RAY_API_SERVER_ADDRESS")
    if environment.get("RAY_AUTH_MODE", "").lower() != "token":
        if not cluster:
            return Finding(what=what, verdict="ok", detail="no cluster is named; ours makes one")
        remedy = f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={HEADS_TOKEN}, as its head has it"
        detail = f"RAY_AUTH_MODE is not token, for {cluster}"
        return Finding(what=what, verdict="note", detail=detail, remedy=remedy)
    if environment.get("RAY_AUTH_TOKEN"):
        return Finding(what=what, verdict="ok", detail="in RAY_AUTH_TOKEN")
    return _token_file(Path(environment.get("RAY_AUTH_TOKEN_PATH") or RAYS_TOKEN.expanduser()))


def _token_file(path: Path) -> Finding:
    what = "Ray token"
    if not os.access(path, os.R_OK) or not path.is_file() or not path.stat().st_size:
        remedy = (
            f"export RAY_AUTH_TOKEN_PATH={HEADS_TOKEN}, where ray_jobs/deploy/head.sh makes one; "
            "on another machine copy it there from the head"
        )
        detail = f"RAY_AUTH_MODE is token, and {path} cannot be read or is empty"
        return Finding(what=what, verdict="missing", detail=detail, remedy=remedy)
    if path.stat().st_mode & 0o077:
        detail = f"others can read or change {path}"
        return Finding(what=what, verdict="note", detail=detail, remedy=f"chmod 600 {path}")
    return Finding(what=what, verdict="ok", detail=str(path))


def mlflow_store(folder: Path, environment: Mapping[str, str]) -> Finding:
    """Where a run would log; a server that is named is asked whether it is there."""
    from reports.mlflow_store import SERVERS, URI, store_for

    what = "MLflow store"
    try:
        store = store_for(folder, environment)
    except ValueError as error:
        remedy = "unset MLFLOW_TRACKING_URI, or name such a store"
        return Finding(what=what, verdict="missing", detail=str(error), remedy=remedy)
    if not store.shown.startswith(tuple(f"{scheme}://" for scheme in SERVERS)):
        shown = f"{store.shown}, not tried: " if environment.get(URI) else ""
        return Finding(what=what, verdict="ok", detail=f"{shown}{store.why}")
    if fault := silence(store.shown):
        remedy = "start that server (docs/mlflow.md), or unset MLFLOW_TRACKING_URI"
        detail = f"{store.shown} does not answer: {fault}"
        return Finding(what=what, verdict="missing", detail=detail, remedy=remedy)
    return Finding(what=what, verdict="ok", detail=f"{store.shown} answers")


def silence(address: str) -> str:
    """Why an MLflow server does not answer; nothing where it does, be it to want a password."""
    try:
        urllib.request.urlopen(f"{address}/health", timeout=PATIENCE_S).close()
    except urllib.error.HTTPError as error:
        with error:
            return "" if error.code in {401, 403} else f"{error.code} {error.reason}"
    except (OSError, HTTPException, ValueError) as error:
        return str(getattr(error, "reason", error))
    return ""

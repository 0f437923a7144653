"""What this machine can do, what is missing, and how to get it."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from packaging.version import Version

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
PAIR = "import torch, torchvision; torchvision.ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    what: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def examine(folder: Path, environment: Mapping[str, str]) -> list[Finding]:
    """Look at everything; nothing is changed."""
    return [
        _python(),
        *(_package(name, floor) for name, floor in FLOORS.items()),
        _pair(),
        _gpu(),
        _lpips("vgg16"),
        _lpips("alexnet"),
        _cores_and_memory(),
        _disk(folder),
        *(_variable(name, why, environment) for name, why in UNSAFE.items()),
    ]


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


def _pair() -> Finding:
    """lpips needs torchvision, whose operators load only into the torch they were built for."""
    tried = subprocess.run(
        [sys.executable, "-c", PAIR], capture_output=True, text=True, check=False
    )
    if tried.returncode == 0:
        return Finding(what="torch with torchvision", verdict="ok", detail="import together")
    return Finding(
        what="torch with torchvision",
        verdict="missing",
        detail=pair_problem(tried.stderr),
        remedy="install both from the same index with the pins of constraints.txt "
        "(a CPU-only torch does not work with the stock torchvision)",
    )


def _gpu() -> Finding:
    tool = shutil.which("nvidia-smi")
    query = [tool or "", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    asked = subprocess.run(query, capture_output=True, text=True, check=False) if tool else None
    if asked is None or asked.returncode != 0:
        remedy = "recipes `tiny` and `small_cpu` run without; larger ones want a CUDA device"
        return Finding(what="gpu", verdict="note", detail="none", remedy=remedy)
    return Finding(what="gpu", verdict="ok", detail="; ".join(asked.stdout.strip().splitlines()))


def _lpips(trunk: Literal["vgg16", "alexnet"]) -> Finding:
    """Only recipe `paper` and LPIPS columns want them, so that their absence is no fault."""
    from synth_ct.models.perceptual import TRUNKS, demand_weights

    what, wanted = f"LPIPS weights, {trunk}", f"for {TRUNKS[trunk].used_by}"
    try:
        path = demand_weights("lpips", trunk)
    except ValueError as error:
        return Finding(what=what, verdict="note", detail=f"absent, {wanted}", remedy=str(error))
    return Finding(what=what, verdict="ok", detail=f"{path}, {wanted}")


def _cores_and_memory() -> Finding:
    cores = len(os.sched_getaffinity(0))
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    enough = memory_gb >= MIN_MEMORY_GB
    return Finding(
        what="cores and memory",
        verdict="ok" if enough else "note",
        detail=f"{cores} cores, {memory_gb:.0f} GB",
        remedy="" if enough else f"`tiny` needs {MIN_MEMORY_GB} GB",
    )


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


def _variable(name: str, why: str, environment: Mapping[str, str]) -> Finding:
    if environment.get(name, "").lower() in {"1", "true", "yes"}:
        return Finding(what=name, verdict="missing", detail=f"set: {why}", remedy=f"unset {name}")
    return Finding(what=name, verdict="ok", detail="not set")

"""Every rule of the house is shown once to catch what it is there to catch."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

from synth_ct.kit.volume import Volume

HERE = Path(__file__).parents[1]
PACKAGES = ("synth_ct", "pretrain", "finetune", "reports", "ray_jobs")
SABOTAGE = {
    "Imports follow the data": ("synth_ct/kit/seeds.py", "import ray_jobs.plan"),
    "Downstream sees synth_ct only": ("pretrain/bad.py", "from synth_ct.xray import project"),
    "Only ray_jobs knows Ray": ("finetune/bad.py", "import ray"),
    "Only reports knows MLflow": ("synth_ct/xray/bad.py", "import mlflow"),
    "Networks and their": ("synth_ct/models/bad.py", "from synth_ct.pairs import arrays"),
    "Inside synth_ct": ("synth_ct/kit/bad.py", "from synth_ct.cohort import Cohort"),
}


def python(*arguments: str, folder: Path = HERE) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def imports(folder: Path) -> subprocess.CompletedProcess[str]:
    lint = "from importlinter.cli import lint_imports_command as lint; lint()"
    return python("-c", lint, "--no-cache", folder=folder)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(HERE / package, tmp_path / package)
    shutil.copy(HERE / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("contract", SABOTAGE)
def test_an_import_against_the_stream_is_caught(contract: str, copy: Path) -> None:
    file, line = SABOTAGE[contract]
    with (copy / file).open("a") as code:
        code.write(f"\n{line}\n")
    said = imports(copy)
    assert said.returncode == 1, said.stdout
    broken = [row for row in said.stdout.splitlines() if row.endswith("BROKEN")]
    assert [row for row in broken if row.startswith(contract)], said.stdout


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("def long() -> None:\n" + "    pass\n" * 51, "52 lines > 50"),
        ("x = 1\n" * 401, "401 lines > 400"),
        ("def bare(a, *, b: int) -> None: ...\n", "untyped a"),
        ("def open_ended(a: int): ...\n", "untyped return"),
    ],
)
def test_the_size_gate_catches(code: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(code)
    said = python(".ci/size_gate.py", str(tmp_path))
    assert said.returncode == 1
    assert complaint in said.stdout


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("try:\n    x = 1\nexcept Exception:\n    x = 2\n", "BLE001"),
        ('print("hello")\n', "T201"),
        ('"""A module."""\n\n\ndef f(a):\n    """Do."""\n', "ANN001"),
        ('"""A module."""\n\nfrom .kit import axes\n', "TID252"),
        ("import pickle\n\npickle.loads(b'')\n", "S301"),
    ],
)
def test_the_linter_catches(code: str, rule: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(code)
    config = str(HERE / "pyproject.toml")
    said = python("-m", "ruff", "check", "--no-cache", "--config", config, str(tmp_path))
    assert said.returncode == 1
    assert rule in said.stdout


def test_the_type_checker_catches_a_wrong_type(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text('def f(a: int) -> str:\n    return a\n\n\nf("x")\n')
    config = str(HERE / "pyproject.toml")
    said = python("-m", "mypy", "--config-file", config, str(tmp_path / "module.py"))
    assert said.returncode == 1
    assert {"[return-value]", "[arg-type]"} <= set(said.stdout.split())


def test_a_wrong_shape_is_caught_at_the_call() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        Volume(np.zeros((4, 4), np.int16), np.eye(4))


def test_a_warning_is_an_error() -> None:
    with pytest.raises(UserWarning):
        warnings.warn("deprecated", stacklevel=1)

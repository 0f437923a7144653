"""The doctor names what is missing and how to get it."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from ray_jobs import doctor


def verdicts(folder: Path, environment: dict[str, str]) -> dict[str, doctor.Finding]:
    return {f.what: f for f in doctor.examine(folder, environment)}


def test_an_unsafe_variable_is_named(tmp_path: Path) -> None:
    found = verdicts(tmp_path, {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"})
    finding = found["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"]
    assert (finding.verdict, finding.remedy) == (
        "missing",
        "unset TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
    )


def test_a_torchvision_of_another_build_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torchvision that fails on import stands in for a mismatched pair."""
    (tmp_path / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = verdicts(tmp_path, {})["torch with torchvision"]
    assert finding.verdict == "missing"
    assert "torchvision::nms does not exist" in finding.detail
    assert "same index" in finding.remedy


def test_a_version_below_its_floor_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doctor.FLOORS, "einops", "99.0")
    monkeypatch.setitem(doctor.FLOORS, "no-such-package", "1.0")
    found = verdicts(tmp_path, {})
    assert "below 99.0" in found["einops"].detail
    assert found["no-such-package"].detail == "not installed"


def test_an_old_python_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    assert verdicts(tmp_path, {})["python"].verdict == "missing"


def test_the_floors_are_those_the_package_declares() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    parts = (re.split(r"(?:\[.*\])?>=", line) for line in project["dependencies"])
    declared = dict(map(tuple, parts))
    assert {name: declared[name] for name in doctor.FLOORS} == doctor.FLOORS


def test_missing_lpips_weights_are_noted_with_where_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = verdicts(tmp_path, {})
    for trunk, user in (("vgg16", "recipe `paper`"), ("alexnet", "`synth-ct evaluate`")):
        finding = found[f"LPIPS weights, {trunk}"]
        assert finding.verdict == "note"
        assert user in finding.detail
        assert f"fetch https://download.pytorch.org/models/{trunk}-" in finding.remedy

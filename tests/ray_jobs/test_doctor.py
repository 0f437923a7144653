"""The doctor names what is missing and how to get it."""

import re
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ray_jobs import doctor
from ray_jobs.recipes import tiny, to_toml
from ray_jobs.report_step import RECIPE
from synth_ct.kit.artifact import Record, publish

AT_ONCE = subprocess.CompletedProcess([], 0, stdout="0\n", stderr="")
"""Of importing torch and torchvision, which takes seconds."""
IN_EARNEST = doctor.import_pair


def verdicts(folder: Path, environment: dict[str, str]) -> dict[str, doctor.Finding]:
    return {f.what: f for f in doctor.examine(folder, environment)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "import_pair", lambda: AT_ONCE)


def test_an_unsafe_variable_is_named(tmp_path: Path) -> None:
    found = verdicts(tmp_path, {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"})
    finding = found["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"]
    assert (finding.verdict, finding.remedy) == (
        "missing",
        "unset TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
    )


def test_whatever_is_not_well_comes_with_what_to_do(tmp_path: Path) -> None:
    nowhere = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
    found = doctor.examine(tmp_path, nowhere | {"MLFLOW_TRACKING_URI": "files"})
    assert len({f.what for f in found}) == len(found)
    assert all(f.remedy for f in found if f.verdict != "ok")
    assert not any(f.remedy for f in found if f.verdict == "ok")
    assert {"Ray token", "MLflow store"} <= {f.what for f in found if f.verdict == "missing"}


def test_a_torchvision_of_another_build_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torchvision that fails on import stands in for a mismatched pair."""
    (tmp_path / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "import_pair", IN_EARNEST)
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


def test_missing_weights_of_lpips_and_fid_are_noted_with_where_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = verdicts(tmp_path, {})
    for trunk, user in (("vgg16", "recipe `paper`"), ("alexnet", "`synth-ct evaluate`")):
        finding = found[f"LPIPS weights, {trunk}"]
        assert finding.verdict == "note"
        assert user in finding.detail
        assert f"fetch https://download.pytorch.org/models/{trunk}-" in finding.remedy
    inception = found["FID weights, Inception"]
    assert (inception.verdict, str(tmp_path) in inception.detail) == ("note", True)
    assert f"fetch https://download.pytorch.org/models/{doctor.INCEPTION}" in inception.remedy
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / doctor.INCEPTION).touch()
    assert verdicts(tmp_path, {})["FID weights, Inception"].verdict == "ok"


# ---- the machine -------------------------------------------------------------------------------


def test_a_gpu_that_torch_does_not_see_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'A100, 81920 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert doctor.gpu("1").verdict == doctor.gpu("").verdict == "ok"
    unseen = doctor.gpu("0")
    assert (unseen.verdict, unseen.detail) == ("note", "A100, 81920 MiB, but torch sees none")
    assert "CUDA_VISIBLE_DEVICES" in unseen.remedy
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert doctor.gpu("").detail == "none"


@pytest.mark.parametrize(("limit", "counted"), [("3000000000", True), ("max", False)])
def test_a_container_has_the_memory_it_may_use(
    limit: str, counted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "limit").write_text(f"{limit}\n")
    monkeypatch.setattr(doctor, "CGROUPS", (tmp_path / "limit", tmp_path / "none"))
    assert (doctor.memory_bytes() == 3_000_000_000) == counted
    assert ("`tiny` needs 6 GB" in doctor.cores_and_memory().remedy) == counted


@pytest.mark.parametrize(("memory", "verdict"), [(10**6, "ok"), (10**21, "note")])
def test_shared_memory_must_hold_what_a_ray_head_takes(
    memory: int, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(doctor, "RAYS_MOST", 10**21)
    monkeypatch.setattr(doctor, "memory_bytes", lambda: memory)
    found = doctor.shared_memory()
    assert found.verdict == verdict
    assert ("--shm-size=" in found.remedy) == (verdict == "note")
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path / "none")
    assert doctor.shared_memory().verdict == "ok"


def test_a_port_that_somebody_has_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((doctor.LOOPBACK, 0)) as server:
        number = server.getsockname()[1]
        monkeypatch.setitem(doctor.PORTS, number, doctor.PORTS[8265])
        taken = doctor.port(number)
    assert (taken.verdict, taken.detail) == ("note", "taken; Ray's dashboard and jobs")
    assert "--dashboard-port" in taken.remedy
    assert doctor.port(number).verdict == "ok"


# ---- what only a person can bring --------------------------------------------------------------


def test_real_data_is_asked_for_by_the_command_that_brings_it(tmp_path: Path) -> None:
    folder = tmp_path / "cohorts" / "ct"
    with publish(folder, Record(kind="cohort", recipe={"importer": "lidc", "seed": 0})):
        pass
    ct, bcv, spleen, films = doctor.data(tmp_path)
    assert (ct.verdict, ct.detail) == ("ok", f"ingested, {folder}")
    assert (bcv.verdict, "recipe `paper`" in bcv.detail) == ("note", True)
    assert bcv.remedy == f"synth-ct ingest bcv SRC {tmp_path}/cohorts/bcv"
    assert "msd-spleen" in spleen.remedy
    assert "chest-xray2017" in films.remedy


def test_data_of_another_importer_will_not_do(tmp_path: Path) -> None:
    recipe = {"importer": "folder", "seed": 0}
    with publish(tmp_path / "cohorts" / "ct", Record(kind="cohort", recipe=recipe)):
        pass
    assert doctor.data(tmp_path)[0].verdict == "missing"


def test_data_are_those_of_the_recipe_that_was_run_there(tmp_path: Path) -> None:
    (tmp_path / RECIPE).write_text(to_toml(tiny()))
    (found,) = doctor.data(tmp_path)
    assert (found.verdict, "`tiny`" in found.detail) == ("ok", True)
    (tmp_path / RECIPE).write_text("name = 'x'")
    assert doctor.data(tmp_path)[0].verdict == "missing"


def test_where_nothing_is_said_paper_has_a_root_of_its_own() -> None:
    assert "SRC runs/paper/cohorts/ct" in doctor.data(doctor.RUNS)[0].remedy


# ---- servers -----------------------------------------------------------------------------------


def test_no_token_is_wanted_where_no_cluster_is_named() -> None:
    assert doctor.ray_token({}).verdict == "ok"
    named = doctor.ray_token({"RAY_ADDRESS": "10.0.0.5:6379"})
    assert (named.verdict, "RAY_AUTH_MODE=token" in named.remedy) == ("note", True)


def test_a_token_must_be_there_and_ours_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    wanted = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
    assert doctor.ray_token(wanted).verdict == "missing"
    file.touch(0o600)
    assert doctor.ray_token(wanted).verdict == "missing"
    file.write_text("secret")
    assert doctor.ray_token(wanted).verdict == "ok"
    file.chmod(0o640)
    assert doctor.ray_token(wanted).remedy == f"chmod 600 {file}"
    assert "secret" not in str(doctor.ray_token(wanted | {"RAY_AUTH_TOKEN": "secret"}))


def test_a_token_is_sought_where_ray_seeks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"{tmp_path}/.ray/auth_token" in doctor.ray_token({"RAY_AUTH_MODE": "token"}).detail


@contextmanager
def server(code: int) -> Iterator[str]:
    """Answers its one request, at `/health`, with that."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code if self.path == "/health" else 500)
            self.end_headers()

        log_message = staticmethod(lambda *_: None)  # type: ignore[assignment]

    with HTTPServer((doctor.LOOPBACK, 0), Answer) as served:
        served.timeout = 3.0  # of waiting for a request that never comes
        thread = threading.Thread(target=served.handle_request)
        thread.start()
        yield f"http://{doctor.LOOPBACK}:{served.server_port}"
        thread.join()


@pytest.mark.parametrize(
    ("code", "verdict"), [(200, "ok"), (401, "ok"), (404, "missing"), (503, "missing")]
)
def test_a_tracking_server_is_asked_whether_it_is_there(
    code: int, verdict: str, tmp_path: Path
) -> None:
    with server(code) as address:
        named = {"MLFLOW_TRACKING_URI": address.replace("//", "//user:secret@")}
        found = doctor.mlflow_store(tmp_path, named)
    assert found.verdict == verdict
    assert ("docs/mlflow.md" in found.remedy) == (verdict == "missing")
    assert "secret" not in f"{found.detail}{found.remedy}"


def test_a_tracking_server_that_is_gone_or_mute_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PATIENCE_S", 0.1)
    with socket.create_server((doctor.LOOPBACK, 0)) as mute:
        named = {"MLFLOW_TRACKING_URI": f"http://{doctor.LOOPBACK}:{mute.getsockname()[1]}"}
        assert "timed out" in doctor.mlflow_store(tmp_path, named).detail
    assert "refused" in doctor.mlflow_store(tmp_path, named).detail


@pytest.mark.parametrize(
    ("uri", "verdict"), [("", "ok"), ("postgresql://u:secret@h/d", "ok"), ("mlruns", "missing")]
)
def test_no_other_store_is_asked(
    uri: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(address: str) -> str:
        raise AssertionError(f"asked {address}")

    monkeypatch.setattr(doctor, "silence", never)
    found = doctor.mlflow_store(tmp_path, {"MLFLOW_TRACKING_URI": uri})
    assert (found.verdict, "secret" in found.detail) == (verdict, False)

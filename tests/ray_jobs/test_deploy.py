"""What operators are handed agrees with what was tested, asks for a token, and runs as nobody."""

import json
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.main import get_command

from ray_jobs.cli import app

HERE = Path(__file__).parents[2]
DEPLOY = HERE / "ray_jobs" / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file())
RAY = re.search(r"^ray==(\S+)$", (HERE / "constraints.txt").read_text(), re.M)
RAYJOB = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())
CLUSTER = yaml.safe_load((DEPLOY / "cluster.yaml").read_text())
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]


def groups() -> list[dict[str, Any]]:
    spec = RAYJOB["spec"]["rayClusterSpec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def test_versions_are_those_that_were_tested() -> None:
    assert RAY
    assert RAYJOB["spec"]["rayClusterSpec"]["rayVersion"] == RAY[1]
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups()}
    images.add(CLUSTER["docker"]["image"].rpartition("/")[2])
    assert images == {f"synth-ct:{PROJECT['version']}"}
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert "--constraint constraints.txt" in dockerfile
    python = re.search(r"^FROM python:(\S+)-slim$", dockerfile, re.M)
    assert python
    assert PROJECT["requires-python"] == f">={python[1]}"
    copied = re.findall(r"^COPY (\w+) \1$", dockerfile, re.M)
    pyproject = tomllib.loads((HERE / "pyproject.toml").read_text())
    packages = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(copied) == sorted(packages)


def test_every_way_in_asks_for_a_token() -> None:
    assert RAYJOB["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "--env RAY_AUTH_MODE=token" in CLUSTER["docker"]["run_options"]
    for name in ("Dockerfile", "head.sh"):
        assert "RAY_AUTH_MODE=token" in (DEPLOY / name).read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_listens_everywhere_or_ends_what_others_started(file: Path) -> None:
    text = file.read_text()
    assert "0.0.0.0" not in text
    assert not re.search(r"--dashboard-host=(?!127\.0\.0\.1)", text)
    assert not re.search(r"\bray\s+stop\b", text)


def test_nobody_is_root() -> None:
    for group in groups():
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
    users = re.findall(r"^USER (\S+)$", (DEPLOY / "Dockerfile").read_text(), re.M)
    assert users == ["1000:1000"]


def test_all_pods_see_one_file_system_and_the_entry_point_is_on_it() -> None:
    for group in groups():
        pod = group["template"]["spec"]
        claims = {v["name"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
        mounts = {
            m["mountPath"] for m in pod["containers"][0]["volumeMounts"] if m["name"] in claims
        }
        assert mounts == {"/data"}
    words = RAYJOB["spec"]["entrypoint"].split()
    assert words[:4] == ["python", "-m", "ray_jobs", "generate"]
    assert [w for w in words if "/" in w] == ["/data/chest_xray", "/data/corpus", "/data/paper"]
    assert "--wait-gpus" in words, "its GPUs are not there when it begins"
    understood = {name for p in get_command(app).commands["generate"].params for name in p.opts}
    assert {word for word in words if word.startswith("--")} <= understood


def test_the_cluster_file_satisfies_rays_own_schema() -> None:
    """Read as a file: importing Ray here would fix what it listens on for every later test."""
    ray = find_spec("ray")
    assert ray is not None
    assert ray.submodule_search_locations is not None
    schema = Path(ray.submodule_search_locations[0]) / "autoscaler" / "ray-schema.json"
    jsonschema.validate(CLUSTER, json.loads(schema.read_text()))
    assert CLUSTER["head_node_type"] in CLUSTER["available_node_types"]
    assert CLUSTER["head_start_ray_commands"]
    assert CLUSTER["worker_start_ray_commands"]

"""A generator trained in ten pieces, each ended by kill -9, is the one trained at once."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 10
PARTS = ("autoencoder", "prior", "denoiser", "style", "generator")
LOOK_EVERY_S = 0.02
SMALLER = {
    "cohorts.ct.count": 12,
    "cohorts.bcv.count": 2,
    "cohorts.spleen.count": 2,
    "generator.style.training.steps": 40,
}


def start(root: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ray_jobs", "run", "tiny", "--root", str(root)]
    command += ["--until", "generator", "--workers", "2", "--json"]
    command += [word for name, value in SMALLER.items() for word in ("--set", f"{name}={value}")]
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def finished(root: Path) -> list[str]:
    """The statuses of a run that nobody ends."""
    process = start(root)
    answer, _ = process.communicate()
    assert process.returncode == 0
    return [step["status"] for step in json.loads(answer)["steps"]]


def state(root: Path) -> set[tuple[str, int]]:
    """Files and their sizes: changes with every row, checkpoint and volume."""
    found = set()
    for path in root.rglob("*"):
        try:
            found.add((str(path), path.stat().st_size))
        except FileNotFoundError:
            continue  # renamed meanwhile
    return found


def kill_after(process: subprocess.Popen[bytes], root: Path, changes: int) -> None:
    """Counted in what it writes, not in seconds: a slow machine is killed as far on as a fast."""
    before = state(root)
    while changes > 0:
        time.sleep(LOOK_EVERY_S)
        assert process.poll() is None, "it finished between kills: give it more to do"
        now = state(root)
        changes -= len(now - before)
        before = now
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def weights(root: Path) -> dict[str, str]:
    found = [path for part in PARTS for path in sorted((root / part).rglob("*.safetensors"))]
    outside = [path for path in found if "checkpoints" not in path.parts]
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in outside
    }


@pytest.mark.chaos
def test_a_generator_killed_ten_times_is_the_one_trained_at_once(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert set(finished(whole)) == {"made"}
    chance, places = random.Random(0), set[str]()
    for _ in range(KILLS):
        process = start(killed)
        kill_after(process, killed, chance.randint(1, 100))
        places |= {path.parent.name for path in killed.glob("*/*.partial")}
    assert len(places & set(PARTS)) >= 2, "all kills fell on one training"
    assert "made" in finished(killed)
    assert weights(killed) == weights(whole)
    assert {path.split("/")[0] for path in weights(killed)} == set(PARTS)
    assert not list(killed.rglob("*.partial"))
    assert set(finished(killed)) == {"done"}

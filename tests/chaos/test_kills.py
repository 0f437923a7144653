"""Long proofs by killing: what a run made in pieces equals what it makes at once."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synth_ct.phantom.recipe import phantom_files

KILLS = 20
COUNT = 120


def start(out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ray_jobs", "phantoms", str(out), "--kind", "abdomen"]
    command += ["--count", str(COUNT), "--size", "32", "--workers", "2"]
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.mark.chaos
def test_twenty_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    assert start(tmp_path / "whole").wait() == 0
    chance, kills = random.Random(0), 0
    while kills < KILLS:
        process = start(tmp_path / "killed")
        time.sleep(chance.uniform(1.0, 6.0))
        assert process.poll() is None, "it finished between kills: raise COUNT"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed").exists()
        kills += 1
    assert start(tmp_path / "killed").wait() == 0
    assert phantom_files(tmp_path / "killed") == phantom_files(tmp_path / "whole")
    index = [(tmp_path / n / "cases.jsonl").read_bytes() for n in ("killed", "whole")]
    assert index[0] == index[1]
    assert not list((tmp_path / "killed").rglob("*.tmp.*"))

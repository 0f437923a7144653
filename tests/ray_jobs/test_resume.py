"""Trainings that are stopped, by a failure or by SIGTERM, go on to the very same bytes.

And no network of `tiny` takes torch's slow path of three-dimensional convolution, neither while it
is trained nor while it makes volumes.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ray_jobs import plan
from ray_jobs.plan import Result, Step
from ray_jobs.recipes import tiny, with_settings
from ray_jobs.steps import steps_of
from synth_ct.generate import XctDiff, generate
from synth_ct.kit import effort
from synth_ct.kit.effort import Effort
from synth_ct.kit.progress import Tick
from synth_ct.learners.autoencoder import load_autoencoder
from synth_ct.learners.denoiser import load_denoiser
from synth_ct.learners.prior import load_prior
from synth_ct.learners.style import load_style

LEARNERS = ("autoencoder", "prior", "denoiser", "style")
STEPS = 6
SLOW = "aten::slow_conv3d_forward"

Begin = Callable[[int], Tick]


def begin_quietly(total: int) -> Tick:
    return lambda done=1, note="", /: None


def steps(count: int) -> list[Step]:
    """The trainings of `tiny` and what they need, of few phantoms and in few steps."""
    few = [f"generator.{part}.training.steps={count}" for part in LEARNERS]
    few += [f"generator.{part}.training.rate.warmup_steps=0" for part in LEARNERS]
    few += [f"generator.autoencoder.adversary.start={count // 3}", "cohorts.ct.count=8"]
    needless = ("cohorts/bcv", "cohorts/spleen", "generator/tiny")
    every = plan.until(steps_of(with_settings(tiny(), few)), "generator")
    return [step for step in every if step.name not in needless]


def made(
    root: Path, count: int = STEPS, begin: Callable[[str], Begin] = lambda name: begin_quietly
) -> list[Result]:
    return plan.run(steps(count), root, lambda name: Effort(begin=begin(name)))


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the command line: without the types checked it takes a third of the time."""
    root = tmp_path_factory.mktemp("cohorts")
    command = [sys.executable, "-m", "ray_jobs", "run", "tiny", "--root", str(root)]
    command += ["--until", "cohorts", "--workers", "0"]
    fewer = ("ct.count=8", "bcv.count=1", "spleen.count=1")
    command += [word for few in fewer for word in ("--set", f"cohorts.{few}")]
    subprocess.run(command, check=True, capture_output=True)
    return root / "cohorts"


@pytest.fixture
def root(cohorts: Path, tmp_path: Path) -> Path:
    """Where nothing but cohorts is made yet."""
    shutil.copytree(cohorts, tmp_path / "cohorts")
    return tmp_path


def digests(root: Path) -> dict[str, str]:
    """Of all that is finished, records included; these hash files in their turn."""
    found = sorted(p for p in root.rglob("*") if p.name.endswith((".safetensors", "curve.jsonl")))
    found += sorted(root.rglob("record.json"))
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found
    }


class PowerCut(Exception):
    """Not an error of ours."""


class Stopper:
    """Sends SIGTERM at step 2 of each training, and cuts the power at step 5."""

    def __init__(self) -> None:
        self.stopped: set[tuple[str, int]] = set()

    def begin(self, name: str) -> Begin:
        def begin(total: int) -> Tick:
            now = 0

            def tick(done: int = 1, note: str = "", /) -> None:
                nonlocal now
                now += done
                here = (name, now)
                trains = callable(signal.getsignal(signal.SIGTERM))  # the loop's own handler
                if not trains or now not in (2, 5) or here in self.stopped:
                    return
                self.stopped.add(here)
                if now == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                if now == 5:
                    raise PowerCut

            return tick

        return begin


def test_every_training_stopped_twice_ends_in_the_same_bytes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effort, "TIMES_BETWEEN", 2)
    undisturbed, stopper, stops = root / "undisturbed", Stopper(), 0
    shutil.copytree(root / "cohorts", undisturbed / "cohorts")
    made(undisturbed)
    stopped = root
    while True:
        try:
            made(stopped, begin=stopper.begin)
            break
        except (PowerCut, SystemExit):
            stops += 1
    assert stops == 2 * len(LEARNERS)
    expected = digests(undisturbed)
    shutil.rmtree(undisturbed)
    assert digests(stopped) == expected
    assert {result.status for result in made(stopped)} == {"done"}


def xctdiff(root: Path) -> XctDiff:
    """What `tiny` makes volumes with; for a finished generator too few CTs were trained on."""
    recipe, device = tiny().generator, torch.device("cpu")
    return XctDiff(
        style=load_style(recipe.style, root / "style/tiny", device),
        prior=load_prior(recipe.prior, root / "prior/tiny", device),
        denoiser=load_denoiser(recipe.denoiser, root / "denoiser/tiny", device),
        prior_decoder=None,
        autoencoder=load_autoencoder(recipe.autoencoder, root / "autoencoder/tiny", device),
        diffusion=recipe.denoiser.diffusion,
        sampler=recipe.sampler,
        micro_batch=recipe.micro_batch,
    )


def test_no_step_of_tiny_takes_the_slow_convolution(root: Path) -> None:
    """Kernels of one voxel take it on one thread, where it is the faster: a product of matrices,
    for which there is nothing to unfold.
    """
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as seen:
        made(root, count=1)
        generate(xctdiff(root), torch.zeros(1, 1, 32, 32), [0])
    weights = {
        name: {tuple(e.input_shapes[1][2:]) for e in seen.events() if e.name == name}
        for name in ("aten::mkldnn_convolution", SLOW)
    }
    assert (3, 3, 3) in weights["aten::mkldnn_convolution"]
    assert weights[SLOW] <= {(1, 1, 1)}

"""Small made-up things that several tests want, and the real images where they are to hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from corpora import make_corpus
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("steady", derandomize=True, deadline=None)  # no run by luck or load
settings.load_profile("steady")


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Thirty items: 23 volumes, 4 rejected, 3 quarantined. May be damaged."""
    make_corpus(tmp_path / "corpus", range(30))
    return tmp_path / "corpus"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real images: `SYNTH_CT_REAL_DATA`, or `shared/data` beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SYNTH_CT_REAL_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no real images here: set SYNTH_CT_REAL_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def generator_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run that trained everything for a step or two. To be read, not written."""
    from ray_jobs import plan
    from ray_jobs.recipes import tiny, with_settings
    from ray_jobs.steps import steps_of
    from synth_ct.kit.effort import Effort

    few = [
        f"generator.{part}.training.{setting}"
        for part in ("autoencoder", "prior", "denoiser", "style")
        for setting in ("steps=2", "rate.warmup_steps=0")
    ]
    few += ["generator.autoencoder.adversary.start=1", "generator.sampler.evaluations=2"]
    run = with_settings(tiny(), [*few, "cohorts.ct.count=20"])
    root = tmp_path_factory.mktemp("generator")
    needless = ("cohorts/bcv", "cohorts/spleen")
    made = [step for step in steps_of(run) if step.name not in needless]
    plan.run(plan.until(made, "generator"), root, lambda name: Effort())
    return root

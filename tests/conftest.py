"""Small made-up things that several tests want, and the real images where they are to hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
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


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real images: `SYNTH_CT_REAL_DATA`, or `shared/data` beside the checkout."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SYNTH_CT_REAL_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no real images here: set SYNTH_CT_REAL_DATA to their folder")
    return folder

"""A truth and what a generator might make of it."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from synth_ct.models.perceptual import LpipsDistance
from synth_ct.phantom import make_phantom


@pytest.fixture(scope="session", name="truth_XYZ")
def truth() -> np.ndarray:
    """A phantom chest with the voxels of a cheap scan, not a cube; some of it above the window."""
    return make_phantom("chest", 3, 32).ct.array_XYZ[2:30, 1:, :]


@pytest.fixture(scope="session", name="made_XYZ")
def made(truth_XYZ: np.ndarray) -> np.ndarray:
    """Blurred and noisy, as floats between whole numbers."""
    noise = np.random.default_rng(0).normal(0, 60, truth_XYZ.shape)
    return ndimage.gaussian_filter(truth_XYZ.astype(np.float32), 1) + noise.astype(np.float32)


class Halved(LpipsDistance):
    """Half the mean difference in place of features, so that the sum over slices shows."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.register_buffer("shift_C11", torch.zeros(1))

    def forward(self, a_N1HW: Tensor, b_N1HW: Tensor) -> Tensor:
        return (a_N1HW - b_N1HW).mean() / 2


@pytest.fixture
def halved() -> LpipsDistance:
    return Halved()

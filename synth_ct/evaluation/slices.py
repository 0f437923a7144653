"""Volumes as slices, for networks trained on photographs: grey in [-1, 1], three planes."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from synth_ct.kit.axes import HuArray
from synth_ct.kit.volume import window

BATCH = 32


def plane_slices(hu_XYZ: HuArray, every: int) -> Iterator[Tensor]:
    """Sagittal, then coronal, then axial slices, one in `every`, as batches N1HW in [-1, 1].

    The first is half a stride from the face of the volume, so every stride looks at the middle.
    """
    grey_XYZ = torch.from_numpy(np.ascontiguousarray(window(hu_XYZ)))
    for axis in range(3):
        slices_NHW = grey_XYZ.movedim(axis, 0)[every // 2 :: every]
        yield from slices_NHW[:, None].split(BATCH)

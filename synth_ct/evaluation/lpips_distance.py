"""LPIPS (Zhang et al. 2018) of two volumes: the mean over slices of the three planes.

The weights lie on this machine or there is no LPIPS: a row then has none and says why. The network
of random features that training may use is another measure, and its type is not accepted here.
"""

from pathlib import Path
from typing import NamedTuple

import torch

from synth_ct.evaluation.slices import plane_slices
from synth_ct.kit.axes import HuArray
from synth_ct.models.perceptual import LpipsDistance, TrunkName, demand_weights


class LocalLpips(NamedTuple):
    """The measure, or why there is none."""

    measure: LpipsDistance | None
    absent: str = ""


def local_lpips(trunk: TrunkName, file: Path | None, device: torch.device) -> LocalLpips:
    """Look for the trunk's weights, in torch's cache where no file is named.

    A file that was named must be there, and one that is there must be whole.
    """
    try:
        weights = demand_weights("lpips", trunk, file)
    except ValueError as error:
        if file is not None:
            raise
        return LocalLpips(None, str(error))
    assert weights is not None  # only `none` and `random` need no file
    return LocalLpips(LpipsDistance(trunk, weights).requires_grad_(False).eval().to(device))


@torch.inference_mode()
def lpips_distance(
    made_XYZ: HuArray, truth_XYZ: HuArray, measure: LpipsDistance, every: int = 1
) -> float:
    """Mean LPIPS of the slices, one in `every`, windowed to [-1, 1]."""
    device = measure.get_buffer("shift_C11").device
    pairs = zip(plane_slices(made_XYZ, every), plane_slices(truth_XYZ, every), strict=True)
    total, count = 0.0, 0
    for made_N1HW, truth_N1HW in pairs:
        mean = measure(made_N1HW.to(device), truth_N1HW.to(device))
        total, count = total + float(mean) * len(made_N1HW), count + len(made_N1HW)
    return total / count

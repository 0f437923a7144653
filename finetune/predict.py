"""From a trained segmentation network and a case to a label map in the case's own geometry.

The case is shown as in training, window by window; what the windows say of a voxel is averaged with
Gaussian weights. Class probabilities, not labels, are then carried back to the case's own grid.
"""

from collections.abc import Callable
from itertools import starmap
from math import ceil
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from pydantic import Field
from torch import Tensor, nn

from finetune.shown import Shown, placed_as_shown
from synth_ct.kit.axes import Affine, Grid, HuArray, LabelArray
from synth_ct.kit.recipe import Recipe
from synth_ct.kit.volume import LabelMap, Volume, to_ras

PADDING = -1.0
"""What surrounds a volume smaller than the crop: the lower end of the window."""
SLAB_VOXELS = 2**21
"""Of the case's grid at a time. Beside the logits on the network's grid and the labels themselves,
that takes 17 bytes a voxel, however many classes: 36 MB, where 14 classes at 512 x 512 x 150 would
be 2.2 GB. The slab's probabilities on the network's grid come on top."""


class Inference(Recipe):
    """How a case is cut into windows."""

    overlap: float = Field(default=0.25, ge=0, lt=1)
    """Of neighbouring windows at least, as a share of their side: docs/results/predict_overlap.md
    measures it."""
    windows_at_once: int = Field(default=4, ge=1)


def predict(
    network: nn.Module,
    volume: Volume,
    shown: Shown,
    crop_XYZ: Grid,
    inference: Inference,
    device: torch.device,
) -> LabelMap:
    """The likeliest class of every voxel of the case; the network lies on `device` already."""
    upright = to_ras(volume)
    seen = placed_as_shown(upright, shown)
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        logits_CXYZ = slide(network, seen.array_XYZ, crop_XYZ, inference, device)
        labels_XYZ = likeliest(logits_CXYZ, lines_between(seen, upright))
    network.train(was_training)
    return turned_like(LabelMap(labels_XYZ, upright.affine), volume.affine)


# ---- windows -----------------------------------------------------------------------------------


def slide(
    network: nn.Module,
    seen_XYZ: HuArray,
    crop_XYZ: Grid,
    inference: Inference,
    device: torch.device,
) -> Tensor:
    """sum_w g_w f(x_w) / sum_w g_w over windows w with Gaussian weights g, of each class."""
    logits_BCXYZ = sliding_window_inference(
        torch.from_numpy(seen_XYZ).to(device)[None, None],
        crop_XYZ,
        inference.windows_at_once,
        answering(network),
        overlap=even_overlaps(seen_XYZ.shape, crop_XYZ, inference.overlap),
        mode="gaussian",
        cval=PADDING,
    )
    assert isinstance(logits_BCXYZ, Tensor)
    if not logits_BCXYZ.sum().isfinite():
        raise ValueError(
            "the network answers this case with NaN or infinity, so that no class is the "
            "likeliest; look at the curve of its training, and train it again at a lower rate"
        )
    return logits_BCXYZ[0]


def even_overlaps(grid: Grid, crop: Grid, least: float) -> tuple[float, ...]:
    """k = ceil((n - c) / (c (1 - least))) steps an axis, each of ceil((n - c) / k) voxels.

    With steps of the least overlap the last window would be pushed back over its neighbour, and
    the other seams would have gained nothing.
    """
    overlaps = []
    for n, c in zip(grid, crop, strict=True):
        longest = max(1, int(c * (1 - least)))
        steps = max(1, ceil((n - c) / longest))
        step = max(1, ceil((n - c) / steps))
        overlaps.append(max(0.0, 1 - (step + 0.5) / c))  # the half survives MONAI's rounding down
    return tuple(overlaps)


def answering(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network in the arithmetic of its device, its answers in float32."""

    def answer(windows_B1XYZ: Tensor) -> Tensor:
        kind, count = windows_B1XYZ.device.type, len(windows_B1XYZ)
        if kind == "cpu" and count == 1:  # alone, it would take PyTorch's slow convolution
            windows_B1XYZ = windows_B1XYZ.repeat(2, 1, 1, 1, 1)
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            logits_BCXYZ: Tensor = network(windows_B1XYZ)
        return logits_BCXYZ[:count].float()

    return answer


# ---- back to the case's grid -------------------------------------------------------------------


class Line(NamedTuple):
    """Where the voxels along one axis of a grid lie between those of another."""

    low: Tensor
    high: Tensor
    share: Tensor
    """Of `high`; the rest is `low`'s."""

    def part(self, start: int, stop: int) -> "Line":
        """Some voxels of it."""
        return Line(*(each[start:stop] for each in self))


def lines_between(source: Volume, target: Volume) -> tuple[Line, Line, Line]:
    """Of each axis of the target; both grids have the same directions."""
    steps = np.linalg.inv(source.affine) @ target.affine
    shape, source_shape = target.array_XYZ.shape, source.array_XYZ.shape
    turned = np.abs(steps[:3, :3] - np.diag(np.diag(steps)[:3])) @ np.array(shape)
    assert turned.max() < 1e-2, "the grids have different directions"
    axes = zip(np.diag(steps), steps[:3, 3], shape, source_shape, strict=False)
    x, y, z = starmap(_line, axes)
    return x, y, z


def _line(step: float, first: float, count: int, length: int) -> Line:
    """Positions first + step i; beyond the source's centres its last voxel counts."""
    place = np.clip(first + step * np.arange(count), 0, length - 1)
    low = np.minimum(np.floor(place), max(length - 2, 0))
    high = np.minimum(low + 1, length - 1)
    share = torch.from_numpy((place - low).astype(np.float32))
    return Line(torch.from_numpy(low).long(), torch.from_numpy(high).long(), share)


def likeliest(
    logits_CXYZ: Tensor, lines: tuple[Line, Line, Line], slab_voxels: int = SLAB_VOXELS
) -> LabelArray:
    """argmax_c of the interpolated softmax, slab by slab."""
    line_x, line_y, line_z = (Line(*(t.to(logits_CXYZ.device) for t in line)) for line in lines)
    shape = (len(line_x.low), len(line_y.low), len(line_z.low))
    planes = max(1, slab_voxels // (shape[1] * shape[2]))
    labels_XYZ = np.empty(shape, np.uint8)
    for start in range(0, shape[0], planes):
        stop = min(start + planes, shape[0])
        line = line_x.part(start, stop)
        first, last = int(line.low[0]), int(line.high[-1])
        line = Line(line.low - first, line.high - first, line.share)
        slab_XYZ = _likeliest_of_slab(logits_CXYZ[:, first : last + 1], (line, line_y, line_z))
        labels_XYZ[start:stop] = slab_XYZ.cpu().numpy()
    return labels_XYZ


def _likeliest_of_slab(logits_CXYZ: Tensor, lines: tuple[Line, Line, Line]) -> Tensor:
    """A running maximum over classes; of equal ones the first."""
    probability_CXYZ = logits_CXYZ.softmax(0)
    best_XYZ = interpolated(probability_CXYZ[0], lines)
    label_XYZ = torch.zeros_like(best_XYZ, dtype=torch.uint8)
    for label in range(1, len(probability_CXYZ)):
        value_XYZ = interpolated(probability_CXYZ[label], lines)
        label_XYZ.masked_fill_(value_XYZ > best_XYZ, label)
        torch.maximum(best_XYZ, value_XYZ, out=best_XYZ)
        del value_XYZ  # before the next one is made
    return label_XYZ


def interpolated(values_XYZ: Tensor, lines: tuple[Line, Line, Line]) -> Tensor:
    """(1 - s) v[low] + s v[high] along Z, then Y, then X, where most of the work is contiguous."""
    for axis in (2, 1, 0):
        low, high, share = lines[axis]
        shape = [-1 if a == axis else 1 for a in range(3)]
        after_XYZ = values_XYZ.index_select(axis, high)
        values_XYZ = values_XYZ.index_select(axis, low).lerp_(after_XYZ, share.view(shape))
    return values_XYZ


def turned_like(upright: LabelMap, affine: Affine) -> LabelMap:
    """From RAS+ to the order and directions of axes of an affine: the inverse of `to_ras`."""
    ras = nib.orientations.axcodes2ornt("RAS")
    turns = nib.orientations.ornt_transform(ras, nib.orientations.io_orientation(affine))
    turned_XYZ = nib.orientations.apply_orientation(upright.array_XYZ, turns)
    return LabelMap(np.ascontiguousarray(turned_XYZ), affine)

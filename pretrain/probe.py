"""Is there anything in the features? A small question that needs no labels.

From the pooled features of a crop, ridge regression says where in its volume the crop was. Fitted
on training patients, measured on others: R^2 = 1 - sum |p - p'|^2 / sum |p - mean p|^2, and an
interval over volumes. An untrained backbone answers it to some degree; a trained one should better.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pretrain.backbones import Backbone
from synth_ct.cohort import Split
from synth_ct.corpus import Cache, Corpus, Volumes
from synth_ct.kit.axes import Grid
from synth_ct.kit.seeds import numpy_random
from synth_ct.kit.volume import WINDOW_HU

DRAWS = 500
RIDGE = 1e-2
"""Relative to the mean variance of a feature."""


class Placed(NamedTuple):
    """Crops, where each was in its volume, and of which volume it is."""

    ct_N1XYZ: Tensor
    place_N3: np.ndarray
    """Of the centre, in [-1, 1] along each axis."""
    volume_N: np.ndarray

    def to(self, device: torch.device) -> "Placed":
        """The crops on a device."""
        return self._replace(ct_N1XYZ=self.ct_N1XYZ.to(device))


class Misses(NamedTuple):
    """Squares summed over the crops of each volume that was asked about."""

    wrong_V: np.ndarray
    """|p - p'|^2"""
    spread_V: np.ndarray
    """|p - mean p|^2"""


class Answer(NamedTuple):
    """R^2, or a difference of two, with a bootstrap interval over volumes."""

    r2: float
    low: float
    high: float


def misses(backbone: Backbone, fitted_on: Placed, asked: Placed) -> Misses:
    """Fit on some volumes, ask about others."""
    was_training = backbone.training
    backbone.eval()
    known, unknown = features(backbone, fitted_on.ct_N1XYZ), features(backbone, asked.ct_N1XYZ)
    backbone.train(was_training)
    guess_N3 = ridge(known, fitted_on.place_N3, unknown)
    wrong_N = ((asked.place_N3 - guess_N3) ** 2).sum(1)
    centre_3 = fitted_on.place_N3.mean(0)
    spread_N = ((asked.place_N3 - centre_3) ** 2).sum(1)
    volumes, member_N = np.unique(asked.volume_N, return_inverse=True)
    wrong_V, spread_V = (
        np.bincount(member_N, each_N, len(volumes)) for each_N in (wrong_N, spread_N)
    )
    return Misses(wrong_V, spread_V)


def answer(found: Misses, seed: int) -> Answer:
    """R^2 over all crops."""
    return _with_interval(found.wrong_V, found.spread_V, seed)


def gain(before: Misses, after: Misses, seed: int) -> Answer:
    """R^2 after - R^2 before on the same crops: volumes are drawn for both at once."""
    assert np.array_equal(before.spread_V, after.spread_V), "other crops were asked about"
    return _with_interval(after.wrong_V - before.wrong_V, after.spread_V, seed, base=0.0)


def _with_interval(
    wrong_V: np.ndarray, spread_V: np.ndarray, seed: int, base: float = 1.0
) -> Answer:
    """base - sum wrong / sum spread, and where it lies in 95 of 100 redraws of the volumes."""
    drawn_DV = numpy_random(seed, "probe").integers(0, len(wrong_V), (DRAWS, len(wrong_V)))
    redrawn_D = base - wrong_V[drawn_DV].sum(1) / spread_V[drawn_DV].sum(1)
    low, high = np.percentile(redrawn_D, (2.5, 97.5))
    return Answer(float(base - wrong_V.sum() / spread_V.sum()), float(low), float(high))


def placed_crops(
    corpus: Corpus,
    split: Split,
    crop_XYZ: Grid,
    count: int,
    seed: int,
    window_hu: tuple[float, float] = WINDOW_HU,
) -> Placed:
    """Crops of half a volume's sides, at random, brought to the size the backbone is given.

    Smaller than what it was trained on, so that there is somewhere to be.
    """
    volumes = Volumes(corpus, split, cache=Cache(), window_hu=window_hu)
    random = numpy_random(seed, f"probe {split}")
    crops, places, numbers = [], [], random.integers(0, len(volumes), count)
    for number in numbers.tolist():
        shape = np.array(volumes.shape(number))
        half = np.maximum(shape // 2, 1)
        corner = random.integers(0, shape - half + 1)
        x, y, z = corner.tolist()
        sx, sy, sz = half.tolist()
        ct_1XYZ = volumes.item(number, volumes.read(number, (x, y, z), (sx, sy, sz))).ct_1XYZ
        crops.append(interpolate(ct_1XYZ[None], size=crop_XYZ, mode="trilinear")[0])
        places.append((2 * corner + half) / shape - 1)
    return Placed(torch.stack(crops), np.array(places), numbers)


@torch.no_grad()
def features(backbone: Backbone, ct_N1XYZ: Tensor) -> np.ndarray:
    """Mean over the voxels of every map, side by side: N rows."""
    rows = []
    for part in ct_N1XYZ.split(2):
        maps = backbone.encode(part)
        rows.append(torch.cat([m.flatten(2).mean(2) for m in maps], dim=1).float().cpu())
    return torch.cat(rows).double().numpy()


def ridge(known_NF: np.ndarray, place_N3: np.ndarray, unknown_MF: np.ndarray) -> np.ndarray:
    """p' = mean p + z' (Z^T Z + r n I)^-1 Z^T (p - mean p), features z standardised."""
    centre, scale = known_NF.mean(0), known_NF.std(0)
    scale = np.where(scale > 1e-12, scale, np.inf)  # a feature that never varies says nothing
    z_NF, z_MF = (known_NF - centre) / scale, (unknown_MF - centre) / scale
    gram_NN = z_NF @ z_NF.T + RIDGE * z_NF.shape[1] * np.eye(len(z_NF))
    weights_N3 = np.linalg.solve(gram_NN, place_N3 - place_N3.mean(0))
    return np.asarray(place_N3.mean(0) + z_MF @ (z_NF.T @ weights_N3))

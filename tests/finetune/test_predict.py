"""Prediction: what a network says of each voxel arrives at that voxel of the case's own grid."""

import weakref
from dataclasses import replace
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from finetune.predict import Inference, even_overlaps, likeliest, lines_between, predict, slide
from finetune.shown import Shown
from synth_ct.kit.axes import Grid, HuArray, Millimetres3
from synth_ct.kit.volume import AIR_HU, LabelMap, Volume, centred_affine, resample, window

CPU = torch.device("cpu")
HU = (-400.0, 200.0, 800.0)
"""Of the classes 0, 1, 2."""
CROP = (16, 16, 16)


class Threshold(nn.Module):
    """The class whose HU a voxel has nearly, voxel by voxel: no window can be told from another."""

    def forward(self, ct_B1XYZ: Tensor) -> Tensor:
        middles = window(np.array([[[(a + b) / 2 for a, b in pairwise(HU)]]])).ravel()
        class_BXYZ = torch.bucketize(ct_B1XYZ[:, 0], torch.from_numpy(middles))
        return 20 * nn.functional.one_hot(class_BXYZ, len(HU)).movedim(-1, 1).float()


class Copy(nn.Module):
    """Says what it is shown, and remembers how many windows that were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    def forward(self, ct_B1XYZ: Tensor) -> Tensor:
        self.counts.append(len(ct_B1XYZ))
        return ct_B1XYZ.clone()


class RisingToTheRight(nn.Module):
    """Class 1 where the next voxel along X is brighter."""

    def forward(self, ct_B1XYZ: Tensor) -> Tensor:
        rise_B1XYZ = torch.diff(ct_B1XYZ, dim=2, append=ct_B1XYZ[:, :, -1:])
        return torch.cat((torch.full_like(rise_B1XYZ, 0.1), rise_B1XYZ), dim=1)


def body(shape: Grid, spacing: Millimetres3 = (2.0, 2.0, 2.0)) -> tuple[Volume, LabelMap]:
    """An ellipsoid, and a ball in it that lies to the right, in front and above."""
    affine = centred_affine(shape, spacing)
    world_XYZ3 = np.moveaxis(np.indices(shape), 0, -1) * np.array(spacing) + affine[:3, 3]
    half = np.array(shape) * np.array(spacing) / 2
    outer_XYZ = (world_XYZ3 / (0.8 * half)) ** 2
    inner_XYZ = ((world_XYZ3 - 0.3 * half) / (0.35 * half)) ** 2
    label_XYZ = (outer_XYZ.sum(-1) < 1).astype(np.uint8) + (inner_XYZ.sum(-1) < 1)
    labels = LabelMap(label_XYZ.astype(np.uint8), affine)
    return Volume(np.array(HU)[labels.array_XYZ].astype(np.int16), affine), labels


def predicted(volume: Volume, spacing: Millimetres3 = (2.0, 2.0, 2.0), **how: Any) -> LabelMap:
    network = how.pop("network", Threshold())
    return predict(network, volume, Shown(spacing_mm=spacing), CROP, Inference(**how), CPU)


def random_hu(shape: Grid, seed: int = 0) -> HuArray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


# ---- windows -----------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("shape", [(33, 16, 21), (9, 40, 17), (5, 6, 7)])
def test_weights_of_overlapping_windows_sum_to_one(shape: Grid, overlap: float) -> None:
    seen_XYZ = random_hu(shape)
    found = [slide(Copy(), seen_XYZ, CROP, Inference(overlap=overlap), CPU) for _ in range(2)]
    np.testing.assert_allclose(found[0][0], seen_XYZ, atol=1e-6)
    assert torch.equal(*found)


def test_the_window_in_whose_middle_a_voxel_lies_decides() -> None:
    class FromMiddle(nn.Module):
        def forward(self, ct_B1XYZ: Tensor) -> Tensor:
            away_X = (torch.arange(CROP[0]) - (CROP[0] - 1) / 2).abs()
            return away_X.view(-1, 1, 1).expand_as(ct_B1XYZ).clone()

    seen_XYZ = np.zeros((24, 16, 16), np.float32)  # windows from 0 and from 8
    away_CXYZ = slide(FromMiddle(), seen_XYZ, CROP, Inference(overlap=0.5), CPU)
    assert away_CXYZ[0, [7, 8, 15, 16], 8, 8].max() < 0.6  # in one's middle, at 7.5 of the other


@pytest.mark.parametrize("least", [0.0, 0.25, 0.5, 0.97])
def test_windows_overlap_evenly_and_at_least_as_asked(least: float) -> None:
    for n, c in [(64, 24), (333, 96), (97, 96), (96, 96), (40, 96), (192, 96), (50, 16)]:
        (overlap,) = set(even_overlaps((n, n, n), (c, c, c), least))
        longest = max(1, int(c * (1 - least)))
        steps = [int(c * (1 - o)) or 1 for o in (overlap, least)]
        counts = [ceil(max(0, n - c) / step) + 1 for step in steps]
        assert 0 <= overlap < 1
        assert steps[0] <= longest or n <= c
        assert counts[0] == counts[1]
        assert (counts[0] - 1) * steps[0] - max(0, n - c) < max(2, counts[0] - 1)


def test_what_a_small_volume_lacks_is_the_lower_end_of_the_window() -> None:
    class LeastOfWindow(nn.Module):
        def forward(self, ct_B1XYZ: Tensor) -> Tensor:
            return ct_B1XYZ.amin((2, 3, 4), keepdim=True).expand_as(ct_B1XYZ).clone()

    inside_XYZ = np.zeros((16, 16, 15), np.float32)
    assert slide(LeastOfWindow(), inside_XYZ, CROP, Inference(), CPU).unique() == -1


def test_a_window_is_never_alone_on_a_processor() -> None:
    network = Copy()
    seen_XYZ = random_hu((40, 16, 16))  # three windows
    slide(network, seen_XYZ, CROP, Inference(windows_at_once=2), CPU)
    slide(network, seen_XYZ, CROP, Inference(windows_at_once=1), CPU)
    assert network.counts == [2, 2, 2, 2, 2]


def test_how_many_windows_go_at_once_changes_nothing() -> None:
    def norm(channels: int) -> nn.Module:
        return nn.BatchNorm3d(channels, momentum=None)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolutions = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 3, 3, padding=1)
    network = nn.Sequential(convolutions[0], norm(4), nn.ReLU(), convolutions[1], norm(3))
    volume, _ = body((30, 23, 25))
    seen_XYZ = torch.from_numpy(window(volume.array_XYZ))
    network(seen_XYZ[:16, :16, :16].expand(2, 1, -1, -1, -1))  # gives the norms their statistics
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    maps = [predicted(volume, network=network, windows_at_once=n).array_XYZ for n in (1, 3, 4)]
    assert len(np.unique(maps[0])) == 3
    assert np.array_equal(maps[0], maps[1])
    assert np.array_equal(maps[0], maps[2])
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_network_that_says_nan_is_refused() -> None:
    class Broken(nn.Module):
        def forward(self, ct_B1XYZ: Tensor) -> Tensor:
            return ct_B1XYZ.log()  # of -1

    with pytest.raises(ValueError, match="NaN or infinity"):
        predicted(body((16, 16, 16))[0], network=Broken())


@pytest.mark.parametrize("wrong", [{"overlap": 1.0}, {"overlap": -0.1}, {"windows_at_once": 0}])
def test_windows_that_do_not_move_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Inference(**wrong)


# ---- the case's own grid -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(37, 22, 19), (16, 16, 16), (11, 40, 9)])
def test_labels_at_the_networks_spacing_are_exact(shape: Grid) -> None:
    volume, labels = body(shape)
    found = predicted(volume)
    assert len(np.unique(labels.array_XYZ)) == 3
    assert np.array_equal(found.array_XYZ, labels.array_XYZ)
    assert np.array_equal(found.affine, volume.affine)


@pytest.mark.parametrize("spacing", [(1.3, 1.7, 3.9), (2.9, 2.1, 1.0)])
def test_at_another_spacing_only_voxels_at_a_boundary_differ(spacing: Millimetres3) -> None:
    volume, labels = body((43, 38, 29), spacing)
    found = predicted(volume, (2.0, 2.0, 2.0)).array_XYZ
    near = [f(labels.array_XYZ, size=3) for f in (ndimage.minimum_filter, ndimage.maximum_filter)]
    boundary_XYZ = near[0] < near[1]
    wrong_XYZ = found != labels.array_XYZ
    assert not (wrong_XYZ & ~boundary_XYZ).any()
    assert wrong_XYZ.sum() < 0.2 * boundary_XYZ.sum()


@pytest.mark.parametrize("spacing", [(1.1, 2.6, 2.0), (4.5, 0.9, 1.7)])
def test_classes_are_those_of_probabilities_interpolated_in_the_world(
    spacing: Millimetres3,
) -> None:
    """Against scipy's interpolation, at positions from the affines, oblique ones."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * np.array(spacing), (5, -7, 100)
    target = Volume(np.zeros((13, 18, 11), np.int16), affine)
    source = resample(target, (2.0, 1.9, 2.1))
    logits_CXYZ = torch.from_numpy(
        4 * np.stack([random_hu(source.array_XYZ.shape, c) for c in (0, 1, 2)])
    )
    place_3N = np.indices(target.array_XYZ.shape).reshape(3, -1)
    world_3N = affine[:3, :3] @ place_3N + affine[:3, 3:]
    inverse = np.linalg.inv(source.affine)
    source_3N = inverse[:3, :3] @ world_3N + inverse[:3, 3:]
    values_CN = [
        ndimage.map_coordinates(p_XYZ, source_3N, order=1, mode="nearest")
        for p_XYZ in logits_CXYZ.softmax(0).numpy()
    ]
    found_XYZ = likeliest(logits_CXYZ, lines_between(source, target))
    expected_XYZ = np.argmax(values_CN, axis=0).reshape(found_XYZ.shape)
    assert (found_XYZ != expected_XYZ).mean() < 1e-3  # ties broken by rounding


def test_labels_move_with_the_patient() -> None:
    volume, _ = body((31, 24, 22), (1.4, 1.8, 2.7))
    affine = volume.affine.copy()
    affine[:3, 3] += (13.0, -250.5, 1000.0)
    here, there = predicted(volume), predicted(replace(volume, affine=affine))
    assert np.array_equal(here.array_XYZ, there.array_XYZ)
    assert np.array_equal(there.affine, affine)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_axes_of_the_file_do_not_change_what_is_left(order: Grid) -> None:
    """The network is shown RAS+, and its answer turned back."""
    volume, _ = body((24, 21, 19), (1.6, 2.0, 2.5))
    flipped_XYZ = volume.array_XYZ[::-1, ::-1]
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    flip[:2, 3] = np.array(volume.array_XYZ.shape[:2]) - 1
    permutation = np.eye(4)[:, [*order, 3]]
    turned = Volume(
        np.ascontiguousarray(flipped_XYZ.transpose(order)), volume.affine @ flip @ permutation
    )
    plain = predicted(volume, network=RisingToTheRight())
    found = predicted(turned, network=RisingToTheRight())
    x = np.nonzero(plain.array_XYZ)[0]
    assert x.size
    assert x.mean() < 10  # brighter to the right: the left side of the body
    assert found.array_XYZ.shape == turned.array_XYZ.shape
    assert np.array_equal(found.array_XYZ, plain.array_XYZ[::-1, ::-1].transpose(order))
    assert np.array_equal(found.affine, turned.affine)


# ---- memory ------------------------------------------------------------------------------------


class Living(TorchDispatchMode):
    """The most bytes that tensors made under it hold at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = isinstance(out, Tensor) and not func.is_view and not func._schema.is_mutable
        if made:
            size = out.untyped_storage().nbytes()
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(out, self._freed, size)
        return out

    def _freed(self, size: int) -> None:
        self.now -= size


def test_classes_never_lie_side_by_side_on_the_cases_grid() -> None:
    classes, slab = 14, 10_000
    target = Volume(np.zeros((64, 60, 40), np.int16), centred_affine((64, 60, 40), (1.0, 1.0, 2.5)))
    source = resample(target, (2.0, 2.0, 2.0))
    coarse = source.array_XYZ.shape
    logits_CXYZ = torch.randn(classes, *coarse, generator=torch.Generator().manual_seed(0))
    lines = lines_between(source, target)
    with torch.inference_mode(), Living() as living:
        found_XYZ = likeliest(logits_CXYZ, lines, slab)
    planes = slab // (60 * 40)
    probabilities = 4 * classes * (planes // 2 + 2) * coarse[1] * coarse[2]
    assert living.most <= 20 * slab + probabilities
    assert living.most < 4 * target.array_XYZ.size  # not even one class as a whole
    assert np.array_equal(found_XYZ, likeliest(logits_CXYZ, lines))


def test_air_is_background_and_a_case_of_one_slice_has_labels() -> None:
    air = Volume(
        np.full((20, 20, 20), AIR_HU, np.int16), centred_affine((20, 20, 20), (1.0, 1.0, 1.0))
    )
    assert not predicted(air).array_XYZ.any()
    volume, labels = body((25, 24, 20), (2.0, 2.0, 2.0))
    slice_XYZ = volume.array_XYZ[:, :, 10:11]
    found = predicted(replace(volume, array_XYZ=slice_XYZ))
    assert np.array_equal(found.array_XYZ, labels.array_XYZ[:, :, 10:11])

"""LPIPS of volumes: over slices of three planes, and only with the weights it is defined by."""

from pathlib import Path

import numpy as np
import pytest
import torch

from synth_ct.evaluation.lpips_distance import local_lpips, lpips_distance
from synth_ct.models.perceptual import LpipsDistance

CPU = torch.device("cpu")


def test_every_slice_of_three_planes_counts_once(halved: LpipsDistance) -> None:
    truth = np.full((40, 2, 6), -1000.0)
    made = truth.copy()
    made[0] = 1500  # one sagittal slice of 40; a fortieth of each other slice
    expected = (1 + 2 * 1 / 40 + 6 * 1 / 40) / 48
    assert lpips_distance(made, truth, halved) == pytest.approx(expected)


def test_strides_begin_half_a_stride_inside(halved: LpipsDistance) -> None:
    truth = np.full((4, 4, 4), -1000.0)
    made = truth.copy()
    made[2] = 1500
    expected = (1 + 1 / 4 + 1 / 4) / 3
    assert lpips_distance(made, truth, halved, every=4) == pytest.approx(expected)


def test_without_weights_there_is_no_measure_but_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = local_lpips("alexnet", None, CPU)
    assert found.measure is None
    assert "does not exist" in found.absent


def test_weights_that_were_named_must_be_there_and_be_the_published_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        local_lpips("alexnet", tmp_path / "alexnet.pth", CPU)
    (tmp_path / "alexnet.pth").write_bytes(b"other")
    with pytest.raises(ValueError, match="sha256"):
        local_lpips("alexnet", tmp_path / "alexnet.pth", CPU)

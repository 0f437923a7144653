"""Traps of MONAI that say nothing when one falls into them: each is shown, and that we do not."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import adaptation, publish_tensors
from monai.data import PersistentDataset
from monai.networks.nets import SwinUNETR
from monai.transforms import ScaleIntensityRanged
from pretrain_tiny import CROP, SWIN, trained
from torch.nn import functional as F

from pretrain.backbones import build
from pretrain.encoder import Encoder
from pretrain.swin import PatchMerging, PatchMergingV2
from synth_ct.corpus.cache import Cache, Key
from synth_ct.corpus.row import voxel_sha256
from synth_ct.kit.axes import HuArray
from synth_ct.kit.quarantine import Refused

SMALL = {
    "in_channels": 1,
    "out_channels": 1,
    "feature_size": 12,
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 1, 2, 2),
    "window_size": 2,
}


# ---- a cache that outlives what it was made with -----------------------------------------------


def scaled_to(a_max: float) -> Callable[[Any], Any]:
    scale: Callable[[Any], Any] = ScaleIntensityRanged("ct", -1000.0, a_max, 0.0, 1.0)
    return scale


def test_monais_persistent_cache_gives_the_old_values_after_a_transform_changed(
    tmp_path: Path,
) -> None:
    items = [{"ct": np.full((1, 2, 2, 2), 100.0, dtype=np.float32)}]
    before = PersistentDataset(items, scaled_to(1000.0), tmp_path)[0]["ct"]
    after = PersistentDataset(items, scaled_to(2000.0), tmp_path)[0]["ct"]
    fresh = scaled_to(2000.0)(items[0])["ct"]
    assert float(after.mean()) == float(before.mean())
    assert float(after.mean()) != float(fresh.mean())


def test_our_cache_holds_hu_by_content_so_nothing_done_to_them_can_be_stale(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Same place in the corpus, other voxels: another entry. Same voxels: read, not decoded."""
    cache, shape = Cache(folder=tmp_path, limit_bytes=2**20), (8, 8, 8)
    decoded = []

    def crop_of(voxels_XYZ: HuArray) -> HuArray:
        def decode() -> HuArray:
            decoded.append(1)
            return voxels_XYZ

        key = Key(voxel_sha256(voxels_XYZ), shape)
        return cache.crop(key, (0, 0, 0), shape, decode)

    first, second = (rng.integers(-1000, 1000, shape, dtype=np.int16) for _ in range(2))
    for voxels_XYZ in (first, second, first):
        assert np.array_equal(crop_of(voxels_XYZ), voxels_XYZ)
    assert len(decoded) == 2


# ---- patch merging -----------------------------------------------------------------------------


def test_monais_default_merging_is_the_one_that_is_recorded_as_monai() -> None:
    """It changed once without a word; should it change again, recorded encoders would be wrong."""
    kinds = {
        default: type(SwinUNETR(**SMALL, **options).swinViT.layers1[0].downsample)
        for default, options in (("none", {}), ("v2", {"downsample": "mergingv2"}))
    }
    assert kinds == {"none": PatchMerging, "v2": PatchMergingV2}
    assert type(build(SWIN, 1, 0).get_submodule("swinViT.layers1.0.downsample")) is PatchMerging


# ---- fused attention ---------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made: list[int] = []
    fused = F.scaled_dot_product_attention

    def counted(*tensors: torch.Tensor, **options: Any) -> torch.Tensor:
        made.append(1)
        return fused(*tensors, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    return made


def test_monais_flash_flag_does_nothing_while_a_gradient_is_wanted(calls: list[int]) -> None:
    network = SwinUNETR(**SMALL, use_flash_attention=True).swinViT
    ct_B1XYZ = torch.zeros(1, 1, *CROP)
    for mode in (network.train, network.eval):
        mode()
        network(ct_B1XYZ)
    assert len(calls) == 0
    with torch.no_grad():
        network(ct_B1XYZ)
    assert len(calls) == 4


def test_our_fused_windows_are_fused_in_training(calls: list[int]) -> None:
    ct_B1XYZ = torch.zeros(1, 1, *CROP)
    build(SWIN, 1, 0).encode(ct_B1XYZ)
    assert len(calls) == 0
    maps = build(SWIN, 1, 0, fused_windows=True).encode(ct_B1XYZ)
    assert len(calls) == 4
    assert maps[-1].requires_grad


# ---- crops that are too small ------------------------------------------------------------------


def test_monais_network_fails_on_32_voxels_only_where_it_normalises_and_ours_at_once() -> None:
    ct_B1XYZ = torch.zeros(2, 1, 32, 32, 32)
    with pytest.raises(ValueError, match="Expected more than 1 spatial element"):
        SwinUNETR(**SMALL)(ct_B1XYZ)
    backbone = build(SWIN, 1, 0)
    for use in (backbone, backbone.encode):
        with pytest.raises(ValueError, match=r"32 x 32 x 32 is too small.*64 x 32 x 32"):
            use(ct_B1XYZ)


# ---- weights that go nowhere -------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.swinViT.", "swin_vit.", "encoder.swinViT."])
def test_a_wrong_prefix_loads_nothing_in_silence_there_and_is_refused_here(
    prefix: str, tmp_path: Path
) -> None:
    source = trained(SWIN)
    weights = {
        key.replace("swinViT.", prefix): source.state_dict()[key]
        for key in source.transferred("encoder")
    }
    theirs = SwinUNETR(**SMALL)
    before = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    theirs.load_state_dict(weights, strict=False)  # what the public fine-tuning code does
    assert all(torch.equal(t, before[k]) for k, t in theirs.state_dict().items())

    folder = publish_tensors(tmp_path / "encoder", weights, adaptation(SWIN).model_dump_json())
    with pytest.raises(Refused, match=f"E_ENCODER_MISFIT.*{re.escape(prefix)}"):
        Encoder.open(folder).load_into(build(SWIN, 1, 5))

"""Exports, each read back the way its readers do."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from encoders import adaptation, publish_encoder
from monai.networks.nets import SwinUNETR
from pretrain_tiny import CROP, SWIN, UNET, trained
from torch import nn

from pretrain.backbones import Backbone, SwinSizes, UNetSizes, build
from pretrain.encoder import ADAPTATION, WEIGHTS, Adaptation
from pretrain.export import (
    NNSSL_PLAN,
    NNSSL_WEIGHTS,
    NNUNET_PLAN,
    NNUNET_WEIGHTS,
    PLAIN,
    README,
    SNIPPET,
    export,
)
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.recipe import changed

BOTH = pytest.mark.parametrize("sizes", [SWIN, UNET], ids=lambda sizes: sizes.kind)


def exported(folder: Path, sizes: SwinSizes | UNetSizes, to: str) -> Path:
    export(publish_encoder(folder / "encoder", sizes), folder / "out", to)  # type: ignore[arg-type]
    return folder / "out"


def snippet(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("load_encoder", folder / SNIPPET)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def encoder_is_the_trained_one(network: nn.Module, sizes: SwinSizes | UNetSizes) -> bool:
    source, found = trained(sizes).state_dict(), network.state_dict()
    return all(torch.equal(found[k], source[k]) for k in trained(sizes).transferred("encoder"))


# ---- plain PyTorch -----------------------------------------------------------------------------


@BOTH
def test_plain_weights_open_without_running_code_and_hold_the_encoder(
    sizes: SwinSizes | UNetSizes, tmp_path: Path
) -> None:
    tensors = torch.load(exported(tmp_path, sizes, "pytorch") / PLAIN, weights_only=True)
    source = trained(sizes)
    assert tuple(sorted(tensors)) == tuple(sorted(source.transferred("encoder")))
    assert all(torch.equal(t, source.state_dict()[k]) for k, t in tensors.items())


@BOTH
def test_the_snippet_beside_the_weights_fills_a_network(
    sizes: SwinSizes | UNetSizes, tmp_path: Path
) -> None:
    load = snippet(exported(tmp_path, sizes, "pytorch")).load_encoder
    network = build(sizes, 14, 5)
    assert load(network) == len(network.transferred("encoder"))
    assert encoder_is_the_trained_one(network, sizes)
    wrapped = nn.ModuleDict({"body": build(sizes, 14, 5)})
    load(wrapped, prefix="body.")
    assert encoder_is_the_trained_one(wrapped["body"], sizes)


def test_the_snippet_refuses_what_finds_no_place_and_what_is_damaged(tmp_path: Path) -> None:
    out = exported(tmp_path, UNET, "pytorch")
    with pytest.raises(ValueError, match=r"no place .*down\.\d"):
        snippet(out).load_encoder(build(SWIN, 1, 0))
    data = bytearray((out / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (out / WEIGHTS).write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        snippet(out).load_encoder(build(UNET, 1, 0))


def test_the_record_goes_along(tmp_path: Path) -> None:
    for to in ("pytorch", "monai"):
        out = exported(tmp_path / to, SWIN, to)
        told = Adaptation.model_validate(json.loads((out / ADAPTATION).read_text()))
        assert told == adaptation(SWIN)
        assert "2.5 x 2.5 x 2.5 mm, HU clipped to [-1000, 1500]" in (out / README).read_text()


# ---- MONAI -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "downsample"), [("monai", "merging"), ("v2", "mergingv2")])
def test_monais_own_network_computes_the_same_features(
    order: str, downsample: str, random: torch.Generator, tmp_path: Path
) -> None:
    sizes = changed(SWIN, patch_merging=order)
    out = exported(tmp_path, sizes, "monai")
    theirs = SwinUNETR(
        in_channels=1,
        out_channels=14,
        feature_size=12,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 2, 2),
        window_size=2,
        downsample=downsample,
    )
    assert f'downsample="{downsample}"' in (out / README).read_text()
    tensors = torch.load(out / PLAIN, weights_only=True)
    missing, unexpected = theirs.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert not tensors.keys() & set(missing)
    ct_B1XYZ = torch.rand((1, 1, *CROP), generator=random)
    with torch.no_grad():
        found, wanted = theirs.swinViT(ct_B1XYZ), trained(sizes).encode(ct_B1XYZ)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_monai_is_given_nothing_that_it_would_load_and_compute_otherwise(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MONAI has no U-Net of this layout"):
        exported(tmp_path / "unet", UNET, "monai")
    with pytest.raises(ValueError, match="no longer merges patches in the order 'legacy'"):
        exported(tmp_path / "legacy", changed(SWIN, patch_merging="legacy"), "monai")
    assert not (tmp_path / "legacy" / "out").exists()


# ---- nnssl -------------------------------------------------------------------------------------


def as_nnssl_reads(path: Path, network: Backbone) -> None:
    """Encoder and stem, each found by its key and loaded strictly into its part."""
    checkpoint = torch.load(path, weights_only=True)
    weights, plan = checkpoint["network_weights"], checkpoint["nnssl_adaptation_plan"]
    for key in (plan["key_to_encoder"], plan["key_to_stem"]):
        part = {k.removeprefix(f"{key}."): t for k, t in weights.items() if k.startswith(f"{key}.")}
        network.get_submodule(key).load_state_dict(part, strict=True)


@BOTH
def test_the_adaptation_plan_leads_to_encoder_stem_and_first_layer(
    sizes: SwinSizes | UNetSizes, tmp_path: Path
) -> None:
    out = exported(tmp_path, sizes, "nnssl")
    network = build(sizes, 14, 5)
    as_nnssl_reads(out / NNSSL_WEIGHTS, network)
    assert encoder_is_the_trained_one(network, sizes)
    checkpoint = torch.load(out / NNSSL_WEIGHTS, weights_only=True)
    plan = json.loads((out / NNSSL_PLAN).read_text())
    assert checkpoint["nnssl_adaptation_plan"] == plan
    for key in plan["keys_to_in_proj"]:
        assert checkpoint["network_weights"][f"{key}.weight"].shape[1] == 1
    assert plan["pretrain_num_input_channels"] == 1
    (configuration,) = plan["pretrain_plan"]["configurations"].values()
    assert configuration["patch_size"] == list(CROP)
    assert configuration["spacing"] == [2.5, 2.5, 2.5]
    assert Adaptation.model_validate(plan["synth_ct"]) == adaptation(sizes)
    assert "C X Y Z" in (out / README).read_text()


# ---- nnU-Net -----------------------------------------------------------------------------------


def test_nnunets_own_loader_takes_all_but_the_head_and_the_network_computes_the_same(
    random: torch.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "nnunetv2 is not here: `make setup` installs it"
    loader = pytest.importorskip("nnunetv2.run.load_pretrained_weights", reason=reason)
    builder = pytest.importorskip("nnunetv2.utilities.get_network_from_plans", reason=reason)
    folder = publish_encoder(tmp_path / "encoder", UNET, transferred="all_but_head")
    out = tmp_path / "out"
    export(folder, out, "nnunet")
    monkeypatch.syspath_prepend(out)
    plan = json.loads((out / NNUNET_PLAN).read_text())
    theirs = builder.get_network_from_plans(
        plan["network_class_name"],
        plan["arch_kwargs"],
        plan["_kw_requiring_import"],
        input_channels=1,
        output_channels=1,
        deep_supervision=False,
    )
    loader.load_pretrained_weights(theirs, out / NNUNET_WEIGHTS)
    ours = trained(UNET)
    theirs.decoder.seg_layers[0].load_state_dict(ours.out.state_dict())  # type: ignore[union-attr]
    ct_B1XYZ = torch.rand((2, 1, 8, 12, 16), generator=random)
    with torch.no_grad():
        wanted_BKXYZ = ours.eval()(ct_B1XYZ)
        found_BKZYX = theirs.eval()(ct_B1XYZ.permute(0, 1, 4, 3, 2))
    torch.testing.assert_close(found_BKZYX.permute(0, 1, 4, 3, 2), wanted_BKXYZ)


def test_nnunet_is_given_nothing_that_its_loader_would_refuse(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wants every tensor but the head's"):
        exported(tmp_path / "unet", UNET, "nnunet")
    with pytest.raises(ValueError, match=r"skips a head below `\.seg_layers\.`"):
        exported(tmp_path / "swin", SWIN, "nnunet")
    assert not (tmp_path / "unet" / "out").exists()


# ---- refusals ----------------------------------------------------------------------------------


def test_a_damaged_encoder_is_not_exported(tmp_path: Path) -> None:
    folder = publish_encoder(tmp_path / "encoder", UNET)
    (folder / WEIGHTS).write_bytes(b"")
    with pytest.raises(Refused, match="E_ENCODER_DAMAGED"):
        export(folder, tmp_path / "out", "pytorch")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    out = exported(tmp_path, UNET, "pytorch")
    with pytest.raises(ValueError, match="choose another name"):
        export(tmp_path / "encoder", out, "nnssl")

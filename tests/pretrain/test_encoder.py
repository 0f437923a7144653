"""The encoder artifact: it arrives whole, provably, or is refused by name."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from encoders import adaptation, publish_encoder, publish_tensors
from pretrain_tiny import CROP, SWIN, UNET, trained
from torch import Tensor

from pretrain.backbones import Backbone, SwinSizes, UNetSizes, build
from pretrain.encoder import ADAPTATION, WEIGHTS, Encoder, drawn_at_random, write_encoder
from synth_ct.kit.artifact import RECORD, partial_of
from synth_ct.kit.checkpoint import prefixed
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.recipe import changed

BOTH = pytest.mark.parametrize("sizes", [SWIN, UNET], ids=lambda sizes: sizes.kind)


@BOTH
@pytest.mark.parametrize("what", ["encoder", "all_but_head"])
def test_what_was_trained_is_what_the_receiver_holds_and_no_more(
    sizes: SwinSizes | UNetSizes, what: str, tmp_path: Path
) -> None:
    encoder = Encoder.open(publish_encoder(tmp_path / "encoder", sizes, transferred=what))
    receiver, source, own = build(sizes, 14, 5), trained(sizes).state_dict(), build(sizes, 14, 5)
    loaded = encoder.load_into(receiver)
    assert loaded.keys == own.transferred(encoder.adaptation.transferred)
    assert loaded.tensors == len(loaded.keys)
    for key, tensor in receiver.state_dict().items():
        wanted = source[key] if key in loaded.keys else own.state_dict()[key]
        assert torch.equal(tensor, wanted), key
    arrived = sum(p.numel() for n, p in receiver.named_parameters() if n in loaded.keys)
    assert loaded.share == arrived / sum(p.numel() for p in receiver.parameters())


@BOTH
def test_the_receiver_computes_the_same_features(
    sizes: SwinSizes | UNetSizes, random: torch.Generator, tmp_path: Path
) -> None:
    receiver, ct_B1XYZ = build(sizes, 2, 5), torch.rand((1, 1, *CROP), generator=random)
    Encoder.open(publish_encoder(tmp_path / "encoder", sizes)).load_into(receiver)
    with torch.no_grad():
        found, wanted = receiver.eval().encode(ct_B1XYZ), trained(sizes).eval().encode(ct_B1XYZ)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_adaptation_says_all_a_receiver_must_know(tmp_path: Path) -> None:
    folder = publish_encoder(tmp_path / "encoder", SWIN)
    told = json.loads((folder / ADAPTATION).read_text())
    assert told["architecture"]["patch_merging"] == "monai"
    assert told["input"] == {
        "axes": "RAS CXYZ",
        "spacing_mm": [2.5, 2.5, 2.5],
        "window_hu": [-1000.0, 1500.0],
        "crop_XYZ": [64, 32, 32],
        "padding_hu": -1000.0,
        "volume_XYZ": [32, 32, 32],
    }
    assert Encoder.open(folder).adaptation == adaptation(SWIN)


def test_the_sum_beside_the_weights_is_what_sha256sum_understands(tmp_path: Path) -> None:
    folder = publish_encoder(tmp_path / "encoder", UNET)
    subprocess.run(["sha256sum", "-c", f"{WEIGHTS}.sha256"], cwd=folder, check=True)


def test_weights_that_are_not_finite_are_not_published(tmp_path: Path) -> None:
    backbone = trained(UNET)
    with torch.no_grad():
        backbone.get_parameter("down.0.0.conv.bias")[0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in down\.0\.0\.conv\.bias"):
        write_encoder(tmp_path, backbone, adaptation(UNET))


def test_an_untouched_encoder_arrives_in_a_receiver_of_another_seed(tmp_path: Path) -> None:
    told = adaptation(UNET, arm="scratch", steps=0, objective=None, corpora=())
    folder = publish_tensors(
        tmp_path / "encoder", transferred(build(UNET, 1, 11)), told.model_dump_json()
    )
    receiver = build(UNET, 14, 12)
    assert Encoder.open(folder).load_into(receiver).tensors > 0
    assert all(
        torch.equal(receiver.state_dict()[k], t) for k, t in transferred(build(UNET, 1, 11)).items()
    )


@pytest.mark.parametrize("fields", [{"steps": 0}, {"arm": "scratch"}, {"objective": None}], ids=str)
def test_only_scratch_may_say_that_it_was_not_trained(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="'scratch' has 0 steps"):
        adaptation(UNET, **fields)


@BOTH
def test_constants_need_not_differ_and_everything_drawn_must(
    sizes: SwinSizes | UNetSizes,
) -> None:
    """The rule, held against the fact: two seeds differ in what is drawn and in nothing else."""
    one, other = build(sizes, 1, 1), build(sizes, 1, 2)
    differing = [
        k for k, t in one.state_dict().items() if not torch.equal(t, other.state_dict()[k])
    ]
    assert drawn_at_random(one, one.transferred("all_but_head")) == [
        key for key in differing if not key.startswith(one.head)
    ]


# ---- twenty mismatches -------------------------------------------------------------------------


def transferred(backbone: Backbone) -> dict[str, Tensor]:
    state = backbone.state_dict()
    return {key: state[key].clone() for key in backbone.transferred("encoder")}


PROJECTION = "swinViT.layers1.0.blocks.0.mlp.linear1.weight"
RECEIVER = 5


def as_it_should_be(folder: Path) -> Path:
    return publish_encoder(folder, SWIN)


def with_tensors(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Any:
    def make(folder: Path) -> Path:
        tensors = change(transferred(trained(SWIN)))
        return publish_tensors(folder, tensors, adaptation(SWIN).model_dump_json())

    return make


def with_told(change: Callable[[dict[str, Any]], Any]) -> Any:
    def make(folder: Path) -> Path:
        told = adaptation(SWIN).model_dump(mode="json")
        change(told)
        return publish_tensors(folder, transferred(trained(SWIN)), json.dumps(told))

    return make


def afterwards(change: Callable[[Path], Any]) -> Any:
    def make(folder: Path) -> Path:
        change(publish_encoder(folder, SWIN))
        return folder

    return make


def without(key: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {k: t for k, t in tensors.items() if k != key}


def renamed(before: str, after: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {k.replace(before, after): t for k, t in tensors.items()}


def other(change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {**tensors, PROJECTION: change(tensors[PROJECTION])}


def truncate(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1000] ^= 4
    (folder / WEIGHTS).write_bytes(data)


def of(**sizes: Any) -> Callable[[Path], Path]:
    return lambda folder: publish_encoder(folder, changed(SWIN, **sizes))


def the_receivers_own(folder: Path) -> Path:
    own = transferred(build(SWIN, 1, RECEIVER))
    return publish_tensors(folder, own, adaptation(SWIN).model_dump_json())


class Case(NamedTuple):
    make: Callable[[Path], Path]
    names: str
    """What the message must name."""
    spacing_mm: tuple[float, float, float] = (2.5, 2.5, 2.5)
    window_hu: tuple[float, float] = (-1000.0, 1500.0)


CASES = {
    "a key missing": Case(with_tensors(without(PROJECTION)), f"{PROJECTION} are missing"),
    "a key more": Case(
        with_tensors(lambda t: {**t, "out.bias": torch.ones(1)}), "out.bias have no place"
    ),
    "prefix module.": Case(
        with_tensors(renamed("swinViT.", "module.swinViT.")), "module.swinViT.layers1"
    ),
    "prefix swin_vit": Case(with_tensors(renamed("swinViT", "swin_vit")), "swin_vit.layers1"),
    "a subfolder of keys": Case(
        with_tensors(lambda t: prefixed("encoder", t)), "encoder/swinViT.layers1"
    ),
    "other feature size": Case(of(feature_size=24), "feature_size 24 against 12"),
    "other depths": Case(of(depths=(2, 1, 1, 1)), "depths (2, 1, 1, 1) against (1, 1, 1, 1)"),
    "other patch merging": Case(of(patch_merging="legacy"), "patch_merging legacy against monai"),
    "other channels in": Case(of(in_channels=2), "in_channels 2 against 1"),
    "another network": Case(lambda f: publish_encoder(f, UNET), "kind unet against swin_unetr"),
    "transposed": Case(with_tensors(other(lambda t: t.T)), f"{PROJECTION} is float32[12, 48]"),
    "half precision": Case(with_tensors(other(Tensor.half)), f"{PROJECTION} is float16"),
    "NaN": Case(with_tensors(other(lambda t: t * torch.nan)), f"NaN or infinity in {PROJECTION}"),
    "truncated": Case(afterwards(truncate), f"{WEIGHTS} cannot be trusted"),
    "a flipped bit": Case(afterwards(flip_a_bit), f"{WEIGHTS} cannot be trusted"),
    "no adaptation": Case(
        afterwards(lambda f: (f / ADAPTATION).unlink()), f"{ADAPTATION} cannot be trusted"
    ),
    "an adaptation that was edited": Case(
        afterwards(lambda f: (f / ADAPTATION).write_text('{"layout": 1}')),
        f"{ADAPTATION} cannot be trusted: its sha256",
    ),
    "adaptation of another network": Case(
        with_told(lambda told: told["architecture"].update(feature_size=24)),
        "feature_size 24 against 12",
    ),
    "adaptation of a later layout": Case(
        with_told(lambda told: told.update(layout=2)), "layout: Input should be 1"
    ),
    "an unknown field": Case(
        with_told(lambda told: told.update(colour="red")), "colour: Extra inputs"
    ),
    "other HU window": Case(
        as_it_should_be, "window_hu was (-1000.0, 1500.0)", window_hu=(-175.0, 250.0)
    ),
    "other spacing": Case(
        as_it_should_be, "spacing_mm was (2.5, 2.5, 2.5)", spacing_mm=(1.5, 1.5, 2.0)
    ),
    "no record": Case(afterwards(lambda f: (f / RECORD).unlink()), f"it holds no {RECORD}"),
    "unfinished": Case(afterwards(lambda f: f.rename(partial_of(f))), "is under way"),
    "a record that was edited": Case(
        afterwards(
            lambda f: (f / RECORD).write_text((f / RECORD).read_text().replace("cpu", "gpu"))
        ),
        "does not match its seal",
    ),
    "the receiver's own values": Case(the_receivers_own, "nothing arrives in swinViT.patch_embed"),
    "one tensor the receiver's own": Case(
        with_tensors(
            lambda t: {**t, PROJECTION: build(SWIN, 1, RECEIVER).state_dict()[PROJECTION]}
        ),
        f"nothing arrives in {PROJECTION}",
    ),
}


def receive(folder: Path, receiver: Backbone, case: Case) -> None:
    encoder = Encoder.open(folder)
    encoder.demand_input(case.spacing_mm, case.window_hu)
    encoder.load_into(receiver)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_mismatch_is_refused_by_name_and_leaves_the_receiver_as_it_was(
    case: Case, tmp_path: Path
) -> None:
    receiver = build(SWIN, 1, RECEIVER)
    folder = tmp_path / "encoder"
    case.make(folder)
    with pytest.raises(Refused) as refusal:
        receive(folder, receiver, case)
    assert case.names in refusal.value.cause
    assert refusal.value.remedy
    own = build(SWIN, 1, RECEIVER).state_dict()
    assert all(torch.equal(t, own[k]) for k, t in receiver.state_dict().items())


def test_the_same_door_lets_what_fits_through(tmp_path: Path) -> None:
    encoder = Encoder.open(as_it_should_be(tmp_path / "encoder"))
    encoder.demand_input((2.5, 2.5, 2.5), (-1000.0, 1500.0))
    receiver = build(SWIN, 1, RECEIVER)
    assert encoder.load_into(receiver).tensors > 0
    with pytest.raises(Refused, match="nothing arrives"):
        encoder.load_into(receiver)  # twice: it is there already


def test_a_receiver_that_keeps_its_own_values_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As networks do that hold a tensor under another name, or load leniently."""
    encoder = Encoder.open(as_it_should_be(tmp_path / "encoder"))
    receiver = build(SWIN, 1, RECEIVER)
    monkeypatch.setattr(receiver, "load_state_dict", lambda tensors, strict: None)
    with pytest.raises(Refused, match=r"does not hold the artifact's values in swinViT"):
        encoder.load_into(receiver)

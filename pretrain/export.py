"""An encoder for other people's code: plain PyTorch, MONAI, the layout of nnssl, and nnU-Net."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from pretrain import synth_ct_unet
from pretrain.encoder import ADAPTATION, SIDECAR, WEIGHTS, Adaptation, Encoder
from pretrain.swin import SwinSizes
from pretrain.unet import UNetSizes
from synth_ct.kit.checkpoint import save_weights
from synth_ct.kit.durable import write_bytes, write_text

Target = Literal["nnssl", "pytorch", "monai", "nnunet"]
NNSSL_WEIGHTS, NNSSL_PLAN = "checkpoint_final.pth", "adaptation_plan.json"
NNUNET_WEIGHTS, NNUNET_PLAN = "pretrained.pth", "architecture.json"
PLAIN = "encoder.pt"
SNIPPET = "load_encoder.py"
README = "README.md"
DOWNSAMPLE = {"monai": "merging", "v2": "mergingv2"}
"""What MONAI calls the orders it has itself."""


def export(folder: Path, out: Path, to: Target) -> None:
    """Verify an encoder and write it anew, as somebody else reads it."""
    encoder = Encoder.open(folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already and not an empty folder; choose another name")
    writers: Mapping[Target, Callable[[Encoder, Path], None]] = {
        "nnssl": _nnssl,
        "pytorch": _pytorch,
        "monai": _monai,
        "nnunet": _nnunet,
    }
    write = writers[to]
    if to == "monai":
        refuse_foreign_to_monai(encoder.adaptation)
    if to == "nnunet":
        refuse_foreign_to_nnunet(encoder.adaptation)
    out.mkdir(parents=True, exist_ok=True)
    write(encoder, out)


# ---- plain PyTorch -----------------------------------------------------------------------------

LOADER = f'''"""Fill a network with the encoder beside this file; torch and safetensors suffice."""

import hashlib
from pathlib import Path

from safetensors.torch import load

HERE = Path(__file__).parent


def load_encoder(network, prefix=""):
    """Every tensor must find its place below `prefix`; returns how many did."""
    data = (HERE / "{WEIGHTS}").read_bytes()
    if hashlib.sha256(data).hexdigest() != (HERE / "{SIDECAR}").read_text().split()[0]:
        raise ValueError("{WEIGHTS} is damaged: its sha256 is another")
    tensors = {{prefix + key: tensor for key, tensor in load(data).items()}}
    own = network.state_dict()
    astray = [k for k, t in tensors.items() if k not in own or own[k].shape != t.shape]
    if astray:
        raise ValueError(f"no place of that name and shape in the network: {{astray[:5]}}")
    network.load_state_dict({{**own, **tensors}}, strict=True)
    return len(tensors)
'''


def _pytorch(encoder: Encoder, out: Path) -> None:
    save_weights(out / WEIGHTS, dict(encoder.tensors))
    write_bytes(out / PLAIN, _saved(dict(encoder.tensors)))
    write_text(out / ADAPTATION, encoder.adaptation.model_dump_json(indent=1))
    write_text(out / SNIPPET, LOADER)
    usage = f"""
`{WEIGHTS}` (checked by `sha256sum -c {SIDECAR}`) and `{PLAIN}` hold the same tensors;
`torch.load("{PLAIN}", weights_only=True)` gives them as a dict. `{SNIPPET}` fills a network and
fails where a tensor finds no place.
"""
    write_text(out / README, _readme(encoder, usage))


# ---- MONAI -------------------------------------------------------------------------------------


def refuse_foreign_to_monai(adaptation: Adaptation) -> None:
    """Raise where MONAI has no network that computes what ours does."""
    sizes = adaptation.architecture
    if isinstance(sizes, UNetSizes):
        raise ValueError(
            "MONAI has no U-Net of this layout, so its weights fit none of MONAI's; "
            "export to pytorch and build the network with pretrain.backbones"
        )
    if sizes.patch_merging not in DOWNSAMPLE:
        raise ValueError(
            f"MONAI no longer merges patches in the order {sizes.patch_merging!r}: it would load "
            "these weights in full and compute something else; export to pytorch and pass "
            "pretrain.swin.LegacyPatchMerging as `downsample`"
        )


def _monai(encoder: Encoder, out: Path) -> None:
    sizes = encoder.adaptation.architecture
    assert isinstance(sizes, SwinSizes), "the others were refused"
    save_weights(out / WEIGHTS, dict(encoder.tensors))
    write_bytes(out / PLAIN, _saved(dict(encoder.tensors)))
    write_text(out / ADAPTATION, encoder.adaptation.model_dump_json(indent=1))
    usage = f"""
    network = monai.networks.nets.SwinUNETR(
        in_channels={sizes.in_channels}, out_channels=14, feature_size={sizes.feature_size},
        depths={sizes.depths}, num_heads={sizes.heads}, window_size={sizes.window},
        downsample="{DOWNSAMPLE[sizes.patch_merging]}",
    )
    tensors = torch.load("{PLAIN}", weights_only=True)
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    assert not unexpected and not tensors.keys() & set(missing)

Without the assertion a wrong prefix would load nothing and say nothing. `downsample` must stay as
it is: the other order has the same keys and shapes.
"""
    write_text(out / README, _readme(encoder, usage))


# ---- nnssl -------------------------------------------------------------------------------------


class Places(NamedTuple):
    """Where a reader of nnssl's layout finds parts of the network, by key."""

    network: str
    encoder: str
    stem: str
    projection: str


def places(sizes: SwinSizes | UNetSizes) -> Places:
    """Of each backbone."""
    if isinstance(sizes, SwinSizes):
        return Places("SwinUNETR", "swinViT", "swinViT.patch_embed", "swinViT.patch_embed.proj")
    return Places("CicekUNet", "down", "down.0.0", "down.0.0.conv")


def adaptation_plan(adaptation: Adaptation) -> dict[str, Any]:
    """nnssl's fields, and ours beside them: its own list of architectures has neither network."""
    where, shown = places(adaptation.architecture), adaptation.input
    configuration = {
        "spacing": list(shown.spacing_mm),
        "patch_size": list(shown.crop_XYZ),
        "normalization_schemes": ["FixedWindow"],
        "use_mask_for_norm": [False],
    }
    return {
        "architecture_plans": {
            "arch_class_name": where.network,
            "arch_kwargs": None,
            "arch_kwargs_requiring_import": None,
        },
        "pretrain_plan": {"configurations": {"3d_fullres": configuration}},
        "pretrain_num_input_channels": adaptation.architecture.in_channels,
        "recommended_downstream_patchsize": list(shown.crop_XYZ),
        "key_to_encoder": where.encoder,
        "key_to_stem": where.stem,
        "keys_to_in_proj": [where.projection],
        "key_to_lpe": None,
        "synth_ct": adaptation.model_dump(mode="json"),
    }


def _nnssl(encoder: Encoder, out: Path) -> None:
    plan = adaptation_plan(encoder.adaptation)
    checkpoint = {"network_weights": dict(encoder.tensors), "nnssl_adaptation_plan": plan}
    write_bytes(out / NNSSL_WEIGHTS, _saved(checkpoint))
    write_text(out / NNSSL_PLAN, json.dumps(plan, indent=1))
    usage = f"""
`{NNSSL_WEIGHTS}` holds `network_weights` and `nnssl_adaptation_plan` (also in `{NNSSL_PLAN}`), as
checkpoints of nnssl do: encoder below `{plan["key_to_encoder"]}`, stem at
`{plan["key_to_stem"]}`. The network itself has to be given: nnssl builds neither of ours.

**Axes.** nnU-Net and nnssl hold arrays as C Z Y X; these weights expect C X Y Z, RAS. Transpose the
input, or the weights see a body lying on its side and are worth no more than random ones.
"""
    write_text(out / README, _readme(encoder, usage))


# ---- nnU-Net -----------------------------------------------------------------------------------


def refuse_foreign_to_nnunet(adaptation: Adaptation) -> None:
    """Raise where nnU-Net's loader would find a key missing: it asks for all but the head."""
    sizes = adaptation.architecture
    if not isinstance(sizes, UNetSizes):
        raise ValueError(
            "nnU-Net's loader skips a head below `.seg_layers.` alone, and a Swin UNETR has its "
            "head elsewhere; export to monai, or to nnssl"
        )
    if adaptation.transferred != "all_but_head":
        raise ValueError(
            f"nnU-Net's loader wants every tensor but the head's, and this encoder holds "
            f"{adaptation.transferred!r}; pretrain with transfer = 'all_but_head', or export to "
            "nnssl"
        )


def as_nnunet(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kernels from X Y Z to Z Y X: k'[z, y, x] = k[x, y, z]. All else has no axes of space."""
    return {
        f"decoder.{key}" if key.startswith("up.") else key: (
            tensor.permute(0, 1, 4, 3, 2).contiguous() if tensor.ndim == 5 else tensor
        )
        for key, tensor in tensors.items()
    }


def _nnunet(encoder: Encoder, out: Path) -> None:
    sizes = encoder.adaptation.architecture
    assert isinstance(sizes, UNetSizes), "the others were refused"
    write_bytes(out / NNUNET_WEIGHTS, _saved({"network_weights": as_nnunet(encoder.tensors)}))
    network = Path(synth_ct_unet.__file__)
    write_text(out / network.name, network.read_text())
    plan = {
        "network_class_name": f"{network.stem}.{synth_ct_unet.UNet.__name__}",
        "arch_kwargs": {"width": sizes.width, "levels": sizes.levels, "norm": sizes.norm},
        "_kw_requiring_import": [],
    }
    write_text(out / NNUNET_PLAN, json.dumps(plan, indent=1))
    usage = f"""
With this folder on the `PYTHONPATH`, `{NNUNET_PLAN}` as `architecture` of a configuration of the
plans, spacing and window as above, and sides of the patch that {2 ** (sizes.levels - 1)} divides:

    nnUNetv2_train DATASET 3d_fullres FOLD -tr nnUNetTrainerNoDeepSupervision \\
        -pretrained_weights {NNUNET_WEIGHTS}

**Axes.** The kernels are turned to nnU-Net's C Z Y X. Images must be stored in RAS order, as all of
ours are: nnU-Net takes files as they lie.

**Intensity.** nnU-Net's `CTNormalization` shows other values than this network was pretrained on.
Write images that are clipped and mapped already, with channel name `noNorm`.
"""
    write_text(out / README, _readme(encoder, usage, axes="C Z Y X"))


# ---- common ------------------------------------------------------------------------------------


def _readme(encoder: Encoder, usage: str, axes: str = "C X Y Z") -> str:
    adaptation = encoder.adaptation
    shown, sizes = adaptation.input, adaptation.architecture
    low, high = shown.window_hu
    spacing = " x ".join(f"{side:g}" for side in shown.spacing_mm)
    merging = f", patch merging `{sizes.patch_merging}`" if isinstance(sizes, SwinSizes) else ""
    trained = f"arm `{adaptation.arm}`, {adaptation.steps} steps, seed {adaptation.seed}"
    return f"""# Pretrained encoder

{sizes.kind}, {len(encoder.tensors)} tensors (`{adaptation.transferred}`){merging}; {trained};
evidence level `{adaptation.evidence}`. Fingerprint `{encoder.fingerprint}`.

**Input.** Arrays {axes} in RAS orientation, {spacing} mm, HU clipped to [{low:g}, {high:g}] and
mapped to [-1, 1]. Everything else is in the adaptation record.
{usage}"""


def _saved(content: Mapping[str, Tensor] | Mapping[str, Any]) -> bytes:
    """As torch.save writes it: of tensors, numbers, texts and lists, so weights_only reads it."""
    file = io.BytesIO()
    torch.save(dict(content), file)
    return file.getvalue()

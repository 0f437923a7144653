"""Small published encoders, honest ones and others."""

from pathlib import Path
from typing import Any

import safetensors.torch
from pretrain_tiny import CROP, trained
from torch import Tensor

from pretrain.backbones import SwinSizes, UNetSizes
from pretrain.encoder import (
    ADAPTATION,
    KIND,
    SIDECAR,
    WEIGHTS,
    Adaptation,
    CorpusUsed,
    Input,
    write_encoder,
)
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.durable import sha256_of_file, write_text
from synth_ct.kit.recipe import changed

RECORD = Record(kind=KIND, recipe={})


def adaptation(sizes: SwinSizes | UNetSizes, **fields: Any) -> Adaptation:
    usual = Adaptation(
        architecture=sizes,
        transferred="encoder",
        input=Input(spacing_mm=(2.5, 2.5, 2.5), crop_XYZ=CROP, volume_XYZ=(32, 32, 32)),
        arm="synthetic",
        objective={"kind": "mae"},
        steps=3,
        seed=1,
        corpora=(CorpusUsed(name="synthetic", digest="d" * 64, evidence="phantom"),),
        evidence="plumbing",
    )
    return changed(usual, **fields)


def publish_encoder(folder: Path, sizes: SwinSizes | UNetSizes, **fields: Any) -> Path:
    """An encoder that has learned something, as a stage publishes it."""
    told = adaptation(sizes, **fields)
    with publish(folder, RECORD) as workspace:
        write_encoder(workspace, trained(sizes), told)
    return folder


def publish_tensors(folder: Path, tensors: dict[str, Tensor], told: str) -> Path:
    """Whatever tensors and text, with every sum in order: as a faulty writer would leave it."""
    with publish(folder, RECORD) as workspace:
        safetensors.torch.save_file(
            {k: t.contiguous() for k, t in tensors.items()}, workspace / WEIGHTS
        )
        write_text(workspace / SIDECAR, f"{sha256_of_file(workspace / WEIGHTS)}  {WEIGHTS}\n")
        write_text(workspace / ADAPTATION, told)
    return folder

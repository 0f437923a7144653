"""Phantoms on disk, as cases of a cohort: one number, one patient, one case."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from synth_ct.cohort.case import Case
from synth_ct.cohort.organs import BTCV
from synth_ct.kit.seeds import seed_for
from synth_ct.kit.volume import Volume, save, spacing_mm
from synth_ct.phantom.patient import Kind, make_phantom
from synth_ct.phantom.shapes import Family
from synth_ct.phantom.skeleton import LEVELS

CLASSES: Mapping[Kind, Mapping[int, str]] = {
    "chest": {},
    "abdomen": BTCV,
    "spleen": {1: "spleen"},
    "lumbar": {label: name for name, label, _ in LEVELS if label},
}
"""Label id -> structure; none where a kind is published without labels."""


def write_case(
    kind: Kind, family: Family, size: int, seed_root: int, index: int, folder: Path
) -> Case:
    """Make patient number `index` of a root seed, and write it below a folder."""
    seed = seed_for(seed_root, f"phantom/{kind}/{family}", index)
    phantom = make_phantom(kind, seed, size, family)
    voxels = voxel_sha256(phantom.ct)
    name = hashlib.sha256(f"{voxels}/{kind}/{seed}".encode()).hexdigest()[:16]
    file, label_file, label_sha256 = f"volumes/{name[:2]}/{name}.nii.gz", "", ""
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    file_sha256 = save(phantom.ct, folder / file)
    if CLASSES[kind]:
        label_file = f"labels/{name[:2]}/{name}.nii.gz"
        (folder / label_file).parent.mkdir(parents=True, exist_ok=True)
        label_sha256 = save(phantom.labels, folder / label_file)
    return Case(
        id=name,
        file=file,
        file_sha256=file_sha256,
        label_file=label_file,
        label_sha256=label_sha256,
        pixels_sha256=voxels,
        shape=phantom.ct.array_XYZ.shape,
        spacing_mm=spacing_mm(phantom.ct.affine),
    )


def voxel_sha256(volume: Volume) -> str:
    """The digest of the voxels alone, little-endian and in C order."""
    return hashlib.sha256(volume.array_XYZ.astype(np.dtype("<i2")).tobytes()).hexdigest()

"""A CT volume: Hounsfield units on a grid with an affine. Load, save, turn, resample, crop, window.

Arrays are XYZ and, after `to_ras`, canonical: each voxel axis points right, anterior, superior.
Label maps share the geometry functions and are never interpolated.
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import nibabel as nib
import numpy as np
from isal import igzip

from synth_ct.kit.axes import Affine, Grid, HuArray, LabelArray, Millimetres3, VoxelArray
from synth_ct.kit.durable import sha256_of, write_bytes

AIR_HU = -1024
"""Outside the scanner's field of view; the smallest HU kept on disk."""
MAX_HU = 3071
WINDOW_HU = (-1000.0, 1500.0)
"""The fixed network range: these HU become [-1, 1], for every volume alike."""
DESCRIPTION_BYTES = 80
"""NIfTI's `descrip`, with the zero that ends it."""
GZIP_LEVEL = 2
"""isal's 2: within 1 % of the size of zlib's 1 and of isal's 3, and the faster of the two."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A CT: HU (int16 on disk, float in between) and where its voxels are."""

    array_XYZ: HuArray
    affine: Affine
    """Voxel index -> RAS+ millimetres."""


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A segmentation on a grid: 0 is background, the meaning of the rest is its data set's."""

    array_XYZ: LabelArray
    affine: Affine


Gridded = TypeVar("Gridded", Volume, LabelMap)


# ---- geometry ----------------------------------------------------------------------------------


def spacing_mm(affine: Affine) -> Millimetres3:
    """Length of each voxel edge."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return (x, y, z)


def centred_affine(shape: Grid, spacing: Millimetres3) -> Affine:
    """A RAS+ affine whose world origin is the centre of the grid."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * np.array(spacing)
    return affine


def to_ras(volume: Gridded) -> Gridded:
    """Permute and flip voxels, without interpolation, until the axes are the nearest to RAS+."""
    turns = nib.orientations.io_orientation(volume.affine)
    array = nib.orientations.apply_orientation(volume.array_XYZ, turns)
    back = nib.orientations.inv_ornt_aff(turns, volume.array_XYZ.shape)
    return replace(volume, array_XYZ=np.ascontiguousarray(array), affine=volume.affine @ back)


def resample(volume: Gridded, spacing: Millimetres3) -> Gridded:
    """Change the voxel size; the outer faces of the grid stay where they are.

    HU are interpolated linearly, after a Gaussian of half the reduction where voxels grow (else
    fine noise would alias); labels keep the nearest voxel, so no new label can appear.
    """
    from scipy import ndimage  # here, because a bare GPU box saves volumes without it

    old = np.array(spacing_mm(volume.affine))
    ratio = np.array(spacing) / old
    if np.allclose(ratio, 1.0, atol=1e-4):
        return volume
    shape = np.maximum(1, np.round(np.array(volume.array_XYZ.shape) / ratio)).astype(int)
    is_hu = isinstance(volume, Volume)
    array = volume.array_XYZ.astype(np.float32) if is_hu else volume.array_XYZ
    if is_hu and (ratio > 1).any():
        array = ndimage.gaussian_filter(array, np.where(ratio > 1, ratio / 4, 0), mode="nearest")
    first = (ratio - 1) / 2  # the centre of the first new voxel, in old voxels
    array = ndimage.affine_transform(
        array, ratio, first, output_shape=tuple(shape), order=1 if is_hu else 0, mode="nearest"
    )
    affine = volume.affine.copy()
    affine[:3, :3] = volume.affine[:3, :3] * ratio
    affine[:3, 3] = volume.affine[:3, :3] @ first + volume.affine[:3, 3]
    return replace(volume, array_XYZ=array, affine=affine)


def crop_or_pad(volume: Gridded, shape: Grid, centre: Grid | None = None) -> Gridded:
    """Cut out `shape` voxels around `centre` (default: the middle); air or background outside."""
    now = np.array(volume.array_XYZ.shape)
    middle = now // 2 if centre is None else np.array(centre)
    start = middle - np.array(shape) // 2
    fill = AIR_HU if isinstance(volume, Volume) else 0
    array = np.full(shape, fill, volume.array_XYZ.dtype)
    limits = list(zip(start.tolist(), shape, now.tolist(), strict=True))
    source = tuple(slice(max(0, a), max(0, min(n, a + s))) for a, s, n in limits)
    target = tuple(
        slice(p.start - a, p.stop - a) for p, (a, _, _) in zip(source, limits, strict=True)
    )
    if all(p.stop > p.start for p in source):
        array[target] = volume.array_XYZ[source]
    affine = volume.affine.copy()
    affine[:3, 3] += volume.affine[:3, :3] @ start
    return replace(volume, array_XYZ=array, affine=affine)


# ---- intensities -------------------------------------------------------------------------------


def to_int16(array_XYZ: VoxelArray) -> HuArray:
    """Round and clip HU to what is kept on disk; a cast alone would wrap 40000 to -25536."""
    whole = array_XYZ.dtype.kind in "iu"  # nothing to round
    if not whole and not np.isfinite(array_XYZ).all():
        raise ValueError("HU contain NaN or infinity; nothing was rounded or saved")
    rounded_XYZ = array_XYZ if whole else np.rint(array_XYZ)
    clipped_XYZ: HuArray = np.clip(rounded_XYZ, AIR_HU, MAX_HU).astype(np.int16, copy=False)
    return clipped_XYZ


def window(array_XYZ: HuArray, limits_hu: tuple[float, float] = WINDOW_HU) -> HuArray:
    """HU -> [-1, 1]: 2 (clip(HU) - low) / (high - low) - 1, the same for every volume."""
    low, high = limits_hu
    values = array_XYZ.astype(np.float32)
    np.clip(values, low, high, out=values)  # in place: reading a crop spends most of its time here
    values -= low
    values *= 2
    values /= high - low
    values -= 1
    return values


def unwindow(array_XYZ: HuArray) -> HuArray:
    """[-1, 1] -> HU, the inverse of `window` inside its range."""
    low, high = WINDOW_HU
    return ((array_XYZ.astype(np.float32) + 1) / 2 * (high - low) + low).astype(np.float32)


# ---- disk --------------------------------------------------------------------------------------


def nifti_bytes(volume: Volume | LabelMap, description: str = "") -> bytes:
    """NIfTI-1, gzipped: equal voxels, affine and description give equal bytes, whenever made."""
    is_hu = isinstance(volume, Volume)
    array = to_int16(volume.array_XYZ) if is_hu else volume.array_XYZ
    image = nib.Nifti1Image(_x_fastest(array), volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    image.header.set_slope_inter(1, 0)
    image.header["descrip"] = _description(description)
    return igzip.compress(image.to_bytes(), GZIP_LEVEL, mtime=0)


def _x_fastest(array_XYZ: VoxelArray) -> VoxelArray:
    """The same array, laid out as NIfTI wants it.

    Plane by plane, each small enough for the processor's cache: four times as fast as in one go.
    """
    array_ZYX = np.empty(array_XYZ.shape[::-1], array_XYZ.dtype)
    for y in range(array_XYZ.shape[1]):
        array_ZYX[:, y] = np.ascontiguousarray(array_XYZ[:, y]).T
    return array_ZYX.T


def _description(text: str) -> bytes:
    if not text.isascii() or len(text) >= DESCRIPTION_BYTES:
        raise ValueError(
            f"NIfTI keeps {DESCRIPTION_BYTES - 1} ASCII letters of description, and {text!r} "
            "does not fit; shorten it"
        )
    return text.encode()


def save(volume: Volume | LabelMap, path: Path, description: str = "") -> str:
    """Write `<name>.nii.gz` atomically; return the sha256 that `load` will ask for.

    The description travels inside the file, wherever it is copied: an id, never a name or a path.
    """
    return write_bytes(path, nifti_bytes(volume, description))


def load(path: Path, sha256: str) -> Volume:
    """Read a volume of ours. gzip and NIfTI do not notice flipped bits; the sha256 does."""
    array, affine = _checked(path, sha256)
    return Volume(array.astype(np.int16), affine)


def load_labels(path: Path, sha256: str) -> LabelMap:
    """Read a label map of ours, checked like `load`."""
    array, affine = _checked(path, sha256)
    return LabelMap(array.astype(np.uint8), affine)


def _checked(path: Path, sha256: str) -> tuple[VoxelArray, Affine]:
    data = path.read_bytes()
    found = sha256_of(data)
    if found != sha256:
        raise ValueError(
            f"{path} is damaged: its sha256 is {found[:12]}..., recorded {sha256[:12]}...; "
            "restore it from a copy or make its folder again"
        )
    image = nib.Nifti1Image.from_stream(io.BytesIO(igzip.decompress(data)))
    return np.asarray(image.dataobj), image.affine.astype(np.float64)

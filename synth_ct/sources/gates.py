"""What a volume must be before anything is done with it, whatever container it came in.

Codes read E_<container>_<fault>: the same fault has the same name in NIfTI, NRRD and MetaImage.
"""

import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from synth_ct.kit.axes import Affine, VoxelArray
from synth_ct.kit.quarantine import Refused

Container = Literal["NII", "NRRD", "MHA"]

MAX_VOXELS = 2**29
"""1024 x 1024 x 512: more than any scanner's longest spiral."""
BYTES_A_VOXEL = 12
"""What reading needs at its peak beside the stored values: a float copy, a mask, the int16."""
SPACING_LIMITS_MM = (0.2, 20.0)
FAR_AWAY_MM = 1e5
"""An origin a hundred metres off is a damaged number, and float32 could not hold it to 0.01 mm."""
SHEAR_LIMIT = 1e-4
"""Cosine between two voxel axes that a header's rounding explains."""
ROUNDING = 1e-6
FORM_LIMIT_MM = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class RawVolume:
    """What a file says, in the file's own voxel order: values after its slope, and an affine."""

    array_XYZ: VoxelArray
    affine: Affine
    """Voxel index -> RAS+ millimetres."""
    sha256: str
    """Of the file's bytes as they lie on disk."""
    notes: tuple[str, ...] = ()


def refuse_shape(container: Container, shape: tuple[int, ...]) -> None:
    """A volume has three axes of at least two voxels."""
    if len(shape) > 3:
        raise Refused(
            f"E_{container}_4D",
            f"it has shape {shape}: several volumes or channels, and none is named as the CT",
            "export the one volume that is meant as a 3D file",
        )
    if len(shape) < 3 or min(shape) < 2:
        raise Refused(
            f"E_{container}_SHAPE",
            f"its header gives shape {shape}, which is no volume",
            "export it again from the original images",
        )


def refuse_size(container: Container, shape: tuple[int, ...], itemsize: int) -> None:
    """Decide from the header alone, before any memory is asked for."""
    voxels = int(np.prod(shape, dtype=object))
    needed = voxels * (itemsize + BYTES_A_VOXEL)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if voxels > MAX_VOXELS or needed > memory:
        raise Refused(
            f"E_{container}_TOO_BIG",
            f"its header gives shape {shape}, {needed / 1e9:.1f} GB to read; at most "
            f"{MAX_VOXELS} voxels and this machine's {memory / 1e9:.0f} GB are allowed",
            "crop or resample it first",
        )


# ---- geometry ----------------------------------------------------------------------------------


def trusted_affine(container: Container, affine: Affine) -> Affine:
    """Return the affine with exactly orthogonal axes, or refuse what is not a grid in a body."""
    edges = affine[:3, :3]
    if not np.isfinite(affine).all():
        raise Refused(
            f"E_{container}_AFFINE",
            "its affine holds NaN or infinity: nobody knows where it lies",
            "export it again from the original images",
        )
    lengths = np.linalg.norm(edges, axis=0)
    if (lengths < 1e-9).any() or abs(np.linalg.det(edges / lengths)) < 1e-3:
        raise Refused(
            f"E_{container}_AFFINE",
            "its affine is singular: voxels would fall on one another",
            "export it again from the original images",
        )
    _refuse_spacing(container, lengths)
    if np.abs(affine[:3, 3]).max() > FAR_AWAY_MM:
        raise Refused(
            f"E_{container}_AFFINE",
            f"its origin {affine[:3, 3].tolist()} mm is further away than any scanner reaches",
            "export it again from the original images",
        )
    return _orthogonal(container, affine, lengths)


def is_oblique(affine: Affine) -> bool:
    """Some voxel axis lies more than a degree off the body's."""
    edges = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(edges).max(axis=0).min() < np.cos(np.radians(1)))


def _refuse_spacing(container: Container, lengths: np.ndarray) -> None:
    low, high = SPACING_LIMITS_MM
    if (lengths < low).any() or (lengths > high).any():
        sizes = " x ".join(f"{length:.4g}" for length in lengths)
        raise Refused(
            f"E_{container}_SPACING",
            f"voxels of {sizes} mm; a CT has {low:g} to {high:g} mm",
            "correct the unit or the spacing in its header",
        )


def _orthogonal(container: Container, affine: Affine, lengths: np.ndarray) -> Affine:
    """The nearest rotation (polar decomposition, R = U V^T) where only rounding separates it."""
    directions = affine[:3, :3] / lengths
    shear = np.abs(directions.T @ directions - np.eye(3)).max()
    if shear > SHEAR_LIMIT:
        raise Refused(
            f"E_{container}_SHEAR",
            f"its axes are not at right angles (cosine {shear:.2g}); resampling would be a guess",
            "resample it onto an orthogonal grid, for example with dcm2niix or 3D Slicer",
        )
    if shear <= ROUNDING:
        return affine
    u, _, vt = np.linalg.svd(directions)
    straight = affine.copy()
    straight[:3, :3] = (u @ vt) * lengths
    return straight


# ---- values ------------------------------------------------------------------------------------


def voxels_in(
    data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int = 0
) -> VoxelArray:
    """Stored bytes, the first axis counting fastest -> values in this machine's byte order."""
    stored = np.frombuffer(data, dtype, int(np.prod(shape)), offset)
    return stored.astype(dtype.newbyteorder("=")).reshape(shape, order="F")


def refuse_nonfinite(container: Container, array_XYZ: VoxelArray) -> None:
    """NaN and infinity have no Hounsfield value."""
    if array_XYZ.dtype.kind != "f":
        return
    bad = ~np.isfinite(array_XYZ)
    if bad.any():
        first = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
        raise Refused(
            f"E_{container}_NONFINITE",
            f"{int(bad.sum())} voxels are NaN or infinite, the first at index {first}",
            "find out what they should be; if they are outside the field of view, write -1024",
        )

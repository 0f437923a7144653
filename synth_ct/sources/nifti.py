"""NIfTI-1 and NIfTI-2, one file or a pair, either byte order, read as if it were out to fool us.

Readers disagree about forms, units, zero spacing and shear, and each silently picks an answer. Here
the header must say one thing only; what it does not say is not assumed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np

from synth_ct.kit.axes import Affine, VoxelArray
from synth_ct.kit.durable import sha256_of
from synth_ct.kit.quarantine import Refused
from synth_ct.sources.gates import (
    FORM_LIMIT_MM,
    RawVolume,
    is_oblique,
    refuse_nonfinite,
    refuse_shape,
    refuse_size,
    trusted_affine,
    voxels_in,
)
from synth_ct.sources.inflate import (
    AGAIN,
    GZIP_MAGIC,
    appearance,
    beginning,
    inflate,
    refuse_other_length,
    refuse_short,
)

NIFTI1_BYTES, NIFTI2_BYTES = 348, 540
MAGIC = {b"n+1\0": "one", b"ni1\0": "pair", b"n+2\0": "one", b"ni2\0": "pair"}
DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
"""Datatype code -> numpy kind: real numbers only. Complex, RGB and 128-bit are no CT."""
MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Spatial unit code -> millimetres: unknown, metre, millimetre, micrometre."""
UNIT_NOTES = {0: "unit_unknown", 1: "unit_metre", 3: "unit_micrometre"}
FURTHEST_OFFSET = 1 << 26
EXPORT_AGAIN = "export it again from the original images"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the voxels lie in the file, before anything is decoded."""

    fields: Any
    """The header as a numpy record."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    is_pair: bool
    notes: tuple[str, ...]

    @property
    def bytes_expected(self) -> int:
        """Header, extensions and voxels."""
        return self.offset + int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def is_nifti(head: bytes) -> bool:
    """The size of the header stands first, in one of the two byte orders."""
    return byte_order(head) is not None


def byte_order(head: bytes) -> tuple[Literal["<", ">"], int] | None:
    """("<" or ">", 348 or 540), or None."""
    sizes = (NIFTI1_BYTES, NIFTI2_BYTES)
    if int.from_bytes(head[:4], "little") in sizes:
        return "<", int.from_bytes(head[:4], "little")
    if int.from_bytes(head[:4], "big") in sizes:
        return ">", int.from_bytes(head[:4], "big")
    return None


def read_nifti(path: Path) -> RawVolume:
    """Read `.nii`, `.nii.gz` or `.hdr` with its `.img`; refuse whatever is doubtful."""
    data = path.read_bytes()
    layout = read_layout(beginning(data, NIFTI2_BYTES))
    hashed = data
    if layout.is_pair:
        image = partner(path)
        data = image.read_bytes()
        hashed += data
    notes = [*layout.notes]
    is_zipped = data[:2] == GZIP_MAGIC
    if is_zipped:
        inflated = inflate(data, layout.bytes_expected, "NII")
        notes += inflated.notes
        data = inflated.data
    if is_zipped != path.name.lower().endswith(".gz"):
        notes.append("misnamed")
    row = layout.shape[0] * layout.dtype.itemsize
    refuse_other_length(data, layout.bytes_expected, row, "NII")
    with np.errstate(invalid="ignore", over="ignore"):
        affine, more = read_affine(layout.fields)
        array, scaling = read_values(data, layout)
    refuse_nonfinite("NII", array)
    return RawVolume(
        array_XYZ=array, affine=affine, sha256=sha256_of(hashed), notes=(*notes, *more, *scaling)
    )


def partner(path: Path) -> Path:
    """The `.img` of a `.hdr`, zipped or not."""
    name = path.name.removesuffix(".gz")
    stem, dot, suffix = name.rpartition(".")
    image = "IMG" if suffix.isupper() else "img"
    for candidate in (f"{stem}{dot}{image}", f"{stem}{dot}{image}.gz"):
        if path.with_name(candidate).exists():
            return path.with_name(candidate)
    raise Refused(
        "E_PAIR_MISSING", "a NIfTI header without its .img file", "put it beside the .hdr"
    )


# ---- layout ------------------------------------------------------------------------------------


def read_layout(head: bytes) -> Layout:
    """Read what must be known before voxels are decoded: kind, shape, type, size, offset."""
    order_and_size = byte_order(head)
    if order_and_size is None:
        raise Refused("E_NII_NOTNIFTI", f"not a NIfTI file: {appearance(head)}", AGAIN)
    order, size = order_and_size
    refuse_short(head, size, "NII")
    template = nib.nifti1.header_dtype if size == NIFTI1_BYTES else nib.nifti2.header_dtype
    fields = np.frombuffer(head[:size], template.newbyteorder(order))[0]
    magic = head[344:348] if size == NIFTI1_BYTES else head[4:8]
    if magic not in MAGIC:
        cause = "it lacks the NIfTI mark; in the older Analyze format left and right are unknown"
        raise Refused("E_NII_NOTNIFTI", cause, "convert the original images to NIfTI")
    shape, notes = read_shape(fields)
    code = int(fields["datatype"])
    if code not in DTYPES:
        cause = f"datatype {code} is not a real number: complex, colour or damaged"
        raise Refused("E_NII_DTYPE", cause, EXPORT_AGAIN)
    dtype = np.dtype(order + DTYPES[code])
    if int(fields["bitpix"]) != 8 * dtype.itemsize:
        cause = f"datatype {code} has {8 * dtype.itemsize} bits, but bitpix is {fields['bitpix']}"
        raise Refused("E_NII_DTYPE", cause, EXPORT_AGAIN)
    refuse_size("NII", shape, dtype.itemsize)
    is_pair = MAGIC[magic] == "pair"
    offset = read_offset(fields, 0 if is_pair else size + 4)
    return Layout(
        fields=fields, dtype=dtype, shape=shape, offset=offset, is_pair=is_pair, notes=notes
    )


def read_shape(fields: Any) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Three axes, or four with one volume, which is squeezed and noted."""
    count = int(fields["dim"][0])
    shape = tuple(int(n) for n in fields["dim"][1 : count + 1]) if 1 <= count <= 7 else ()
    if not shape or min(shape) < 1:
        cause = f"its header gives {count} axes of sizes {shape}"
        raise Refused("E_NII_SHAPE", cause, EXPORT_AGAIN)
    notes = ("squeezed",) if len(shape) == 4 and shape[3] == 1 else ()
    shape = shape[:3] if notes else shape
    refuse_shape("NII", shape)
    return shape, notes


def read_offset(fields: Any, least: int) -> int:
    """Where the voxels begin: behind the header, at a whole byte, not beyond reason."""
    offset = float(fields["vox_offset"])
    if not least <= offset <= FURTHEST_OFFSET or offset != int(offset):
        cause = f"its header puts the first voxel at byte {offset:g}; it begins at {least} or later"
        raise Refused("E_NII_OFFSET", cause, EXPORT_AGAIN)
    return int(offset)


# ---- geometry ----------------------------------------------------------------------------------


def read_affine(fields: Any) -> tuple[Affine, tuple[str, ...]]:
    """Voxel index -> RAS+ millimetres, if all the header says about it agrees."""
    pixdim = fields["pixdim"].astype(np.float64)
    if not (np.isfinite(pixdim[1:4]) & (pixdim[1:4] > 0)).all():
        cause = f"pixdim is {pixdim[1:4].tolist()}: readers take it for three different sizes"
        raise Refused("E_NII_PIXDIM", cause, "correct the spacing in its header")
    forms = _forms(fields, pixdim)
    unit = int(fields["xyzt_units"]) & 7
    if unit not in MILLIMETRES:
        cause = f"spatial unit {unit} is none that NIfTI knows"
        raise Refused("E_NII_SPACING", cause, "correct the unit in its header")
    notes = [UNIT_NOTES[unit]] if unit in UNIT_NOTES else []
    to_mm = np.diag([*[MILLIMETRES[unit]] * 3, 1.0])
    affines = [trusted_affine("NII", to_mm @ form) for form in forms]
    _refuse_conflict(affines, pixdim[1:4] * MILLIMETRES[unit])
    affine = affines[0]
    if is_oblique(affine):
        notes.append("oblique")
    return affine, tuple(notes)


def _forms(fields: Any, pixdim: np.ndarray) -> list[Affine]:
    """The affines the header gives, sform first; at least one."""
    codes = [int(fields["sform_code"]), int(fields["qform_code"])]
    if not any(codes) or not set(codes) <= set(range(6)):
        raise Refused(
            "E_NII_NOFORM",
            f"sform and qform codes are {codes}: left and right, front and back are unknown",
            "set its sform from the original images; a guess may swap the sides",
        )
    forms = []
    if codes[0]:
        rows = [fields[f"srow_{axis}"].astype(np.float64) for axis in "xyz"]
        forms.append(np.vstack([*rows, [0.0, 0.0, 0.0, 1.0]]))
    if codes[1]:
        forms.append(_qform(fields, pixdim))
    return forms


def _qform(fields: Any, pixdim: np.ndarray) -> Affine:
    """R(b, c, d) diag(spacing), the third axis turned where pixdim[0] is -1."""
    bcd = np.array([float(fields[f"quatern_{name}"]) for name in "bcd"])
    rest = 1.0 - float(bcd @ bcd)
    if not np.isfinite(rest) or rest < -1e-5:
        cause = "its quaternion is longer than 1, which is no rotation"
        raise Refused("E_NII_AFFINE", cause, EXPORT_AGAIN)
    if pixdim[0] not in (-1.0, 0.0, 1.0):
        cause = f"pixdim[0] must say the handedness with -1 or 1 and is {pixdim[0]:g}"
        raise Refused("E_NII_PIXDIM", cause, EXPORT_AGAIN)
    quaternion = np.array([np.sqrt(max(0.0, rest)), *bcd])
    flip = -1.0 if pixdim[0] < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = nib.quaternions.quat2mat(quaternion) * pixdim[1:4] * [1.0, 1.0, flip]
    affine[:3, 3] = [float(fields[f"qoffset_{axis}"]) for axis in "xyz"]
    return affine


def _refuse_conflict(affines: list[Affine], spacing: np.ndarray) -> None:
    apart = np.abs(affines[0] - affines[-1]).max()
    lengths = np.linalg.norm(affines[0][:3, :3], axis=0)
    sizes_apart = np.abs(lengths - spacing).max()
    if apart <= FORM_LIMIT_MM and sizes_apart <= FORM_LIMIT_MM:
        return
    raise Refused(
        "E_NII_FORM_CONFLICT",
        f"its sform, qform and pixdim differ by up to {max(apart, sizes_apart):.3g} mm; programs "
        "follow one or the other",
        "find out which is right and set the others to it",
    )


# ---- values ------------------------------------------------------------------------------------


def read_values(data: bytes, layout: Layout) -> tuple[VoxelArray, tuple[str, ...]]:
    """value = slope x stored + intercept; a slope of 0 or NaN means that there is none."""
    stored = voxels_in(data, layout.dtype, layout.shape, layout.offset)
    slope, intercept = (float(layout.fields[f"scl_{name}"]) for name in ("slope", "inter"))
    if slope == 0 or np.isnan(slope):
        return stored, ("slope_unset",)
    if (slope, intercept) == (1.0, 0.0):
        return stored, ()
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept), ()

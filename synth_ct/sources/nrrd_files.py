"""NRRD (`.nrrd`, `.nhdr` with its raw file): header by pynrrd, geometry and voxels by us."""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nrrd
import numpy as np

from synth_ct.kit.axes import Affine
from synth_ct.kit.durable import sha256_of
from synth_ct.kit.quarantine import Refused, printable
from synth_ct.sources.gates import (
    RawVolume,
    refuse_nonfinite,
    refuse_shape,
    refuse_size,
    trusted_affine,
    voxels_in,
)
from synth_ct.sources.inflate import GZIP_MAGIC, inflate, refuse_other_length
from synth_ct.sources.metaimage import data_file

SIGNS = {
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
}  # fmt: skip
"""Space -> signs that turn it into RAS. Spaces that name no body sides are refused."""
DTYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
EXPORT_AGAIN = "export it again, for example with 3D Slicer"
DAMAGE = (nrrd.NRRDError, ValueError, LookupError, TypeError, AttributeError, OverflowError)
"""What pynrrd raises on malformed headers, depending on where they are."""


def is_nrrd(head: bytes) -> bool:
    """The mark of every NRRD version."""
    return head.startswith(b"NRRD000")


def read_nrrd(path: Path) -> RawVolume:
    """Read an NRRD; refuse what its header leaves open."""
    whole = path.read_bytes()
    header, behind = parse_header(whole)
    shape = tuple(int(n) for n in header["sizes"])
    refuse_shape("NRRD", shape)
    dtype = _dtype(header)
    refuse_size("NRRD", shape, dtype.itemsize)
    affine = read_affine(header)
    hashed, data = whole, whole[behind:]
    name = header.get("data file", header.get("datafile"))
    if name is not None:
        data = data_file(path, str(name), "NRRD").read_bytes()
        hashed += data
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
    data, notes = _voxel_bytes(header, data, expected)
    refuse_other_length(data, expected, shape[0] * dtype.itemsize, "NRRD")
    array = voxels_in(data, dtype, shape)
    refuse_nonfinite("NRRD", array)
    return RawVolume(array_XYZ=array, affine=affine, sha256=sha256_of(hashed), notes=notes)


def parse_header(whole: bytes) -> tuple[Mapping[str, Any], int]:
    """The header's fields, and where the voxels begin if they are in the same file."""
    stream = io.BytesIO(whole)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pynrrd warns where a field stands twice
            header = dict(nrrd.read_header(stream))
        if int(header["dimension"]) != len(header["sizes"]):
            raise ValueError("dimension and sizes disagree")
    except (*DAMAGE, UserWarning) as error:
        cause = f"its header cannot be understood ({printable(str(error))[:100]})"
        raise Refused("E_NRRD_HEADER", cause, EXPORT_AGAIN) from error
    return header, stream.tell()


def read_affine(header: Mapping[str, Any]) -> Affine:
    """Columns = `space directions`, origin = `space origin`, turned into RAS by `space`."""
    space = str(header.get("space", "")).lower()
    if space not in SIGNS or "space directions" not in header or "space origin" not in header:
        cause = "its space, directions or origin are missing: left and right are unknown"
        raise Refused("E_NRRD_NOFORM", cause, EXPORT_AGAIN)
    if any(str(unit).lower() not in ("mm", "millimeter") for unit in header.get("space units", [])):
        raise Refused("E_NRRD_SPACING", "its space units are not mm", EXPORT_AGAIN)
    affine = np.eye(4)
    try:
        affine[:3, :3] = np.array(header["space directions"], np.float64).T
        affine[:3, 3] = np.array(header["space origin"], np.float64)
    except (ValueError, TypeError) as error:
        cause = "its space directions or origin are not made of three numbers an axis"
        raise Refused("E_NRRD_AFFINE", cause, EXPORT_AGAIN) from error
    return trusted_affine("NRRD", np.diag([*SIGNS[space], 1.0]) @ affine)


def _dtype(header: Mapping[str, Any]) -> np.dtype[np.generic]:
    kind = str(header.get("type", "")).lower()
    for code, names in DTYPES.items():
        if kind in names.split(", "):
            is_big = str(header.get("endian", "little")).lower() == "big"
            return np.dtype((">" if is_big else "<") + code)
    raise Refused("E_NRRD_DTYPE", f"type {printable(kind)!r} is not read", EXPORT_AGAIN)


def _voxel_bytes(
    header: Mapping[str, Any], data: bytes, expected: int
) -> tuple[bytes, tuple[str, ...]]:
    encoding = str(header.get("encoding", "")).lower()
    skips = [header.get(key, 0) for key in ("byte skip", "byteskip", "line skip", "lineskip")]
    if encoding not in ("raw", "gzip", "gz") or any(skips):
        cause = f"encoding {printable(encoding)!r} or skipped bytes are not read here"
        raise Refused("E_NRRD_ENCODING", cause, EXPORT_AGAIN)
    notes: tuple[str, ...] = ()
    if encoding != "raw" and data[:2] == GZIP_MAGIC:
        inflated = inflate(data, expected, "NRRD")
        data, notes = inflated.data, inflated.notes
    elif encoding != "raw":
        raise Refused("E_NRRD_CRC", "its voxels should be gzipped and are not", EXPORT_AGAIN)
    return data, notes

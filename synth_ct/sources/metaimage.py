"""MetaImage (`.mha`, `.mhd` with its raw file): a text header, then voxels, perhaps deflated."""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from synth_ct.kit.axes import LPS_TO_RAS, Affine
from synth_ct.kit.durable import sha256_of
from synth_ct.kit.quarantine import Refused, printable
from synth_ct.sources.gates import (
    Container,
    RawVolume,
    refuse_nonfinite,
    refuse_shape,
    refuse_size,
    trusted_affine,
    voxels_in,
)
from synth_ct.sources.inflate import AGAIN, SLACK, refuse_other_length
from synth_ct.sources.paths import inside

LONGEST_HEADER = 1 << 16
LONGEST_NAME = 200
DTYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
"""`MET_LONG` is left out: four or eight bytes, depending on who wrote it."""
ALIASES = {
    "Origin": "Offset", "Position": "Offset", "Orientation": "TransformMatrix",
    "Rotation": "TransformMatrix", "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}  # fmt: skip
EXPORT_AGAIN = "export it again, for example with 3D Slicer"


def is_metaimage(head: bytes) -> bool:
    """Its first lines are `Key = Value`, and one of the first keys is NDims or ObjectType."""
    first = head.split(b"\n", 1)[0].replace(b" ", b"")
    return first.startswith((b"ObjectType=", b"NDims="))


def read_metaimage(path: Path) -> RawVolume:
    """Read a MetaImage; refuse what its header leaves open."""
    whole = path.read_bytes()
    header, behind = parse_header(whole)
    shape = tuple(_integers(header, "DimSize"))
    if header.get("ElementNumberOfChannels", "1") != "1":
        shape = (*shape, *_integers(header, "ElementNumberOfChannels"))
    refuse_shape("MHA", shape)
    dtype = _dtype(header)
    refuse_size("MHA", shape, dtype.itemsize)
    affine = read_affine(header)
    hashed, data = whole, whole[behind:]
    if header["ElementDataFile"] != "LOCAL":
        data = data_file(path, header["ElementDataFile"], "MHA").read_bytes()
        hashed += data
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
    data = _voxel_bytes(header, data, expected)
    refuse_other_length(data, expected, shape[0] * dtype.itemsize, "MHA")
    array = voxels_in(data, dtype, shape)
    refuse_nonfinite("MHA", array)
    return RawVolume(array_XYZ=array, affine=affine, sha256=sha256_of(hashed))


def parse_header(whole: bytes) -> tuple[dict[str, str], int]:
    """Key -> value up to ElementDataFile, which is always last, and where the voxels begin."""
    header: dict[str, str] = {}
    position = 0
    while position < min(len(whole), LONGEST_HEADER):
        end = whole.find(b"\n", position)
        end = len(whole) if end < 0 else end
        line = whole[position:end].decode("utf-8", "surrogateescape")
        position = end + 1
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or ALIASES.get(key, key) in header:
            raise _broken(f"line {printable(line[:60])!r} is no key and value, or is there twice")
        header[ALIASES.get(key, key)] = value
        if key == "ElementDataFile":
            return header, position
    raise _broken("it has no ElementDataFile")


def data_file(path: Path, name: str, container: Container) -> Path:
    """The file that holds the voxels of a detached header; it must lie in the same folder."""
    if name == "LIST" or "%" in name or "\0" in name or len(os.fsencode(name)) > LONGEST_NAME:
        cause = f"its voxels are not in one file that could be read ({printable(name[:60])!r})"
        raise Refused(f"E_{container}_HEADER", cause, EXPORT_AGAIN)
    file = inside(path.parent, path.parent / name)
    if not file.is_file():
        cause = f"its voxels are in {printable(name)}, which is not there"
        raise Refused("E_PAIR_MISSING", cause, "put it beside the header")
    return file


def read_affine(header: Mapping[str, str]) -> Affine:
    """Columns = spacing x the direction of each axis; ITK's LPS becomes RAS."""
    for key in ("TransformMatrix", "Offset"):
        if key not in header:
            cause = f"it has no {key}: left and right, front and back are unknown"
            raise Refused("E_MHA_NOFORM", cause, EXPORT_AGAIN)
    spacing = _numbers(header, "ElementSpacing", 3)
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        raise Refused("E_MHA_PIXDIM", f"ElementSpacing is {spacing.tolist()}", EXPORT_AGAIN)
    affine = np.eye(4)
    affine[:3, :3] = _numbers(header, "TransformMatrix", 9).reshape(3, 3).T
    if not np.isfinite(affine).all() or np.abs((affine[:3, :3] ** 2).sum(0) - 1).max() > 1e-3:
        cause = "the rows of TransformMatrix are not of length 1"
        raise Refused("E_MHA_AFFINE", cause, EXPORT_AGAIN)
    affine[:3, :3] *= spacing
    affine[:3, 3] = _numbers(header, "Offset", 3)
    return trusted_affine("MHA", LPS_TO_RAS @ affine)


def _dtype(header: Mapping[str, str]) -> np.dtype[np.generic]:
    kind = header.get("ElementType", "")
    if kind not in DTYPES:
        raise Refused("E_MHA_DTYPE", f"ElementType {printable(kind)!r} is not read", EXPORT_AGAIN)
    is_big = header.get("BinaryDataByteOrderMSB", "False").lower() == "true"
    return np.dtype((">" if is_big else "<") + DTYPES[kind])


def _voxel_bytes(header: Mapping[str, str], data: bytes, expected: int) -> bytes:
    if header.get("BinaryData", "True").lower() != "true" or header.get("HeaderSize", "0") != "0":
        raise _broken("voxels written as text or behind a foreign header are not read here")
    if header.get("CompressedData", "False").lower() == "true":
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(data, expected + SLACK)
        except zlib.error as error:
            cause = f"its compressed voxels are damaged ({error})"
            raise Refused("E_MHA_CRC", cause, AGAIN) from error
        if expected <= len(data) < expected + SLACK and not inflater.eof:
            cause = "the checksum of its compressed voxels is missing"
            raise Refused("E_MHA_CRC", cause, AGAIN)
    return data


def _numbers(header: Mapping[str, str], key: str, count: int) -> np.ndarray:
    try:
        numbers = [float(word) for word in header.get(key, "").split()]
    except ValueError as error:
        raise _broken(f"{key} is not made of numbers") from error
    if len(numbers) != count:
        raise _broken(f"{key} has {len(numbers)} numbers instead of {count}")
    return np.array(numbers)


def _integers(header: Mapping[str, str], key: str) -> list[int]:
    try:
        return [int(word) for word in header.get(key, "").split()]
    except ValueError as error:
        raise _broken(f"{key} is not made of whole numbers") from error


def _broken(cause: str) -> Refused:
    return Refused("E_MHA_HEADER", cause, EXPORT_AGAIN)

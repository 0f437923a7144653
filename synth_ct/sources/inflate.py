"""Bytes of a file, gunzipped to the very end, so that its checksum is really compared.

Image libraries stop reading once they have the voxels they want and never reach the checksum; most
damage then loads as other values. Nothing here decompresses more than it was told to expect.
"""

from dataclasses import dataclass

from isal import igzip_lib, isal_zlib

from synth_ct.kit.quarantine import Refused
from synth_ct.sources.gates import Container

GZIP_MAGIC = b"\x1f\x8b"
GZIP_WBITS = 31
DAMAGED: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]
SLACK = 1 << 20
"""So many bytes may follow the voxels: some writers pad."""
HIGH_RATIO = 200
AGAIN = "copy or download it again"
LOOKS_LIKE = {
    b"PK\x03\x04": "a zip archive",
    b"\xfd7zXZ": "an xz archive",
    b"BZh": "a bzip2 archive",
    b"\x28\xb5\x2f\xfd": "a zstandard archive",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
}


@dataclass(frozen=True, slots=True)
class Inflated:
    """What came out of a gzip stream."""

    data: bytes
    notes: tuple[str, ...]


def beginning(data: bytes, count: int) -> bytes:
    """The first decompressed bytes, as many as can be had, without judging the rest."""
    if data[:2] != GZIP_MAGIC:
        return data[:count]
    try:
        return bytes(isal_zlib.decompressobj(wbits=GZIP_WBITS).decompress(data[: 1 << 16], count))
    except DAMAGED:
        return b""


def inflate(data: bytes, expected: int, container: Container) -> Inflated:
    """Gunzip all members of `data`; refuse damage, and much more than `expected` bytes."""
    pieces: list[bytes] = []
    size, left = 0, data
    while left[:2] == GZIP_MAGIC:
        member = isal_zlib.decompressobj(wbits=GZIP_WBITS)
        try:
            piece = member.decompress(left, expected + SLACK - size + 1)
        except DAMAGED as error:
            cause = f"its gzip stream is damaged ({error}): the voxels may be other than written"
            raise Refused(f"E_{container}_CRC", cause, AGAIN) from error
        pieces.append(piece)
        size += len(piece)
        _refuse_too_much(size, expected, container)
        if not member.eof:
            _refuse_cut(size, expected, container)
        left = member.unused_data
    notes = ["trailing_bytes"] if left else []
    if size > HIGH_RATIO * len(data):
        notes.append("high_compression")
    return Inflated(b"".join(pieces), tuple(notes))


def _refuse_too_much(size: int, expected: int, container: Container) -> None:
    if size > expected + SLACK:
        raise Refused(
            f"E_{container}_SHAPE",
            f"it unpacks to far more than the {expected} bytes its header speaks of",
            "export it again from the original images",
        )


def _refuse_cut(size: int, expected: int, container: Container) -> None:
    if size < expected:
        cause = f"it is cut off: {size} of {expected} bytes can be unpacked"
        raise Refused(f"E_{container}_TRUNCATED", cause, AGAIN)
    cause = "the checksum at its end is missing, so the voxels cannot be checked"
    raise Refused(f"E_{container}_CRC", cause, AGAIN)


def refuse_short(data: bytes, expected: int, container: Container) -> None:
    """Every voxel the header speaks of must be there; a reader that fills up with 0 invents."""
    if len(data) < expected:
        cause = f"it is cut off: {len(data)} of {expected} bytes are there"
        raise Refused(f"E_{container}_TRUNCATED", cause, AGAIN)


def refuse_other_length(data: bytes, expected: int, row: int, container: Container) -> None:
    """As many bytes as the shape needs; a `row` of voxels too many means another shape."""
    refuse_short(data, expected, container)
    if len(data) >= expected + row:
        cause = f"it holds {len(data)} bytes where its header's shape needs {expected}"
        remedy = "find out its true shape, or export it again from the original images"
        raise Refused(f"E_{container}_SHAPE", cause, remedy)


def appearance(data: bytes) -> str:
    """What the beginning of a file that is no image looks like."""
    if not data:
        return "it is empty"
    if not any(data[:4096]):
        return "it begins with zeros only"
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it looks like HTML (a failed download?)"
    for magic, what in LOOKS_LIKE.items():
        if data.startswith(magic):
            return f"it is {what}"
    return "its beginning is that of no image format known here"

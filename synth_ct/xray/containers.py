"""What kind of file it is, told by its first bytes, and whether its structure is whole.

Pillow reads a PNG or JPEG whose end is missing, or whose checksum is wrong in a chunk it does not
need, without a word. Here the chunks and markers are walked first.
"""

import struct
import zlib
from typing import Literal

from synth_ct.kit.quarantine import Refused

Container = Literal["png", "jpeg", "tiff", "dicom"]

ENDINGS: dict[str, Container] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".dcm": "dicom",
    ".dicom": "dicom",
}
SIGNATURES: tuple[tuple[int, bytes, Container], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
    (128, b"DICM", "dicom"),
)
UNREAD: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GIF8", "a GIF"),
    (8, b"WEBP", "a WebP"),
    (4, b"jP  ", "a JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 stream"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (4, b"JXL ", "a JPEG XL"),
    (0, b"BM", "a BMP"),
    (4, b"ftyp", "a HEIF or AVIF"),
    (0, b"II+\0", "a BigTIFF"),
    (0, b"%PDF", "a PDF"),
)
LOSSY_8_BIT = frozenset({0xC0, 0xC1, 0xC2})
"""Start-of-frame markers of baseline, extended and progressive JPEG."""
OTHER_FRAMES = frozenset({0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})


def sniff(data: bytes) -> Container:
    """Say what the bytes are, or refuse what is no radiograph of a kind we read."""
    if not data:
        raise Refused("E_IMG_EMPTY", "the file is empty (0 bytes)", "copy or download it again")
    for at, signature, container in SIGNATURES:
        if data[at : at + len(signature)] == signature:
            return container
    if data[:2] in (b"\x08\x00", b"\x02\x00") and data[4:6].isalpha() and data[4:6].isupper():
        return "dicom"  # without the preamble, as some archives store it
    for at, signature, what in UNREAD:
        if data[at : at + len(signature)] == signature:
            raise Refused(
                "E_IMG_FORMAT",
                f"{what} file; only PNG, JPEG, TIFF and DICOM are read, so that every decoder "
                "involved is one we test",
                "convert it to PNG without loss",
            )
    head = data[:1024].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html", b"<?xml")) or b"<html" in head:
        raise Refused(
            "E_IMG_NOTIMAGE", "it looks like HTML (failed download?)", "download it again"
        )
    raise Refused("E_IMG_NOTIMAGE", "its content is no image we know", "remove it or convert it")


def truncated(where: str) -> Refused:
    """The refusal of a file that ends too early."""
    return Refused(
        "E_IMG_TRUNCATED",
        f"the data end or break off {where}; what is missing would be shown as grey",
        "copy or download it again",
    )


# ---- PNG ---------------------------------------------------------------------------------------


def check_png(data: bytes) -> frozenset[bytes]:
    """Walk all chunks to the end; return their names. Each checksum must be right."""
    at, names = 8, set()
    while b"IEND" not in names:
        if at + 12 > len(data):
            raise truncated("in mid-chunk")
        length, name = struct.unpack(">I4s", data[at : at + 8])
        end = at + 12 + length
        if end > len(data):
            raise truncated(f"in its chunk at byte {at}")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise Refused(
                "E_IMG_CRC",
                f"the checksum of its chunk at byte {at} is wrong: some of its bits have flipped",
                "copy or download it again",
            )
        names.add(name)
        at = end
    return frozenset(names)


def png_depth(data: bytes) -> tuple[int, int]:
    """Bits a sample and colour type (0 grey, 2 RGB, 3 palette, 4 grey + alpha, 6 RGBA)."""
    return data[24], data[25]


# ---- JPEG --------------------------------------------------------------------------------------


def check_jpeg(data: bytes) -> None:
    """Walk the markers to the scan: 8 bits, not lossless, and an end-of-image after it."""
    at = 2
    while at + 5 <= len(data):
        if data[at] != 0xFF:
            raise truncated(f"at byte {at}, where a marker should stand")
        kind = data[at + 1]
        if kind == 0xFF:  # padding before a marker
            at += 1
            continue
        if kind in LOSSY_8_BIT | OTHER_FRAMES:
            _check_frame(kind, data[at + 4])
        if kind == 0xDA:
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if data.find(b"\xff\xd9", at) < 0:
        raise truncated("before the end-of-image marker")


def _check_frame(kind: int, bits: int) -> None:
    if kind in OTHER_FRAMES or bits != 8:
        what = f"{bits}-bit" if kind in LOSSY_8_BIT else "lossless or arithmetic-coded"
        raise Refused(
            "E_IMG_FORMAT",
            f"a {what} JPEG; decoders disagree about it or lose its range",
            "convert it to 16-bit PNG, or keep it inside its DICOM file",
        )

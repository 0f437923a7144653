"""The files of one pair of digits of a corpus, against what was recorded of them."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip_lib, isal_zlib

from synth_ct.corpus.layout import preview_file, quarantine_file, volume_file
from synth_ct.corpus.row import Entry, Quarantined, Row, line_of, voxel_sha256
from synth_ct.kit.durable import sha256_of

KINDS = ("volumes", "previews", "quarantine")
SUFFIXES = (".nii.gz", ".png", ".json")
HEADER_BYTES = 352
"""NIfTI-1 without extensions."""
GZIP_AND_ZLIB_HEADER = 31
PNG_BEGIN, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
GEOMETRY_LIMIT_MM = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One file of a corpus that is not as it was recorded."""

    file: str
    """Below the corpus."""
    kind: str
    """missing, damaged, truncated, swapped, header, voxels, stray, leftover, misplaced, ..."""
    detail: str
    found_sha256: str = ""
    """Of a damaged file: it may be another's."""


def faults_of_group(
    corpus: Path, digits: str, entries: Sequence[Entry], receipts_hold: bool
) -> list[Fault]:
    """Everything below the folders `digits`: what should be there is whole, and nothing else is."""
    faults = []
    expected: dict[str, str] = {}
    for entry in entries:
        if isinstance(entry, Row):
            faults += faults_of_row(corpus, entry)
            why = f"its row says it was rejected ({entry.reason})" if not entry.accepted else ""
            if entry.accepted:
                expected[volume_file(entry.id)] = ""
            else:
                expected[f"no {volume_file(entry.id)}"] = why
            if entry.preview_sha256:
                expected[preview_file(entry.id)] = ""
        else:
            expected[quarantine_file(entry.id)] = ""
            expected[f"no {volume_file(entry.id)}"] = f"its item is quarantined ({entry.code})"
            faults += _of_quarantined(corpus, entry, receipts_hold)
    return faults + list(_unrecorded(corpus, digits, expected))


def faults_of_row(corpus: Path, row: Row) -> list[Fault]:
    """The volume and the preview of one row."""
    faults = []
    if row.accepted:
        faults += faults_of_volume(corpus, row)
    if row.preview_sha256:
        file = preview_file(row.id)
        data, fault = _read(corpus, file)
        if fault:
            faults.append(fault)
        elif sha256_of(data) != row.preview_sha256:
            kind = "damaged" if _has_end(data) else "truncated"
            faults.append(_differs(file, kind, data, row.preview_sha256))
    return faults


# ---- one volume --------------------------------------------------------------------------------


def faults_of_volume(corpus: Path, row: Row) -> list[Fault]:
    """Bytes as recorded, one whole gzip member, a header of ours, and the recorded voxels."""
    file = volume_file(row.id)
    data, fault = _read(corpus, file)
    if fault:
        return [fault]
    expected = HEADER_BYTES + 2 * int(np.prod(row.shape, dtype=object))
    nifti, complaint = _inflated(data, expected)
    if sha256_of(data) != row.file_sha256:
        # A flipped bit can also make a stream end early, but leaves the length in its last bytes.
        has_end = data[-4:] == expected.to_bytes(8, "little")[:4]
        is_short = complaint == "ends early" and not has_end
        return [_differs(file, "truncated" if is_short else "damaged", data, row.file_sha256)]
    if complaint:
        return [Fault(file=file, kind="gzip", detail=f"its gzip stream {complaint}")]
    wrong = "; ".join(_wrong_in_header(nifti, row))
    if wrong:
        return [Fault(file=file, kind="header", detail=wrong)]
    voxels_XYZ = np.frombuffer(nifti, "<i2", offset=HEADER_BYTES).reshape(row.shape, order="F")
    if voxel_sha256(voxels_XYZ) != row.voxel_sha256:
        return [Fault(file=file, kind="voxels", detail="its voxels are not those of its row")]
    return []


def _inflated(data: bytes, expected: int) -> tuple[bytes, str]:
    """Inflate at most a byte more than there should be; say what is wrong with the stream."""
    stream = isal_zlib.decompressobj(wbits=GZIP_AND_ZLIB_HEADER)
    try:
        inflated = stream.decompress(data, expected + 1)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # it has no stubs
        return b"", f"is broken ({error})"
    if len(inflated) > expected:
        return b"", "holds more than its row says"
    if not stream.eof:
        return b"", "ends early"
    return inflated, "is followed by something else" if stream.unused_data else ""


def _wrong_in_header(nifti: bytes, row: Row) -> Iterable[str]:
    """What a header says that ours do not."""
    if len(nifti) != HEADER_BYTES + 2 * int(np.prod(row.shape, dtype=object)):
        yield f"{len(nifti)} bytes do not hold {row.shape} int16 voxels"
        return
    try:
        header: Any = nib.Nifti1Header(nifti[: HEADER_BYTES - 4])
    except nib.spatialimages.HeaderDataError as error:
        yield str(error)
        return
    fields = {
        "datatype": ("int16", str(header.get_data_dtype())),
        "shape": (tuple(row.shape), tuple(header.get_data_shape())),
        "first voxel": (HEADER_BYTES, int(header["vox_offset"])),
        "unit": ("mm", header.get_xyzt_units()[0]),
        "form codes": ((1, 1), (int(header["qform_code"]), int(header["sform_code"]))),
        "slope and intercept": ((1.0, 0.0), _scaling(header)),
    }
    for name, (wanted, found) in fields.items():
        if wanted != found:
            yield f"{name} is {found}, not {wanted}"
    yield from _wrong_in_geometry(header, row)


def _scaling(header: Any) -> tuple[float, float]:
    return float(header["scl_slope"]), float(header["scl_inter"])


def _wrong_in_geometry(header: Any, row: Row) -> Iterable[str]:
    sform, zooms = header.get_sform(), header["pixdim"][1:4]
    if not np.isfinite(sform).all() or abs(np.linalg.det(sform[:3, :3])) < 1e-9:
        yield "its affine is singular"
        return
    if np.abs(sform - header.get_qform()).max() > GEOMETRY_LIMIT_MM:
        yield "sform and qform differ"
    if nib.aff2axcodes(sform) != ("R", "A", "S"):
        yield f"its axes run {''.join(nib.aff2axcodes(sform))}, not RAS"
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    for found in (lengths, zooms):
        if np.abs(found - row.spacing_mm).max() > GEOMETRY_LIMIT_MM:
            yield f"voxels of {np.round(found, 4).tolist()} mm, not {list(row.spacing_mm)}"


# ---- everything else ---------------------------------------------------------------------------


def _of_quarantined(corpus: Path, entry: Quarantined, receipts_hold: bool) -> list[Fault]:
    """Its file says what its receipt says; whose fault it is otherwise, the receipts' sum tells."""
    file = quarantine_file(entry.id)
    data, fault = _read(corpus, file)
    if fault:
        return [fault]
    if data == line_of(entry).encode() or not receipts_hold:
        return []
    return [Fault(file=file, kind="damaged", detail="it does not say what its receipt says")]


def _unrecorded(corpus: Path, digits: str, expected: dict[str, str]) -> Iterable[Fault]:
    """Files that nothing speaks of."""
    for kind, suffix in zip(KINDS, SUFFIXES, strict=True):
        folder = corpus / kind / digits
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        for name in names:
            file = f"{kind}/{digits}/{name}"
            if file not in expected:
                yield _stray(file, name, suffix, digits, expected.get(f"no {file}", ""))


def _stray(file: str, name: str, suffix: str, digits: str, why: str) -> Fault:
    if name.startswith(".") and ".tmp" in name:
        return Fault(file=file, kind="leftover", detail="a write that was not finished")
    if not why and name.endswith(suffix) and not name.startswith(digits):
        place = f"{file.split('/', maxsplit=1)[0]}/{name[:2]}/"
        return Fault(file=file, kind="misplaced", detail=f"an id that begins so belongs in {place}")
    return Fault(file=file, kind="stray", detail=why or "nothing that is recorded speaks of it")


def _read(corpus: Path, file: str) -> tuple[bytes, Fault | None]:
    try:
        return (corpus / file).read_bytes(), None
    except FileNotFoundError:
        return b"", Fault(file=file, kind="missing", detail="it is recorded, and not there")
    except OSError as error:
        return b"", Fault(file=file, kind="unreadable", detail=str(error.strerror))


def _has_end(data: bytes) -> bool:
    """The last bytes are those of a PNG, or were before a bit or two were flipped."""
    last = int.from_bytes(data[-len(PNG_END) :], "big") ^ int.from_bytes(PNG_END, "big")
    return last.bit_count() <= 4


def png_is_whole(data: bytes) -> bool:
    """Signature, and every chunk with its CRC, to the last: a PNG without a recorded sum."""
    at = len(PNG_BEGIN)
    if data[:at] != PNG_BEGIN:
        return False
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        crc = int.from_bytes(data[end - 4 : end], "big")
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != crc:
            return False
        at = end
    return at == len(data) and data.endswith(PNG_END)


def _differs(file: str, kind: str, data: bytes, recorded: str) -> Fault:
    found = sha256_of(data)
    detail = f"its sha256 is {found[:12]}..., recorded {recorded[:12]}..."
    return Fault(file=file, kind=kind, detail=detail, found_sha256=found)


def named_swaps(faults: list[Fault], rows: Iterable[Row]) -> list[Fault]:
    """Of damaged files, those that hold the bytes of another one are told by whose."""
    asked = {fault.found_sha256 for fault in faults if fault.found_sha256}
    if not asked:
        return faults
    owners: dict[str, str] = {}
    for row in rows:
        if row.file_sha256 in asked:
            owners[row.file_sha256] = volume_file(row.id)
        if row.preview_sha256 in asked:
            owners[row.preview_sha256] = preview_file(row.id)
    return [
        replace(fault, kind="swapped", detail=f"it holds the bytes of {owners[fault.found_sha256]}")
        if fault.found_sha256 in owners
        else fault
        for fault in faults
    ]

"""A DICOM CT series to a volume, or a reason why not.

`series_in` finds the series of a folder, `read_series` reads one. Every slice must be there, whole,
in Hounsfield units and where a stack would have it; nothing is interpolated, filled in or guessed.
"""

import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Bool, Int16, Integer
from pydicom.dataset import FileDataset
from pydicom.pixels import get_decoder

from synth_ct.kit.axes import HuArray
from synth_ct.kit.durable import sha256_of
from synth_ct.kit.quarantine import Refused, printable
from synth_ct.kit.quiet import BROKEN_DICOM, quiet_pydicom
from synth_ct.kit.volume import AIR_HU, MAX_HU, Volume, to_int16, to_ras
from synth_ct.sources.dicom_geometry import Plane, names, stack
from synth_ct.sources.dicom_series import Series, SeriesFound, series_in
from synth_ct.sources.gates import is_oblique
from synth_ct.sources.hounsfield import hu_notes

__all__ = ["Series", "SeriesFound", "read_series", "series_in"]

StoredImage = Integer[np.ndarray, "rows columns"]
HuImage = Int16[np.ndarray, "rows columns"]
Mask = Bool[np.ndarray, "rows columns"]

LONGEST_EDGE = 4096
MOST_VOXELS = 2**30
MOST_ABOVE = 0.02
"""Metal is brighter than what is kept on disk, but small."""
HU_TYPES = frozenset({"", "HU", "US"})
"""RescaleType of Hounsfield units; absent and "unspecified" are usual in old CT."""
AGAIN = "export the series again from the archive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One slice whose pixels are not decoded yet."""

    plane: Plane
    rescale: tuple[float, ...]
    """Slope and intercept; empty if either is missing or senseless."""
    padding: tuple[int, ...]
    """PixelPaddingValue and PixelPaddingRangeLimit, as far as there are any."""
    bits: int
    """BitsStored."""
    is_grey: bool
    is_lossy: bool
    header: FileDataset
    """Only to be decoded; every other value is above, checked."""


def read_series(files: Sequence[Path]) -> tuple[Volume, tuple[str, ...], str]:
    """The volume (int16 HU, RAS+), notes, and the sha256 over the slices' sorted sha256s.

    Each file is read once, so that what is hashed is what is decoded.
    """
    common = os.path.commonpath([path.parent for path in files])
    contents = {printable(path.relative_to(common)): path.read_bytes() for path in files}
    sha256 = sha256_of("".join(sorted(map(sha256_of, contents.values()))).encode())
    slices = parse_all(contents)
    order, affine = stack([s.plane for s in slices])
    slices = [slices[i] for i in order]
    check_described(slices)
    array_XYZ, padded = decode_all(slices)
    check_ceiling(array_XYZ)
    notes = {
        "padding_to_air": padded,
        "lossy": any(s.is_lossy for s in slices),
        "oblique": is_oblique(affine),
    }
    said = [note for note, holds in notes.items() if holds]
    said += [note for note in hu_notes(array_XYZ) if note not in said]
    return to_ras(Volume(to_int16(array_XYZ), affine)), tuple(said), sha256


# ---- headers -------------------------------------------------------------------------------------


def parse_all(contents: dict[str, bytes]) -> list[Slice]:
    """Parse every slice, or name all that cannot be."""
    slices: list[Slice] = []
    broken: list[str] = []
    for name, data in contents.items():
        try:
            with quiet_pydicom():
                slices.append(_parse(name, data))
        except BROKEN_DICOM:
            broken.append(name)
    _refuse("E_DCM_TRUNCATED", "are cut off or damaged before their pixels", broken, len(contents))
    return slices


def _parse(name: str, data: bytes) -> Slice:
    header = pydicom.dcmread(io.BytesIO(data))
    if "PixelData" not in header:
        raise EOFError("the file ends before its pixels")
    plane = Plane(
        file=name,
        shape=(int(header.Rows), int(header.Columns)),
        position=_numbers(header, "ImagePositionPatient"),
        orientation=_numbers(header, "ImageOrientationPatient"),
        pixel_mm=_numbers(header, "PixelSpacing"),
    )
    rescale = (*_numbers(header, "RescaleSlope"), *_numbers(header, "RescaleIntercept"))
    is_hu = str(header.get("RescaleType") or "").strip().upper() in HU_TYPES
    usable = is_hu and len(rescale) == 2 and rescale[0] > 0
    one_channel = header.get("SamplesPerPixel", 1) == 1
    ends = (_numbers(header, k) for k in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    return Slice(
        plane=plane,
        rescale=rescale if usable else (),
        padding=tuple(int(v) for values in ends for v in values if abs(v) < 2**32),
        bits=int(header.BitsStored),
        is_grey=header.get("PhotometricInterpretation") == "MONOCHROME2" and one_channel,
        is_lossy=header.get("LossyImageCompression") == "01",
        header=header,
    )


def _numbers(header: FileDataset, keyword: str) -> tuple[float, ...]:
    """The finite numbers of an element; empty if it is absent or holds anything else."""
    try:
        value = header.get(keyword)
        if value is None or value == "":
            return ()
        numbers = tuple(float(v) for v in np.atleast_1d(value))
    except BROKEN_DICOM:
        return ()
    return numbers if np.isfinite(numbers).all() else ()


def check_described(slices: Sequence[Slice]) -> None:
    """Refuse pixels that are no grey HU, by their headers, before anything is decoded."""
    rows, columns = slices[0].plane.shape
    if max(rows, columns) > LONGEST_EDGE or rows * columns * len(slices) > MOST_VOXELS:
        cause = f"{rows}x{columns}x{len(slices)} voxels are more than any CT has"
        raise Refused("E_DCM_TOO_BIG", cause, AGAIN)
    _refuse_slices(slices, [s.is_grey for s in slices], "E_DCM_PHOTOMETRIC",
                   "are not MONOCHROME2, so bright may mean thin")  # fmt: skip
    _refuse_slices(slices, [bool(s.rescale) for s in slices], "E_DCM_RESCALE",
                   "have no usable RescaleSlope and RescaleIntercept to HU")  # fmt: skip
    usual = Counter(s.rescale for s in slices).most_common(1)[0][0]
    _refuse_slices(slices, [s.rescale == usual for s in slices], "E_DCM_MIXED_RESCALE",
                   f"have another rescale than {usual[0]:g} x + {usual[1]:g} of the rest; CT has "
                   "one, so some values are already converted")  # fmt: skip


def _refuse_slices(slices: Sequence[Slice], good: list[bool], code: str, what: str) -> None:
    bad = [s.plane.file for s, is_good in zip(slices, good, strict=True) if not is_good]
    _refuse(code, what, bad, len(slices))


def _refuse(code: str, what: str, bad: list[str], total: int) -> None:
    if bad:
        raise Refused(code, f"{len(bad)} of {total} slices {what}: {names(bad)}", AGAIN)


# ---- pixels --------------------------------------------------------------------------------------


def decode_all(slices: Sequence[Slice]) -> tuple[HuArray, bool]:
    """HU of all slices as (column, row, slice), and whether padding was turned into air."""
    rows, columns = slices[0].plane.shape
    array_XYZ = np.empty((columns, rows, len(slices)), np.int16, order="F")
    padded = False
    broken: list[str] = []
    for z, one in enumerate(slices):
        try:
            with quiet_pydicom():
                stored = _stored(one.header)
        except BROKEN_DICOM:
            broken.append(one.plane.file)
            continue
        padding = padding_mask(stored, one.padding)
        array_XYZ[:, :, z] = hounsfield(stored, padding, one).T
        padded = padded or bool(padding.any())
        del one.header.PixelData  # decoded; two copies of a series may not fit
    if broken:
        _refuse_pixels(slices, broken)
    return array_XYZ, padded


def _stored(header: FileDataset) -> StoredImage:
    """The pixels as stored, whole words: padding may lie outside BitsStored."""
    header.pixel_array_options(correct_unused_bits=False)
    pixels = header.pixel_array
    if pixels.shape != (header.Rows, header.Columns):
        raise ValueError("several frames in one slice")
    stored: StoredImage = pixels
    return stored


def _refuse_pixels(slices: Sequence[Slice], broken: list[str]) -> None:
    with quiet_pydicom():  # a damaged element may hold several values, or none
        found = {str(s.header.file_meta.get("TransferSyntaxUID", "")) for s in slices}
        syntaxes = [pydicom.uid.UID(text) for text in sorted(found)]
        unknown = [uid.name or "none" for uid in syntaxes if not _is_decodable(uid)]
    if unknown:
        what = f"are stored as {', '.join(unknown)}, which cannot be decoded here"
        _refuse("E_DCM_COMPRESSION", what, broken, len(slices))
    _refuse("E_DCM_TRUNCATED", "have pixels that are cut off or damaged", broken, len(slices))


def _is_decodable(uid: pydicom.uid.UID) -> bool:
    try:
        return bool(get_decoder(uid).is_available)
    except NotImplementedError:
        return False


def padding_mask(stored: StoredImage, padding: tuple[int, ...]) -> Mask:
    """Pixels outside the field of view: those from one padding value to the other.

    Both are words of the pixels' own kind, but often written with the other sign.
    """
    if not padding:
        return np.zeros(stored.shape, bool)
    ends = np.array(padding).astype(stored.dtype)
    mask: Mask = (stored >= ends.min()) & (stored <= ends.max())
    return mask


def hounsfield(stored: StoredImage, padding: Mask, one: Slice) -> HuImage:
    """HU = slope x stored + intercept; air where there is padding."""
    slope, intercept = one.rescale
    named = slope * stored[padding].astype(np.float64) + intercept
    if ((named > -900) & (named <= MAX_HU)).any():
        cause = f"{one.plane.file}: its padding value is the HU of tissue, so padding hides tissue"
        raise Refused("E_DCM_PADDING", cause, AGAIN)
    values = significant(stored, padding, one)
    hu = np.rint(slope * values.astype(np.float64) + intercept)
    hu[padding] = AIR_HU
    inside: HuImage = np.clip(hu, -32768, 32767).astype(np.int16)
    return inside


def significant(stored: StoredImage, padding: Mask, one: Slice) -> StoredImage:
    """The low BitsStored bits as a number; what stands above them must be sign or nothing."""
    spare = 8 * stored.dtype.itemsize - one.bits
    values: StoredImage = (stored << spare) >> spare
    words = stored.view(f"u{stored.dtype.itemsize}")
    clean = (values == stored) | ((words << spare) >> spare == words) | padding
    if not clean.all():
        cause = f"{one.plane.file}: {int((~clean).sum())} pixels use bits above BitsStored"
        raise Refused("E_DCM_BITS", cause, AGAIN)
    return values


def check_ceiling(array_XYZ: HuArray) -> None:
    """Refuse what would be clipped to bright metal: mostly padding that no header declares."""
    share = float((array_XYZ > MAX_HU).mean())
    if share > MOST_ABOVE:
        cause = (
            f"{100 * share:.1f} % of the voxels lie above {MAX_HU} HU, as undeclared padding does"
        )
        raise Refused("E_DCM_PADDING", cause, AGAIN)

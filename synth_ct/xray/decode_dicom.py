"""A radiograph in DICOM to grey values: CR, DX and their kin, MONOCHROME1 and 2, any depth.

Only what says how to read the pixels is looked at; nothing that names a person leaves this file,
nor does any text of the header enter a message.
"""

import io
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Shaped
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_modality_lut
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from synth_ct.kit.axes import FilmArray
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.quiet import BROKEN_DICOM, quiet_pydicom
from synth_ct.xray.containers import truncated
from synth_ct.xray.grey import Decoded, check_depth, check_size, turned

RADIOGRAPHS = frozenset({"CR", "DX", "RG", ""})
LATERALS = frozenset({"LL", "RL", "LATERAL", "LLO", "RLO"})
DAMAGED = (*BROKEN_DICOM, OSError)
"""The file is read from memory: an `OSError` comes from a decoder."""

Stored = Shaped[np.ndarray, "u v"]


def decode_dicom(data: bytes) -> Decoded:
    """Read one DICOM radiograph; the modality transform is applied, display windows are not."""
    with quiet_pydicom(), _damage_refused():
        header = _header(data)
        notes = _check_header(header)
        stored = _stored(header)
        values, padding = _values(stored, header)
        inverted = header.PhotometricInterpretation == "MONOCHROME1"
        scale, more = pixel_spacing(header)
        bits = int(header.BitsStored)
    if inverted:
        values, notes = turned(values), (*notes, "inverted")
    if padding.any() and not padding.all():
        values[padding] = values[~padding].min()
        notes += ("padded",)
    return Decoded(values, bits, inverted, scale, notes + more)


def pixel_spacing(header: Dataset) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Height and width of a pixel in mm; on the detector, where no calibration is given."""
    for tag, notes in (("PixelSpacing", ()), ("ImagerPixelSpacing", ("detector_scale",))):
        try:
            height, width = (float(x) for x in header.get(tag) or ())
        except BROKEN_DICOM:
            continue
        if all(np.isfinite(x) and x > 0 for x in (height, width)):
            return (height, width), notes
    return None, ()


# ---- the header --------------------------------------------------------------------------------


@contextmanager
def _damage_refused() -> Generator[None, None, None]:
    try:
        yield
    except Refused:
        raise
    except DAMAGED as error:
        raise Refused(
            "E_IMG_NOTIMAGE",
            "a DICOM file without a readable picture: rows, columns, bit depth or another element "
            "of its header is missing or damaged",
            "remove it if it is a report, a reference or a directory; else export it again",
        ) from error


def _header(data: bytes) -> Dataset:
    header = dcmread(io.BytesIO(data), force=data[128:132] != b"DICM")
    if "TransferSyntaxUID" not in header.file_meta:
        implicit, _ = header.original_encoding
        header.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        )
    return header


def _check_header(header: Dataset) -> tuple[str, ...]:
    """Refuse what is no single frontal grey radiograph; everything is said before decoding."""
    notes = check_size(int(header.Rows), int(header.Columns))
    check_depth(int(header.BitsStored))
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise Refused(
            "E_IMG_MULTIFRAME",
            "it holds more than one frame; taking the first would be a guess",
            "save the one that counts as a file of its own",
        )
    if str(header.get("Modality") or "") not in RADIOGRAPHS:
        raise Refused(
            "E_IMG_FORMAT",
            "a DICOM image of another modality; only CR, DX and RG are radiographs",
            "give CT series to `synth-ct ingest folder`",
        )
    if str(header.get("ViewPosition") or "").upper() in LATERALS:
        raise Refused(
            "E_IMG_VIEW", "its header says it is a lateral view; only frontal films are used"
        )
    if header.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused("E_IMG_FORMAT", "a DICOM image that is not grey", "export it as MONOCHROME2")
    burned = str(header.get("BurnedInAnnotation") or "").upper() == "YES"
    return (*notes, "burned_in") if burned else notes


# ---- the pixels --------------------------------------------------------------------------------


def _stored(header: Dataset) -> Stored:
    """The stored integers; bits above `BitsStored` (old overlays) are masked away."""
    try:
        stored: Stored = header.pixel_array
    except DAMAGED as error:
        raise truncated("in its pixel data, or no decoder here reads them") from error
    if stored.ndim != 2:
        raise Refused("E_IMG_FORMAT", "a DICOM image that is not grey", "export it as MONOCHROME2")
    unsigned = np.issubdtype(stored.dtype, np.unsignedinteger)
    return stored & (2 ** int(header.BitsStored) - 1) if unsigned else stored


def _values(stored: Stored, header: Dataset) -> tuple[FilmArray, Stored]:
    """Stored integers -> values by rescale or modality table, and where the padding is."""
    padding = np.zeros(stored.shape, bool)
    if "PixelPaddingValue" in header:
        padding = stored == header.PixelPaddingValue
    try:
        values: FilmArray = np.asarray(apply_modality_lut(stored, header), np.float32)
    except DAMAGED as error:
        raise Refused(
            "E_IMG_FORMAT",
            "its rescale or modality table cannot be applied",
            "export it again",
        ) from error
    return values, padding

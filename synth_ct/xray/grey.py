"""Decoded grey values, whatever file they came in, and what every one of them must satisfy."""

from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

from synth_ct.kit.axes import FilmArray
from synth_ct.kit.quarantine import Refused

MOST_PIXELS = 64 * 2**20
LEAST_SIDE = 64
LEAST_BITS = 8
NOTED_ASPECT, MOST_ASPECT = 2.0, 4.0
"""2.3 % of the ChestXray2017 originals of known size are wider than 2:1, up to 3.2:1; beyond 4:1
it is a strip of something."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A radiograph as its file means it: upright, one value a pixel, bright = dense."""

    pixels_UV: FilmArray
    """float32, in the file's own units: integers keep their value."""
    bits: int
    """Bits that are in use: 12 for 12 bits stored in 16."""
    inverted: bool = False
    """Whether a tag said that bright means air; the values here are already turned."""
    pixel_spacing_mm: tuple[float, float] | None = None
    """Height and width of a pixel on the detector, where a DICOM header says so."""
    notes: tuple[str, ...] = ()

    @property
    def pixels_sha256(self) -> str:
        """The identity of the values: equal for the same picture in another container."""
        return sha256(f"{self.pixels_UV.shape}".encode() + self.pixels_UV.tobytes()).hexdigest()

    def noting(self, *notes: str) -> "Decoded":
        """The same with further notes."""
        return replace(self, notes=self.notes + notes)


def check_size(rows: int, columns: int) -> tuple[str, ...]:
    """Refuse by the header what is too big, too small or too long; call before decoding."""
    size = f"{columns} x {rows} pixels"
    if rows * columns > MOST_PIXELS:
        raise Refused(
            "E_IMG_TOO_BIG",
            f"{size}, over the limit of {MOST_PIXELS >> 20} Mpx; decoding it could exhaust memory",
            "shrink it first; no radiograph detector is that fine",
        )
    if min(rows, columns) < LEAST_SIDE:
        raise Refused(
            "E_IMG_TOO_SMALL",
            f"{size}; a side under {LEAST_SIDE} pixels shows no anatomy, only blur",
            "use the original, not a thumbnail",
        )
    aspect = max(rows, columns) / min(rows, columns)
    if aspect > MOST_ASPECT:
        raise Refused(
            "E_IMG_ASPECT",
            f"{size}: more than {MOST_ASPECT:g} to 1, a strip and no chest",
            "use the whole film",
        )
    return ("elongated",) if aspect > NOTED_ASPECT else ()


def check_values(pixels_UV: FilmArray) -> None:
    """Refuse values that are not finite, or that show nothing."""
    if not np.isfinite(pixels_UV).all():
        raise Refused(
            "E_IMG_NAN",
            "it holds NaN or infinite values; a mean over them is NaN, a clip over them a guess",
            "export it again as integers",
        )
    low, high = np.percentile(pixels_UV, (1, 99))
    if low == high:
        raise Refused(
            "E_IMG_CONSTANT",
            f"98 % of its pixels have one value ({low:g}): there is no picture to scale",
            "export it again",
        )


def check_depth(bits: int) -> None:
    """Refuse fewer grey levels than a radiograph needs."""
    if bits < LEAST_BITS:
        raise Refused(
            "E_IMG_DEPTH",
            f"{bits} bits a pixel are {2**bits} grey levels; a lung needs at least 256",
            "export it with 8 bits or more",
        )


def bits_in_use(pixels_UV: FilmArray, stored: int) -> int:
    """The smallest usual depth (8, 10, 12, 14, 16) that holds the largest value."""
    if stored <= LEAST_BITS:
        return stored
    needed = int(pixels_UV.max()).bit_length()
    return next((bits for bits in (8, 10, 12, 14) if needed <= bits), stored)


def turned(pixels_UV: FilmArray) -> FilmArray:
    """Bright for dark: max + min - v, in the values' own range."""
    lowest, highest = pixels_UV.min(), pixels_UV.max()
    inverted: FilmArray = (highest + lowest) - pixels_UV
    return inverted

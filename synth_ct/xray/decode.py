"""A radiograph file to grey values, distrustfully: PNG, JPEG, TIFF or DICOM, told by content.

Image libraries decode much that is wrong without a word: they drop half the bits, take the first
of many frames, ignore EXIF orientation, or show pixels hidden behind an alpha channel. Here every
such case is either handled and noted in one word, or refused with a code (docs/quarantine.md).
The size is known from the header before anything is decoded. ICC profiles are ignored.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffTags

from synth_ct.kit.axes import FilmArray
from synth_ct.kit.quarantine import Refused
from synth_ct.xray.containers import (
    ENDINGS,
    Container,
    check_jpeg,
    check_png,
    png_depth,
    sniff,
    truncated,
)
from synth_ct.xray.decode_dicom import decode_dicom
from synth_ct.xray.grey import (
    Decoded,
    bits_in_use,
    check_depth,
    check_size,
    check_values,
    turned,
)

MOST_CHROMA = 0.02
LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601: the grey of a colour."""
USUAL_GAMMA = 45455
"""gAMA of an ordinary PNG, 1 / 2.2 in units of 1e-5."""
WHITE_IS_ZERO = 0
PHOTOMETRIC = 262
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")
DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, OverflowError, struct.error,
    zlib.error,
)  # fmt: skip
"""What Pillow raises on broken data: `SyntaxError` for PNG chunks, `TypeError` for TIFF sizes."""

Samples = Shaped[np.ndarray, "*any"]


def decode(path: Path) -> Decoded:
    """Read one radiograph file; `Refused` says why one cannot be trusted."""
    data = path.read_bytes()
    container = sniff(data)
    decoded = decode_dicom(data) if container == "dicom" else decode_picture(data, container)
    check_values(decoded.pixels_UV)
    says = ENDINGS.get(path.suffix.lower(), container)
    return decoded if says == container else decoded.noting("misnamed")


def decode_picture(data: bytes, container: Container) -> Decoded:
    """PNG, JPEG or TIFF, by Pillow, once its structure was found whole."""
    assert not ImageFile.LOAD_TRUNCATED_IMAGES, "a library turned the truncation check off"
    notes = _check_structure(data, container)
    with _opened(data, container) as image:
        notes += check_size(image.height, image.width)
        _check_one_frame(image)
        inverted = _white_is_zero(image)
        with _damage_refused():
            rotated = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            image.load()
            upright = ImageOps.exif_transpose(image)
    if rotated:
        notes += ("exif_rotated",)
    pixels, bits, more = to_grey(upright)
    if inverted:
        pixels, more = turned(pixels), (*more, "inverted")
    return Decoded(pixels, bits, inverted, None, notes + more)


# ---- structure ---------------------------------------------------------------------------------


def _check_structure(data: bytes, container: Container) -> tuple[str, ...]:
    if container == "jpeg":
        check_jpeg(data)
    return _check_png_kind(data) if container == "png" else ()


@contextmanager
def _damage_refused() -> Iterator[None]:
    """Whatever Pillow raises about broken data becomes a refusal; its warnings are silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except Refused:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise Refused(
                "E_IMG_TOO_BIG",
                "its header announces more pixels than the limit of 64 Mpx; "
                "decoding it could exhaust memory",
                "shrink it first; no radiograph detector is that fine",
            ) from error
        except DAMAGED as error:
            raise truncated("while it is decoded") from error


@contextmanager
def _opened(data: bytes, container: Container) -> Iterator[Image.Image]:
    with _damage_refused():
        image = Image.open(io.BytesIO(data), formats=[container])
    with image:
        yield image


def _check_one_frame(image: Image.Image) -> None:
    with _damage_refused():
        frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise Refused(
            "E_IMG_MULTIFRAME",
            f"it holds {frames} frames; taking the first would be a guess",
            "save the one that counts as a file of its own",
        )


def _check_png_kind(data: bytes) -> tuple[str, ...]:
    names = check_png(data)
    bits, colour = png_depth(data)
    check_depth(bits)
    if bits == 16 and colour != 0:
        raise Refused(
            "E_IMG_FORMAT",
            "a 16-bit PNG with colour or alpha; its decoder would drop half the bits",
            "save it as 16-bit grey",
        )
    if b"gAMA" not in names:
        return ()
    at = data.index(b"gAMA") + 4
    gamma = int.from_bytes(data[at : at + 4], "big")
    return () if gamma == USUAL_GAMMA else ("gamma",)


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF tag says that bright is air and Pillow will not turn it (8 bits it does)."""
    if image.format != "TIFF":
        return False
    assert TiffTags.lookup(PHOTOMETRIC).name == "PhotometricInterpretation"
    tags = getattr(image, "tag_v2", {})
    return tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and image.mode in (*DEEP, "F")


# ---- to one value a pixel ----------------------------------------------------------------------


def to_grey(image: Image.Image) -> tuple[FilmArray, int, tuple[str, ...]]:
    """Any mode Pillow knows -> grey values, the bits in use, and what was done about it."""
    if image.mode == "1":
        check_depth(1)
    if image.mode in DEEP:
        deep = _film(np.asarray(image))
        bits = bits_in_use(deep, 16)
        return deep, bits, () if bits == 16 else (f"{bits}_bits_in_16",)
    if image.mode == "F":
        return _film(np.asarray(image)), 32, ()
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return _without_alpha(image)
    if image.mode in ("P", "PA"):
        grey, bits, notes = _without_alpha_or_with(image.convert("RGBA"))
        return grey, bits, ("palette", *notes)
    if image.mode in ("CMYK", "YCbCr"):
        grey, bits, notes = _without_alpha(image.convert("RGB"))
        return grey, bits, (image.mode.lower(), *notes)
    if image.mode in ("LA", "RGBA", "L", "RGB"):
        return _without_alpha_or_with(image.convert("RGBA"))
    raise Refused(
        "E_IMG_FORMAT",
        f"pixels of kind {image.mode}, which no radiograph has",
        "save it as 8- or 16-bit grey",
    )


def _without_alpha_or_with(image: Image.Image) -> tuple[FilmArray, int, tuple[str, ...]]:
    """Lay RGBA on black, so that what was hidden stays hidden."""
    if image.getextrema()[-1] == (255, 255):
        return _without_alpha(image.convert("RGB"))
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    grey, bits, notes = _without_alpha(Image.alpha_composite(black, image).convert("RGB"))
    return grey, bits, ("alpha", *notes)


def _without_alpha(image: Image.Image) -> tuple[FilmArray, int, tuple[str, ...]]:
    samples = np.asarray(image)
    if samples.ndim == 2:
        return _film(samples), 8, ()
    grey, notes = from_colour(samples)
    return grey, 8, notes


def from_colour(rgb_UVC: Samples) -> tuple[FilmArray, tuple[str, ...]]:
    """Grey stored as colour is grey; a colour photograph is refused.

    chroma = mean(max(R, G, B) - min(R, G, B)) / 255
    """
    if (rgb_UVC == rgb_UVC[..., :1]).all():
        return _film(rgb_UVC[..., 0]), ()
    spread = rgb_UVC.max(-1).astype(np.float32) - rgb_UVC.min(-1)
    chroma = float(spread.mean()) / 255
    if chroma > MOST_CHROMA:
        raise Refused(
            "E_IMG_COLOUR",
            f"it is in colour (chroma {chroma:.1%}, limit {MOST_CHROMA:.0%}); radiographs are grey",
            "remove it, or save a tinted film as grey",
        )
    return _film(rgb_UVC @ np.array(LUMA)), ("tinted",)


def _film(samples: Samples) -> FilmArray:
    film: FilmArray = np.ascontiguousarray(samples, dtype=np.float32)
    return film

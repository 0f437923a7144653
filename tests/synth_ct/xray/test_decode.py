"""Every bad or odd picture file gets the code or the note it deserves; nothing passes silently."""

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin
from scipy import ndimage

from synth_ct.kit.quarantine import Refused
from synth_ct.xray.containers import check_jpeg
from synth_ct.xray.decode import decode

SIZE = (96, 112)


def smooth(most: float = 255) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(0).random(SIZE), 6)
    return (field - field.min()) / np.ptp(field) * most


GREY = smooth().astype(np.uint8)
DEEP = smooth(65535).astype(np.uint16)


def saved(picture: Any, kind: str = "PNG", **how: Any) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def flipped_bit(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def png_of_header(rows: int, columns: int) -> bytes:
    """A small file whose header announces any size."""
    body = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", body), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks:
        check = zlib.crc32(name + content)
        data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)
    return data


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    chunk = struct.pack(">I", len(content)) + name + content
    chunk += struct.pack(">I", zlib.crc32(name + content))
    return png[:33] + chunk + png[33:]


def two_pages() -> bytes:
    page = Image.fromarray(GREY)
    return saved(page, "TIFF", save_all=True, append_images=[page])


def nan_tiff() -> bytes:
    values = smooth().astype(np.float32)
    values[10, 10] = np.nan
    return saved(values, "TIFF")


def tiff_without_width() -> bytes:
    data = bytearray(saved(GREY, "TIFF"))
    data[data.index(struct.pack("<H", 256) + struct.pack("<H", 4))] ^= 0x80
    return bytes(data)


def photo() -> np.ndarray:
    return np.stack([GREY, GREY[::-1], GREY[:, ::-1]], -1)


def alpha(mode: str) -> Image.Image:
    image = Image.fromarray(GREY).convert(mode)
    shield = np.full(SIZE, 255, np.uint8)
    shield[:, 56:] = 0
    image.putalpha(Image.fromarray(shield))
    return image


def palette() -> Image.Image:
    """Index 0 is white: whoever reads indices sees the negative."""
    image = Image.frombytes("P", (SIZE[1], SIZE[0]), (255 - GREY).tobytes())
    image.putpalette([v for i in range(256) for v in (255 - i,) * 3])
    return image


def jpeg_with_precision(bits: int, marker: int = 0xC0) -> bytes:
    data = bytearray(saved(GREY, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, bits
    return bytes(data)


def wide(rows: int, columns: int) -> np.ndarray:
    return np.asarray(Image.fromarray(GREY).resize((columns, rows)))


def tinted() -> np.ndarray:
    return np.stack([GREY, GREY // 2 * 2, GREY], -1)


def middle_of(data: bytes) -> int:
    return len(data) // 2


BAD: list[tuple[int, str, Callable[[], bytes], str]] = [
    (1, "x.jpeg", lambda: b"", "E_IMG_EMPTY"),
    (2, "x.jpeg", lambda: saved(GREY, "JPEG")[:-300], "E_IMG_TRUNCATED"),
    (2, "x.jpeg", lambda: saved(wide(200, 240), "JPEG")[:-2], "E_IMG_TRUNCATED"),
    (2, "x.jpeg", lambda: saved(wide(200, 240), "JPEG")[:-1], "E_IMG_TRUNCATED"),
    (4, "x.png", lambda: saved(GREY)[:-300], "E_IMG_TRUNCATED"),
    (4, "x.png", lambda: saved(GREY)[:-12], "E_IMG_TRUNCATED"),
    (5, "x.png", lambda: flipped_bit(saved(GREY), middle_of(saved(GREY))), "E_IMG_CRC"),
    (5, "x.png", lambda: flipped_bit(saved(GREY), len(saved(GREY)) - 1), "E_IMG_CRC"),
    (6, "x.jpg", lambda: b"\n<!DOCTYPE html><html>404</html>", "E_IMG_NOTIMAGE"),
    (6, "x.jpg", lambda: b"just some words", "E_IMG_NOTIMAGE"),
    (9, "x.png", lambda: saved(Image.fromarray(GREY).convert("1")), "E_IMG_DEPTH"),
    (9, "x.tif", lambda: saved(Image.fromarray(GREY).convert("1"), "TIFF"), "E_IMG_DEPTH"),
    (9, "x.png", lambda: saved(palette().quantize(4)), "E_IMG_DEPTH"),
    (14, "x.jpeg", lambda: saved(photo(), "JPEG"), "E_IMG_COLOUR"),
    (14, "x.png", lambda: saved(photo()), "E_IMG_COLOUR"),
    (19, "x.tif", two_pages, "E_IMG_MULTIFRAME"),
    (19, "x.gif", lambda: saved(GREY, "GIF"), "E_IMG_FORMAT"),
    (20, "x.tif", nan_tiff, "E_IMG_NAN"),
    (20, "x.tif", tiff_without_width, "E_IMG_TRUNCATED"),
    (21, "x.png", lambda: png_of_header(12_000, 12_000), "E_IMG_TOO_BIG"),
    (21, "x.png", lambda: png_of_header(8_500, 8_500), "E_IMG_TOO_BIG"),
    (22, "x.png", lambda: png_of_header(20_000, 20_000), "E_IMG_TOO_BIG"),
    (23, "x.png", lambda: saved(GREY[:1, :1]), "E_IMG_TOO_SMALL"),
    (23, "x.png", lambda: saved(GREY[:63]), "E_IMG_TOO_SMALL"),
    (24, "x.png", lambda: saved(np.full_like(GREY, 7)), "E_IMG_CONSTANT"),
    (25, "x.png", lambda: saved(wide(64, 300)), "E_IMG_ASPECT"),
    (31, "x.jpeg", lambda: jpeg_with_precision(12), "E_IMG_FORMAT"),
    (31, "x.jpeg", lambda: jpeg_with_precision(8, 0xC3), "E_IMG_FORMAT"),
    (31, "x.webp", lambda: saved(GREY, "WEBP"), "E_IMG_FORMAT"),
    (31, "x.jp2", lambda: saved(GREY, "JPEG2000"), "E_IMG_FORMAT"),
    (31, "x.bmp", lambda: saved(GREY, "BMP"), "E_IMG_FORMAT"),
]


@pytest.mark.parametrize(
    ("row", "name", "make", "code"), BAD, ids=[f"row{r}-{c}" for r, _, _, c in BAD]
)
def test_a_bad_picture_is_refused_with_its_code(
    tmp_path: Path, row: int, name: str, make: Callable[[], bytes], code: str
) -> None:
    (tmp_path / name).write_bytes(make())
    with pytest.raises(Refused) as refused:
        decode(tmp_path / name)
    assert refused.value.code == code
    assert refused.value.cause


WARNED: list[tuple[int, str, Callable[[], bytes], tuple[str, ...]]] = [
    (7, "x.png", lambda: saved(DEEP), ()),
    (8, "x.png", lambda: saved(DEEP // 16), ("12_bits_in_16",)),
    (10, "x.png", lambda: saved(palette()), ("palette",)),
    (11, "x.png", lambda: saved(alpha("RGB")), ("alpha",)),
    (12, "x.png", lambda: saved(alpha("L")), ("alpha",)),
    (13, "x.jpeg", lambda: saved(Image.fromarray(GREY).convert("CMYK"), "JPEG"), ("cmyk",)),
    (14, "x.jpeg", lambda: saved(Image.fromarray(GREY).convert("RGB"), "JPEG"), ()),
    (14, "x.png", lambda: saved(tinted()), ("tinted",)),
    (25, "x.png", lambda: saved(wide(64, 180)), ("elongated",)),
    (26, "x.jpg", lambda: saved(GREY), ("misnamed",)),
    (30, "x.png", lambda: with_chunk(saved(GREY), b"gAMA", struct.pack(">I", 100_000)), ("gamma",)),
    (30, "x.png", lambda: with_chunk(saved(GREY), b"gAMA", struct.pack(">I", 45_455)), ()),
    (30, "x.png", lambda: saved(GREY, icc_profile=b"a profile"), ()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "name", "make", "notes"), WARNED, ids=[f"row{r}-{n}" for r, _, _, n in WARNED]
)
def test_an_odd_picture_is_read_and_noted(
    tmp_path: Path, row: int, name: str, make: Callable[[], bytes], notes: tuple[str, ...]
) -> None:
    (tmp_path / name).write_bytes(make())
    assert decode(tmp_path / name).notes == notes


def read(tmp_path: Path, data: bytes, name: str = "x.png") -> np.ndarray:
    (tmp_path / name).write_bytes(data)
    return decode(tmp_path / name).pixels_UV


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(top=st.integers(1_000, 65_535))
def test_a_16_bit_png_keeps_every_value(tmp_path: Path, top: int) -> None:
    values = smooth(top).astype(np.uint16)
    assert (read(tmp_path, saved(values)) == values).all()


def test_a_colour_profile_or_gamma_changes_no_value(tmp_path: Path) -> None:
    for data in (saved(GREY, icc_profile=b"a profile"), with_chunk(saved(GREY), b"sBIT", b"\5")):
        assert (read(tmp_path, data) == GREY).all()
    gamma = with_chunk(saved(GREY), b"gAMA", struct.pack(">I", 100_000))
    assert (read(tmp_path, gamma) == GREY).all()


def test_a_12_bit_film_in_16_bits_is_known_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(saved(DEEP // 16))
    assert decode(tmp_path / "x.png").bits == 12


def test_a_palette_is_looked_up_and_not_taken_for_grey(tmp_path: Path) -> None:
    assert np.abs(read(tmp_path, saved(palette())) - GREY).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_what_alpha_hides_is_black(tmp_path: Path, mode: str) -> None:
    film = read(tmp_path, saved(alpha(mode)))
    assert (film[:, 56:] == 0).all()
    assert (film[:, :56] == GREY[:, :56]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_all_eight_exif_orientations_give_the_same_film(
    tmp_path: Path, orientation: int, kind: str
) -> None:
    undo = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    stored = Image.fromarray(GREY)
    exif = Image.Exif()
    exif[274] = undo
    stored.getexif()[274] = undo
    stored = ImageOps.exif_transpose(stored)
    exif[274] = orientation
    how: dict[str, Any] = {"quality": 100} if kind == "JPEG" else {}
    if kind == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[274] = orientation
        how["tiffinfo"] = tags
    else:
        how["exif"] = exif
    (tmp_path / "x").write_bytes(saved(stored, kind, **how))
    decoded = decode(tmp_path / "x")
    assert np.abs(decoded.pixels_UV - GREY).max() <= (3 if kind == "JPEG" else 0)
    assert ("exif_rotated" in decoded.notes) == (orientation != 1)


@pytest.mark.parametrize("values", [GREY, DEEP, smooth().astype(np.float32)])
def test_a_white_is_zero_tiff_is_turned(tmp_path: Path, values: np.ndarray) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 1
    plain = saved(values, "TIFF", tiffinfo=tags)
    at = plain.index(struct.pack("<HHIH", 262, 3, 1, 1))
    negative = plain[: at + 8] + struct.pack("<H", 0) + plain[at + 10 :]
    one, other = (read(tmp_path, data, "x.tif") for data in (plain, negative))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] < -0.999


def test_the_same_picture_in_another_container_has_the_same_identity(tmp_path: Path) -> None:
    files = {
        "a.png": saved(GREY),
        "b.tif": saved(GREY, "TIFF"),
        "c.png": saved(Image.fromarray(GREY).convert("RGB"), compress_level=1),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert len({decode(tmp_path / name).pixels_sha256 for name in files}) == 1


def test_a_picture_read_when_a_library_allows_truncation_is_our_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(AssertionError):
        read(tmp_path, saved(GREY))


def test_a_jpeg_without_its_end_is_refused_before_a_decoder_sees_it() -> None:
    check_jpeg(saved(GREY, "JPEG"))
    with pytest.raises(Refused, match="E_IMG_TRUNCATED"):
        check_jpeg(saved(GREY, "JPEG")[:-2])


SEEDS = {"JPEG": saved(GREY, "JPEG"), "PNG": saved(GREY), "TIFF": saved(GREY, "TIFF")}


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(SEEDS)),
    hits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    keep=st.floats(0.01, 1),
)
def test_damaged_bytes_are_read_or_refused_and_nothing_else(
    tmp_path: Path, kind: str, hits: list[tuple[float, int]], keep: float
) -> None:
    data = bytearray(SEEDS[kind])
    for where, value in hits:
        data[int(where * (len(data) - 1))] = value
    with suppress(Refused):
        film = read(tmp_path, bytes(data[: int(keep * len(data))]), "x")
        assert np.isfinite(film).all()

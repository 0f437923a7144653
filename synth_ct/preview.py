"""What a made volume looks like: three planes in one small PNG, and many of those on one sheet.

Equal voxels give equal bytes. Every picture says that it is synthetic and which side is which, in
its pixels: a picture loses its file name and its sidecar on the first day.
"""

import io
import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from synth_ct.kit.axes import FilmArray, HuArray
from synth_ct.kit.volume import Volume, to_ras

PLANES = ("axial", "coronal", "sagittal")
ACROSS = {"sagittal": 0, "coronal": 1, "axial": 2}
SIDES = {"axial": ("R", "L"), "coronal": ("R", "L"), "sagittal": ("A", "P")}
"""What lies at the viewer's left and right."""
SHOWN_HU = (-1000.0, 500.0)
"""Lungs and soft tissue in one picture; bone saturates."""
LEAST_SIDE = 128
"""Pixels; smaller volumes are enlarged by a whole number, so that voxels stay square and even."""
MARK = "SYNTHETIC"
STRIP = 13
"""Pixels: a line of text."""
GAP = 4
INK, PAPER = 255, 0


class Tile(NamedTuple):
    """One picture of a sheet, with a line below it."""

    picture: bytes
    caption: str


def upright(hu_XYZ: HuArray, plane: str, place: float = 0.5) -> FilmArray:
    """One slice with rows from superior (or anterior) down, columns from patient right (or front).

    Both remaining axes of the body point the other way, hence the flips.
    """
    axis = ACROSS[plane]
    index = min(int(place * hu_XYZ.shape[axis]), hu_XYZ.shape[axis] - 1)
    slice_UV: FilmArray = np.take(hu_XYZ, index, axis=axis)[::-1, ::-1].T.astype(np.float32)
    return slice_UV


def preview(volume: Volume, label: str, mark: str = MARK) -> bytes:
    """Axial, coronal and sagittal slice through the middle, marked, over a line with the label."""
    hu_XYZ = to_ras(volume).array_XYZ
    planes = [_plane(hu_XYZ, plane, mark) for plane in PLANES]
    width = sum(plane.width for plane in planes) + GAP * (len(planes) - 1)
    height = max(plane.height for plane in planes)
    picture = Image.new("L", (width, height + STRIP), PAPER)
    x = 0
    for plane in planes:
        picture.paste(plane, (x, 0))
        x += plane.width + GAP
    _write(picture, (1, height), label)
    return _png(picture)


def contact_sheet(tiles: Sequence[Tile]) -> bytes:
    """Pictures in rows, in their order, each over its caption; as square as whole tiles allow."""
    if not tiles:
        raise ValueError("a contact sheet of no pictures was asked for; give one at least")
    pictures = [_opened(tile.picture) for tile in tiles]
    width = max(picture.width for picture in pictures) + GAP
    height = max(picture.height for picture in pictures) + STRIP + GAP
    columns = min(len(tiles), max(1, round(math.sqrt(len(tiles) * height / width))))
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new("L", (columns * width, rows * height), PAPER)
    for n, (tile, picture) in enumerate(zip(tiles, pictures, strict=True)):
        x, y = n % columns * width, n // columns * height
        sheet.paste(picture, (x, y))
        _write(sheet, (x + 1, y + picture.height), tile.caption, width - GAP - 1)
    return _png(sheet)


def _plane(hu_XYZ: HuArray, plane: str, mark: str) -> Image.Image:
    """One slice below its name, enlarged and marked."""
    low, high = SHOWN_HU
    grey_UV = np.clip((upright(hu_XYZ, plane) - low) / (high - low), 0, 1)
    pixels_UV = np.rint(255 * grey_UV).astype(np.uint8)
    factor = math.ceil(LEAST_SIDE / max(hu_XYZ.shape))
    if factor > 1:
        pixels_UV = pixels_UV.repeat(factor, 0).repeat(factor, 1)
    height, width = pixels_UV.shape
    picture = Image.new("L", (width, STRIP + height), PAPER)
    picture.paste(Image.fromarray(pixels_UV), (0, STRIP))
    _write(picture, (1, 0), plane)
    left, right = SIDES[plane]
    middle = STRIP + (height - STRIP) // 2
    _write(picture, (0, middle), left)
    _write(picture, (width - _text(right).width, middle), right)
    _write(picture, (0, height), mark)
    return picture


def _write(picture: Image.Image, at: tuple[int, int], words: str, room: int | None = None) -> None:
    """Light on a dark box, so that it can be read over bone."""
    text = _text(words)
    picture.paste(text if room is None else text.crop((0, 0, min(room, text.width), STRIP)), at)


@cache
def _font() -> ImageFont.ImageFont:
    # Pillow's own bitmap letters: the same pixels whatever fonts and FreeType a machine has.
    return ImageFont.load_default_imagefont()


def _text(words: str) -> Image.Image:
    words = words.encode("latin-1", "replace").decode("latin-1")  # all that the letters cover
    _, _, width, _ = _font().getbbox(words)
    text = Image.new("L", (int(width) + 2, STRIP), PAPER)
    ImageDraw.Draw(text).text((1, 1), words, fill=INK, font=_font())
    return text


def _opened(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.convert("L")


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()

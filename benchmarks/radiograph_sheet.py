"""Radiographs and what the models see of them: the pictures of docs/radiographs.md.

python benchmarks/radiograph_sheet.py ../shared/data docs/img
"""

import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from synth_ct.kit.axes import FilmArray
from synth_ct.kit.volume import Volume, to_ras
from synth_ct.phantom import make_phantom
from synth_ct.phantom.chest_xray import FAMILY, Twin, write_chest_xray
from synth_ct.phantom.shapes import Family
from synth_ct.xray.decode import decode
from synth_ct.xray.frame import Box, Framed, frame
from synth_ct.xray.geometry import Geometry
from synth_ct.xray.project import drr

HARD = (
    "test/NORMAL/IM-0001-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-1419-0001.jpeg",
    "train/PNEUMONIA/person1310_bacteria_3297.jpeg",
    "train/PNEUMONIA/person1413_bacteria_3615.jpeg",
    "train/PNEUMONIA/person1343_bacteria_3411.jpeg",
    "train/PNEUMONIA/person325_virus_659.jpeg",
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/PNEUMONIA/person1719_bacteria_4541.jpeg",
)
"""Real films, most of them where the search for the thorax is nearest to failing."""
CHESTS = ("LIDC-IDRI-0001", "LungPETCTDx-A0001_s1", "LungPETCTDx-A0002_s1", "4DLung-113_HM10395")
TWIN = Twin(count=32, size=64)
ACROSS, TILE, GAP = 8, 168, 3
RED = (255, 80, 60)

Tile = np.ndarray
"""TILE x TILE x 3, uint8."""


# ---- films -------------------------------------------------------------------------------------


def real_paths(folder: Path) -> list[Path]:
    """All of ChestXray2017, part after part."""
    return sorted((folder / "chest_xray_224").rglob("*.jpeg"))


def real_film(path: Path) -> FilmArray:
    """One real film."""
    return decode(path).pixels_UV


def chest_films(folder: Path) -> list[FilmArray]:
    """Frontal DRRs of the real chest CTs."""
    films = []
    for name in CHESTS:
        image = nib.nifti1.load(folder / "ct" / f"{name}.nii.gz")
        hu = np.asarray(image.dataobj).astype(np.int16)
        films.append(drr(to_ras(Volume(hu, image.affine.astype(np.float64))), Geometry()))
    return films


def phantom_films(family: Family) -> list[FilmArray]:
    """Frontal DRRs of phantoms, two in three of them with opacities."""
    subjects = (make_phantom("chest", n, 64, family, opacities=n % 3 > 0) for n in range(ACROSS))
    return [drr(subject.ct, Geometry()) for subject in subjects]


def twin_films() -> list[FilmArray]:
    """The films of a small twin, in the order of their names."""
    with tempfile.TemporaryDirectory() as name:
        write_chest_xray(Path(name), TWIN, lambda done: None)
        return [real_film(path) for path in sorted(Path(name).rglob("*.jpeg"))]


# ---- pictures ----------------------------------------------------------------------------------


def as_film(film_UV: FilmArray, box: Box | None = None) -> Tile:
    """The film squashed to a square, its window outlined."""
    low, high = np.percentile(film_UV, [0.5, 99.5])
    tile = as_tile((film_UV - low) / (high - low))
    return tile if box is None else outlined(tile, box)


def as_input(framed: Framed) -> Tile:
    """What the models see."""
    return as_tile((framed.film_UV + 1) / 2)


def as_tile(share_UV: FilmArray) -> Tile:
    """Shares of white as a picture."""
    grey = Image.fromarray(np.rint(share_UV.clip(0, 1) * 255).astype(np.uint8))
    return np.asarray(grey.resize((TILE, TILE), Image.Resampling.BICUBIC).convert("RGB"))


def outlined(tile: Tile, box: Box) -> Tile:
    """A copy with the window's edges in red; those beyond the film lie on its border."""
    edges = np.array([box.top, box.bottom, box.left, box.right])
    top, bottom, left, right = (edges * TILE).astype(int).clip(0, TILE - 1).tolist()
    marked = tile.copy()
    for k in (0, 1):
        marked[[min(top + k, TILE - 1), max(bottom - k, 0)], left : right + 1] = RED
        marked[top : bottom + 1, [min(left + k, TILE - 1), max(right - k, 0)]] = RED
    return marked


def film_above_input(films: list[FilmArray]) -> list[list[Tile]]:
    """Two rows: each film with its window, and the result."""
    framed = [frame(film) for film in films]
    above = [as_film(film, found.box) for film, found in zip(films, framed, strict=True)]
    return [above, [as_input(found) for found in framed]]


def save_sheet(rows: list[list[Tile]], path: Path) -> None:
    """Tiles in rows, white between them."""
    step = TILE + GAP
    sheet = np.full((len(rows) * step - GAP, ACROSS * step - GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            sheet[i * step : i * step + TILE, j * step : j * step + TILE] = tile
    Image.fromarray(sheet).save(path, optimize=True)


def main(folder: Path, out: Path) -> None:
    """`framing.png` and `radiographs-beside-real.png`."""
    phantoms, twins = phantom_films(FAMILY), twin_films()[:: TWIN.count // ACROSS]
    hard = [real_film(folder / "chest_xray_224" / name) for name in HARD]
    mixed = [*chest_films(folder), *phantoms[: ACROSS - len(CHESTS)]]
    pairs = [film_above_input(films) for films in (hard, mixed, twins)]
    save_sheet([row for pair in pairs for row in pair], out / "framing.png")
    paths = real_paths(folder)
    chosen = np.random.default_rng(4).choice(len(paths), ACROSS, replace=False)
    drawn = [real_film(paths[n]) for n in chosen]
    beside = [[as_film(film) for film in films] for films in (phantoms, twins, drawn)]
    save_sheet(beside, out / "radiographs-beside-real.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

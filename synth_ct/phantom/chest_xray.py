"""ChestXray2017's twin: radiographs of phantoms in its layout, with its names and its quirks.

Patients of family A, like those whose CT the generator learns from: family B is kept for what is
fine-tuned on. They are other patients all the same, with seeds of their own, and their films are
degraded so that they look unlike DRRs, as real films do. Some patients have several films, some
of those lie in two parts of the split, and one film is there twice: the importer has all of that
to deal with.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from synth_ct.kit.axes import FilmArray
from synth_ct.kit.durable import write_bytes
from synth_ct.kit.recipe import Recipe
from synth_ct.kit.seeds import numpy_random, seed_for
from synth_ct.phantom.patient import make_phantom
from synth_ct.phantom.shapes import Family
from synth_ct.xray.degrade import degrade, draw_degradation
from synth_ct.xray.geometry import Geometry
from synth_ct.xray.project import drr

Class = Literal["NORMAL", "PNEUMONIA"]
PARTS: dict[tuple[str, Class], int] = {
    ("train", "NORMAL"): 1349,
    ("train", "PNEUMONIA"): 3883,
    ("test", "NORMAL"): 234,
    ("test", "PNEUMONIA"): 390,
    ("val", "NORMAL"): 8,
    ("val", "PNEUMONIA"): 8,
}
"""The original's counts; the twin's are in proportion, at least one each."""
FAMILY: Family = "A"
"""Generator and corpus see A alone, so that what is measured on B is no echo of A's shapes."""
ENOUGH_FOR_A_COPY = 8
FILMS = Geometry(pixels=(192, 192), pitch_mm=2.0)
JPEG_QUALITY = 92


class Twin(Recipe):
    """How many films of phantoms of how many voxels."""

    count: int = Field(ge=len(PARTS), le=1_000_000)
    size: int = Field(default=64, ge=32, le=128)
    """Voxels along each edge of the phantoms."""
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """One file of the tree: whose, and under which name."""

    patient: int
    number: int
    """Of the patient's films, from 0."""
    file: str
    sick: bool
    copy_of: str = ""


def write_chest_xray(folder: Path, recipe: Twin, tick: Callable[[int], None]) -> None:
    """Write the tree; films that are there already, from a run that was stopped, are kept."""
    lines: dict[int, FilmArray] = {}
    for film in plan_films(recipe):
        path = folder / film.file
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            if film.copy_of:
                write_bytes(path, (folder / film.copy_of).read_bytes())
            else:
                if film.patient not in lines:
                    lines = {film.patient: _lines_of(film, recipe)}
                write_bytes(path, _jpeg(lines[film.patient], film, recipe))
        tick(1)


def _lines_of(film: Film, recipe: Twin) -> FilmArray:
    """The line integrals of a patient."""
    # No CT cohort draws from this purpose, whatever its root seed: nobody is in both.
    seed = seed_for(recipe.seed, "chest_xray/patient", film.patient)
    phantom = make_phantom("chest", seed, recipe.size, FAMILY, opacities=film.sick)
    return drr(phantom.ct, FILMS)


def _jpeg(lines_UV: FilmArray, film: Film, recipe: Twin) -> bytes:
    random = numpy_random(recipe.seed, f"chest_xray/film/{film.patient}", film.number)
    grey = np.rint(degrade(lines_UV, draw_degradation(random)) * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


# ---- who has which films, under which names ----------------------------------------------------


def plan_films(recipe: Twin) -> list[Film]:
    """All files of the tree, patient after patient."""
    counts = parts_of(recipe.count)
    random = numpy_random(recipe.seed, "chest_xray/plan")
    films: list[Film] = []
    for kind in ("NORMAL", "PNEUMONIA"):
        folders = [f"{part}/{k}" for (part, k), n in counts.items() if k == kind for _ in range(n)]
        films += list(_films_of(folders, random, first_patient=len(films) + 1))
    return _with_a_copy(films) if recipe.count >= ENOUGH_FOR_A_COPY else films


def parts_of(count: int) -> dict[tuple[str, Class], int]:
    """`count` films over the parts in the original's proportions, by largest remainder."""
    spare, total = count - len(PARTS), sum(PARTS.values())
    shares = {part: spare * n / total for part, n in PARTS.items()}
    counts = {part: 1 + int(share) for part, share in shares.items()}
    by_remainder = sorted(shares, key=lambda part: int(shares[part]) - shares[part])
    for part in by_remainder[: count - sum(counts.values())]:
        counts[part] += 1
    return counts


def _films_of(
    folders: list[str], random: np.random.Generator, first_patient: int
) -> Iterator[Film]:
    """One to three films a patient, in the folders' order: some patients stand in two parts."""
    patient, done = first_patient, 0
    while done < len(folders):
        films = min(int(random.choice([1, 2, 3], p=[0.75, 0.18, 0.07])), len(folders) - done)
        sick = folders[done].endswith("PNEUMONIA")
        name = _sick_name(patient, random) if sick else _normal_name(patient, random, films)
        for number in range(films):
            file = f"{folders[done]}/{name(number, done)}.jpeg"
            yield Film(patient=patient, number=number, file=file, sick=sick)
            done += 1
        patient += 1


Name = Callable[[int, int], str]
"""(number among the patient's films, number among all) -> file name."""


def _sick_name(patient: int, random: np.random.Generator) -> Name:
    germ = "bacteria" if random.random() < 0.65 else "virus"
    return lambda number, done: f"person{patient}_{germ}_{done + 1}"


def _normal_name(patient: int, random: np.random.Generator, films: int) -> Name:
    prefix = "NORMAL2-IM" if random.random() < 0.5 else "IM"
    if films == 1:
        return lambda number, done: f"{prefix}-{patient:04d}-0001"
    return lambda number, done: f"{prefix}-{patient:04d}-0001-{number + 1:04d}"


def _with_a_copy(films: list[Film]) -> list[Film]:
    """The last sick film of the train part becomes a copy of the first one, as its patient's."""
    sick = [film for film in films if film.file.startswith("train/PNEUMONIA/")]
    first, last = sick[0], sick[-1]
    name = first.file.rpartition("_")[0] + "_" + last.file.rpartition("_")[2]
    copy = Film(patient=first.patient, number=last.number, file=name, sick=True, copy_of=first.file)
    return [copy if film is last else film for film in films]

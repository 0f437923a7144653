"""Pairs on disk: made from a CT cohort in parallel, resumable, opened only if whole.

`volumes.npy` and `films.npy` are plain arrays, mapped and not read, so a cohort larger than memory
trains as well as a small one.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from synth_ct.cohort import Cohort
from synth_ct.cohort.case import Case
from synth_ct.cohort.pool import worker_pool
from synth_ct.kit.artifact import read_record
from synth_ct.kit.durable import sha256_of_file, write_text
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import SetAside, write_report
from synth_ct.kit.recipe import Recipe
from synth_ct.pairs.arrays import Pair, Pairs
from synth_ct.pairs.make import make_pair

VOLUMES, FILMS, INDEX = "volumes.npy", "films.npy", "pairs.json"
PARTS = "parts"


class PairsRecipe(Recipe):
    """On which grid."""

    size: int = Field(ge=32, le=128, multiple_of=4)
    """Voxels, and pixels, a side."""


def make_pairs(recipe: PairsRecipe, cohort: Cohort, workspace: Path, effort: Effort) -> None:
    """Fill a workspace with every CT of a cohort in which a thorax is found."""
    if cohort.kind == "radiographs":
        raise ValueError(f"{cohort.folder} holds radiographs; pairs are made from CT")
    parts = workspace / PARTS
    parts.mkdir(exist_ok=True)
    todo = [case for case in cohort.cases if not (parts / f"{case.id}.npz").exists()]
    tick = effort.begin(len(cohort.cases))
    tick(len(cohort.cases) - len(todo))
    work = partial(_write_part, cohort, recipe.size, parts)
    if effort.workers:
        with worker_pool(effort.workers) as pool:
            for _ in pool.map(work, todo):
                tick(1)
    else:
        for case in todo:
            work(case)
            tick(1)
    _assemble(cohort, recipe.size, workspace, effort)


def _write_part(cohort: Cohort, size: int, parts: Path, case: Case) -> None:
    made = make_pair(cohort.volume(case), size)
    box, partial_file = made.framed.box, parts / f"{case.id}.partial.npz"
    about = {
        "box": [box.top, box.bottom, box.left, box.right],
        "likeness": made.framed.likeness,
        "notes": list(made.framed.notes),
    }
    np.savez(partial_file, hu=made.hu_XYZ, film=made.film_UV, about=json.dumps(about))
    os.replace(partial_file, parts / f"{case.id}.npz")


def _assemble(cohort: Cohort, size: int, workspace: Path, effort: Effort) -> None:
    """Lay the parts out as two arrays; a CT in which no thorax was found is left out, and named."""
    abouts = {case.id: _about(workspace / PARTS / f"{case.id}.npz") for case in cohort.cases}
    left_out = [i for i, about in abouts.items() if "no_lung_field" in about["notes"]]
    kept = [case for case in cohort.cases if case.id not in left_out]
    write_report(workspace, [_set_aside(case) for case in cohort.cases if case.id in left_out])
    if not kept:
        raise ValueError(f"no CT of {cohort.folder} shows a thorax; pairs need chest CT")
    create = partial(np.lib.format.open_memmap, mode="w+")
    volumes = create(workspace / VOLUMES, dtype=np.int16, shape=(len(kept), size, size, size))
    films = create(workspace / FILMS, dtype=np.float32, shape=(len(kept), size, size))
    tick = effort.begin(len(kept))
    for n, case in enumerate(kept):
        with np.load(workspace / PARTS / f"{case.id}.npz") as part:
            volumes[n], films[n] = part["hu"], part["film"]
        tick(1, "laid out")
    volumes.flush()
    films.flush()
    rows = [asdict(Pair(id=c.id, patient=c.patient, split=c.split, **abouts[c.id])) for c in kept]
    index = {"about": cohort.about, "left_out": left_out, "pairs": rows}
    write_text(workspace / INDEX, json.dumps(index, indent=1, allow_nan=False))
    for case in cohort.cases:
        (workspace / PARTS / f"{case.id}.npz").unlink()
    (workspace / PARTS).rmdir()


def _set_aside(case: Case) -> SetAside:
    return SetAside(
        code="E_NO_THORAX",
        file=case.file,
        cause="no thorax was found in its film, so film and volume cannot be aligned",
        remedy="look at it with `synth-ct drr`; if it is a chest, report it",
    )


def _about(part: Path) -> dict[str, Any]:
    with np.load(part) as arrays:
        about: dict[str, Any] = json.loads(str(arrays["about"]))
    return {**about, "box": tuple(about["box"]), "notes": tuple(about["notes"])}


def open_pairs(folder: Path) -> Pairs:
    """The pairs of a finished folder, each file checked against its recorded sha256."""
    record = read_record(folder)
    if record is None:
        raise ValueError(f"{folder} holds no finished pairs (no record.json); make them first")
    for name in (INDEX, VOLUMES, FILMS):
        if sha256_of_file(folder / name) != record.files[name]:
            raise ValueError(f"{folder / name} was changed after it was written; make it anew")
    rows = json.loads((folder / INDEX).read_text())["pairs"]
    volumes, films = (np.load(folder / name, mmap_mode="r") for name in (VOLUMES, FILMS))
    return Pairs(tuple(_pair(row) for row in rows), volumes, films)


def subject_of(folder: Path) -> dict[str, str]:
    """What the volumes are, as their cohort says: `evidence` and `trained_on`."""
    about = json.loads((folder / INDEX).read_text())["about"]
    evidence = str(about["evidence"])
    return {
        "evidence": evidence,
        "trained_on": "phantoms" if evidence == "phantom" else str(about["title"]),
    }


def _pair(row: Mapping[str, Any]) -> Pair:
    return Pair(**{**row, "box": tuple(row["box"]), "notes": tuple(row["notes"])})

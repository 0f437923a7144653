"""How many phantoms of which kind: a cohort made from nothing but a seed."""

import hashlib
from functools import partial
from pathlib import Path

from pydantic import Field

from synth_ct.cohort.case import Case, Findings, Found, Importer
from synth_ct.cohort.divide import all_train, eighty_ten_ten
from synth_ct.cohort.gather import gather
from synth_ct.kit.durable import sha256_of_file
from synth_ct.kit.effort import Effort
from synth_ct.kit.recipe import Recipe
from synth_ct.phantom.cohort import CLASSES, write_case
from synth_ct.phantom.patient import Kind
from synth_ct.phantom.shapes import Family


class PhantomCohort(Recipe):
    """`count` patients of one kind and family."""

    kind: Kind
    count: int = Field(ge=1, le=1_000_000)
    size: int = Field(default=64, ge=32, le=128)
    """Voxels along each edge of the cube; the field of view in millimetres stays."""
    seed: int = Field(default=0, ge=0)
    family: Family = "A"


def read_phantom(recipe: PhantomCohort, item: Found, workspace: Path) -> Case:
    """Make the phantom whose number is its patient."""
    return write_case(
        recipe.kind, recipe.family, recipe.size, recipe.seed, int(item.patient), workspace
    )


def phantom_importer(recipe: PhantomCohort) -> Importer:
    """Phantoms become a cohort by the same road as files: in parallel, resumable, divided."""
    is_chest = recipe.kind == "chest"
    return Importer(
        name="phantoms",
        kind="ct" if is_chest else "labelled",
        find=lambda _: phantom_findings(recipe),
        read=partial(read_phantom, recipe),
        divide=eighty_ten_ten if is_chest else all_train,
        about={"title": f"procedural {recipe.kind} phantoms", "evidence": "phantom"},
    )


def make_phantom_cohort(recipe: PhantomCohort, workspace: Path, effort: Effort) -> None:
    """Fill a workspace with phantoms."""
    gather(phantom_importer(recipe), phantom_findings(recipe), workspace, recipe.seed, effort)


def phantom_files(folder: Path) -> tuple[list[str], str]:
    """The volumes and label maps of a cohort, and one digest over their contents in name order."""
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.nii.gz"))
    digest = hashlib.sha256()
    for name in files:
        digest.update(bytes.fromhex(sha256_of_file(folder / name)))
    return files, digest.hexdigest()


def phantom_findings(recipe: PhantomCohort) -> Findings:
    """One candidate a patient; there is nothing to look for."""
    names = range(recipe.count)
    return Findings(
        found=[Found(name=f"{i:06d}", files=(), patient=str(i)) for i in names],
        classes=CLASSES[recipe.kind],
    )

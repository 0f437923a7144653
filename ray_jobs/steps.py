"""The whole pipeline on one page: which folder is made from which, by what."""

from dataclasses import replace
from pathlib import Path

from ray_jobs.plan import Step
from ray_jobs.recipes import Run
from synth_ct.cohort.gather import gather
from synth_ct.kit.effort import Effort
from synth_ct.kit.recipe import Recipe
from synth_ct.phantom.chest_xray import Twin, write_chest_xray
from synth_ct.phantom.recipe import PhantomCohort, make_phantom_cohort
from synth_ct.sources.importers import IMPORTERS


class Import(Recipe):
    """Which importer reads the folder, and the seed of the division by patient."""

    importer: str
    seed: int


def make_phantoms(
    recipe: PhantomCohort, workspace: Path, inputs: dict[str, Path], effort: Effort
) -> None:
    """Phantoms as a cohort."""
    assert not inputs
    make_phantom_cohort(recipe, workspace, effort)


def make_twin(recipe: Twin, workspace: Path, inputs: dict[str, Path], effort: Effort) -> None:
    """The JPEG tree of phantom radiographs, in the layout of ChestXray2017."""
    assert not inputs
    write_chest_xray(workspace / "chest_xray", recipe, effort.begin(recipe.count))


def import_twin(recipe: Import, workspace: Path, inputs: dict[str, Path], effort: Effort) -> None:
    """The twin through the very importer that reads the real archive; it must not say "real"."""
    (source,) = inputs.values()
    about = {"title": "radiographs of phantoms", "evidence": "phantom"}
    importer = replace(IMPORTERS[recipe.importer], about=about)
    gather(importer, importer.find(source), workspace, recipe.seed, effort)


def steps_of(run: Run) -> list[Step]:
    """Every step of a run, inputs before what is made from them."""
    cohorts = run.cohorts
    twin = Step(
        name="cohorts/chest_xray", stage="cohorts", recipe=cohorts.chest_xray, make=make_twin
    )
    radiographs = Step(
        name="cohorts/radiographs",
        stage="cohorts",
        recipe=Import(importer="chest-xray2017", seed=run.seed),
        make=import_twin,
        inputs=(twin,),
    )
    phantoms = [
        Step(name=f"cohorts/{name}", stage="cohorts", recipe=recipe, make=make_phantoms)
        for name, recipe in (("ct", cohorts.ct), ("bcv", cohorts.bcv), ("spleen", cohorts.spleen))
    ]
    return [*phantoms, twin, radiographs]

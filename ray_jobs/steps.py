"""The whole pipeline on one page: which folder is made from which, by what."""

from dataclasses import replace
from pathlib import Path

from ray_jobs.plan import Make, Step
from ray_jobs.recipes import Run
from synth_ct.cohort import Cohort
from synth_ct.cohort.gather import gather
from synth_ct.generator import About, GeneratorRecipe, write_generator
from synth_ct.kit.effort import Effort
from synth_ct.kit.recipe import Recipe
from synth_ct.pairs.disk import PairsRecipe, make_pairs, open_pairs, subject_of
from synth_ct.phantom.chest_xray import Twin, write_chest_xray
from synth_ct.phantom.recipe import PhantomCohort, make_phantom_cohort
from synth_ct.sources.importers import IMPORTERS
from synth_ct.training import (
    StyleStage,
    autoencoder_stage,
    denoiser_stage,
    prior_stage,
    style_stage,
)

PAIRS = "cohorts/pairs"


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


def make_pairs_step(
    recipe: PairsRecipe, workspace: Path, inputs: dict[str, Path], effort: Effort
) -> None:
    """Every CT on the working grid, beside its film."""
    make_pairs(recipe, Cohort.open(inputs["cohorts/ct"]), workspace, effort)


def collect(
    recipe: GeneratorRecipe, workspace: Path, inputs: dict[str, Path], effort: Effort
) -> None:
    """The four weights in one folder."""
    del effort  # links and a few statistics
    pairs = inputs[PAIRS]
    parts = [folder for name, folder in inputs.items() if name != PAIRS]
    about = About.model_validate({"recipe": recipe, **subject_of(pairs)})
    write_generator(about, parts, open_pairs(pairs), workspace)


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
    return [*phantoms, twin, radiographs, *generator_steps(run, phantoms[0], radiographs)]


def generator_steps(run: Run, ct: Step, radiographs: Step) -> list[Step]:
    """XctDiff: pairs, four trainings, and the generator they make up."""
    recipe, gpus = run.generator, run.gpus

    def trained(kind: str, part: Recipe, make: Make, *inputs: Step) -> Step:
        name = f"{kind}/{recipe.name}"
        return Step(name=name, stage="generator", recipe=part, make=make, inputs=inputs, gpus=gpus)

    pairs = Step(
        name=PAIRS,
        stage="cohorts",
        recipe=PairsRecipe(size=recipe.size),
        make=make_pairs_step,
        inputs=(ct,),
    )
    autoencoder = trained("autoencoder", recipe.autoencoder, autoencoder_stage, pairs)
    taught_by = (autoencoder,) if recipe.prior.target == "latent" else ()
    prior = trained("prior", recipe.prior, prior_stage, pairs, *taught_by)
    denoiser = trained("denoiser", recipe.denoiser, denoiser_stage, pairs, autoencoder, prior)
    stage = StyleStage(style=recipe.style, seed=run.seed)
    style = trained("style", stage, style_stage, pairs, radiographs)
    parts = (autoencoder, prior, denoiser, style)
    generator = Step(
        name=f"generator/{recipe.name}",
        stage="generator",
        recipe=recipe,
        make=collect,
        inputs=(pairs, *parts),
    )
    return [pairs, *parts, generator]

"""The whole pipeline on one page: which folder is made from which, by what."""

from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from ray_jobs.corpus_steps import corpus_steps
from ray_jobs.encoder_steps import encoder_steps
from ray_jobs.fold_steps import fold_steps
from ray_jobs.plan import Make, Step
from ray_jobs.recipes import Ingested, Run
from ray_jobs.report_step import report_steps
from synth_ct.cohort import Cohort
from synth_ct.cohort.divide import held_apart
from synth_ct.cohort.gather import gather
from synth_ct.generator import About, GeneratorRecipe, write_generator
from synth_ct.kit.effort import Effort
from synth_ct.kit.recipe import Recipe
from synth_ct.learners.autoencoder import AutoencoderRecipe
from synth_ct.models.perceptual import demand_weights
from synth_ct.pairs.disk import PairsRecipe, make_pairs, open_pairs, subject_of
from synth_ct.phantom.chest_xray import Twin, write_chest_xray
from synth_ct.phantom.recipe import PhantomCohort, make_phantom_cohort
from synth_ct.quality import LEAST_PAIRS
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
    pairs = inputs[PAIRS]
    parts = [folder for name, folder in inputs.items() if name != PAIRS]
    about = About.model_validate({"recipe": recipe, **subject_of(pairs)})
    write_generator(about, parts, open_pairs(pairs), workspace, effort)


def steps_of(run: Run) -> list[Step]:
    """Every step of a run, inputs before what is made from them."""
    cohorts = run.cohorts
    named = {"ct": cohorts.ct, "bcv": cohorts.bcv, "spleen": cohorts.spleen}
    volumes = {name: _cohort(name, recipe) for name, recipe in named.items()}
    films = _radiographs(run)
    pairs = Step(
        name=PAIRS,
        stage="cohorts",
        recipe=PairsRecipe(size=run.generator.size),
        make=make_pairs_step,
        inputs=(volumes["ct"],),
    )
    generators = [
        step
        for recipe in (run.generator, *run.ablations)
        for step in generator_steps(recipe, run, pairs, films[-1])
    ]
    variations = [
        _autoencoder(name, recipe, run.gpus, pairs) for name, recipe in run.variations.items()
    ]
    (generator,) = (s for s in generators if s.name == f"generator/{run.generator.name}")
    corpora = corpus_steps(run, generator, films[-1], pairs)
    encoders = encoder_steps(run, corpora)
    folds = fold_steps(run, volumes, encoders)
    report = report_steps(run, folds, (*volumes.values(), films[-1], pairs, *corpora))
    return [
        *volumes.values(), *films, pairs, *generators, *variations, *corpora, *encoders, *folds,
        *report,
    ]  # fmt: skip


def _cohort(name: str, recipe: PhantomCohort | Ingested) -> Step:
    if isinstance(recipe, Ingested):
        return _ingested(name, recipe)
    return Step(name=f"cohorts/{name}", stage="cohorts", recipe=recipe, make=make_phantoms)


def _ingested(name: str, recipe: Ingested) -> Step:
    return Step(name=f"cohorts/{name}", stage="cohorts", recipe=recipe, make=None)


def _radiographs(run: Run) -> list[Step]:
    """The radiographs, last; a twin's tree of JPEGs before them."""
    recipe = run.cohorts.radiographs
    if isinstance(recipe, Ingested):
        return [_ingested("radiographs", recipe)]
    twin = Step(name="cohorts/chest_xray", stage="cohorts", recipe=recipe, make=make_twin)
    importer = Import(importer="chest-xray2017", seed=run.seed)
    name = "cohorts/radiographs"
    return [
        twin,
        Step(name=name, stage="cohorts", recipe=importer, make=import_twin, inputs=(twin,)),
    ]


def _trained(kind: str, name: str, recipe: Recipe, make: Make, gpus: float, *inputs: Step) -> Step:
    return Step(
        name=f"{kind}/{name}",
        stage="generator",
        recipe=recipe,
        make=make,
        inputs=inputs,
        gpus=gpus,
    )


def _autoencoder(name: str, recipe: AutoencoderRecipe, gpus: float, pairs: Step) -> Step:
    step = _trained("autoencoder", name, recipe, autoencoder_stage, gpus, pairs)
    return replace(step, demand=partial(demand_weights, recipe.perceptual))


def generator_steps(
    recipe: GeneratorRecipe, run: Run, pairs: Step, radiographs: Step
) -> list[Step]:
    """XctDiff: four trainings, and the generator they make up."""

    def trained(kind: str, part: Recipe, make: Make, *inputs: Step) -> Step:
        return _trained(kind, recipe.name, part, make, run.gpus, *inputs)

    autoencoder = _autoencoder(recipe.name, recipe.autoencoder, run.gpus, pairs)
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
        demand=partial(demand_patients, recipe, run.cohorts.ct),
    )
    return [*parts, generator]


def demand_patients(recipe: GeneratorRecipe, cohort: PhantomCohort | Ingested) -> None:
    """Refuse fewer phantoms than fill a micro-batch, or say what volumes should be like."""
    if isinstance(cohort, Ingested):
        return  # nobody knows how many before they are read
    parts = (recipe.autoencoder, recipe.prior, recipe.denoiser)
    least = max(LEAST_PAIRS, *(part.training.micro_batch for part in parts))
    if trained_on(cohort.count) < least:
        enough = next(n for n in count(least) if trained_on(n) >= least)
        raise ValueError(
            f"generator {recipe.name} learns from at least {least} patients, and cohorts.ct.count "
            f"{cohort.count} leaves {trained_on(cohort.count)} of them to train: make it {enough} "
            "or more"
        )


def trained_on(patients: int) -> int:
    """Those that are neither in val nor in test."""
    return patients - sum(held_apart(patients))

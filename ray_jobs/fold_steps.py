"""The folds stage of a run: the grid of fits, each a folder, and all their scores in one table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.cases import cases_stage
from finetune.folds import FoldsRecipe, folds_stage
from finetune.results import open_fit, write_results
from finetune.shown import Shown
from finetune.stage import Finetuning, FitRecipe, fit_stage
from ray_jobs.finetuning import Folds
from ray_jobs.plan import Step
from ray_jobs.pretraining import Pretraining
from ray_jobs.recipes import Run
from reports.protocol import NAME, Protocol, protocol_stage
from synth_ct.kit.effort import Effort
from synth_ct.kit.recipe import Recipe
from synth_ct.kit.volume import spacing_mm
from synth_ct.pairs.arrays import working_affine

RESULTS = "fits/results"
TABLE = "results.parquet"


class Collected(Recipe):
    """All fits of the run, by their number."""

    fits: int


def fold_steps(run: Run, cohorts: Mapping[str, Step], encoders: Sequence[Step]) -> list[Step]:
    """The frozen protocol, folds and cases of each data set, every fit, and the table."""
    if run.folds is None or run.pretraining is None:
        return []
    frozen = protocol(run.folds, run.pretraining)
    common = [Step(name=NAME, stage="folds", recipe=frozen, make=protocol_stage)]
    fits: list[Step] = []
    for dataset, recipe in run.folds.datasets.items():
        shared = [cohorts[dataset], _folds(dataset, recipe, cohorts[dataset])]
        cases = _cases(run, dataset, cohorts[dataset])
        for arch, finetuning in run.folds.networks.items():
            own = [*shared, cases[shown(run, finetuning)], common[0]]
            fits += _fits(run, dataset, arch, own, encoders)
        common += [shared[1], *cases.values()]
    fits.sort(key=lambda step: step.name.rpartition("-s")[2])  # a seed is whole before the next
    table = Step(
        name=RESULTS,
        stage="folds",
        recipe=Collected(fits=len(fits)),
        make=collect,
        inputs=tuple(fits),
    )
    return [*common, *fits, table]


def protocol(folds: Folds, pretraining: Pretraining) -> Protocol:
    """What will be compared, as it is frozen before the first fit."""
    return Protocol(
        arms=pretraining.arms,
        seeds=pretraining.seeds,
        folds=max(recipe.folds for recipe in folds.datasets.values()),
        margin_points=folds.margin_points,
    )


def shown(run: Run, finetuning: Finetuning) -> Shown:
    """The network's own grid and window, or those of pretraining."""
    assert run.pretraining is not None, "asked by fold_steps"
    return finetuning.shown or Shown(
        spacing_mm=spacing_mm(working_affine(run.generator.size)),
        window_hu=run.pretraining.networks[finetuning.network].window_hu,
    )


def _folds(dataset: str, recipe: FoldsRecipe, cohort: Step) -> Step:
    return Step(
        name=f"cohorts/{dataset}_folds",
        stage="folds",
        recipe=recipe,
        make=folds_stage,
        inputs=(cohort,),
    )


def _cases(run: Run, dataset: str, cohort: Step) -> dict[Shown, Step]:
    """One folder for each grid and window that a network wants."""
    assert run.folds is not None, "asked by fold_steps"
    wanted = dict.fromkeys(shown(run, each) for each in run.folds.networks.values())
    return {
        each: Step(
            name=f"cohorts/{dataset}_cases{number or ''}",
            stage="folds",
            recipe=each,
            make=cases_stage,
            inputs=(cohort,),
        )
        for number, each in enumerate(wanted)
    }


def _fits(
    run: Run, dataset: str, arch: str, own: Sequence[Step], encoders: Sequence[Step]
) -> list[Step]:
    """Every arm, seed and fold of a network on a data set: `fits/bcv-swin-synthetic-f0-s0`."""
    assert run.folds is not None, "asked by fold_steps"
    assert run.pretraining is not None, "asked by fold_steps"
    named = {step.name: step for step in encoders}
    finetuning = run.folds.networks[arch]
    backbone = run.pretraining.networks[finetuning.network].backbone
    return [
        Step(
            name=f"fits/{dataset}-{arch}-{arm}-f{number}-s{seed}",
            stage="folds",
            recipe=FitRecipe(
                dataset=dataset,
                arch=arch,
                arm=arm,
                fold=number,
                seed=seed,
                evidence=run.evidence,
                backbone=backbone,
                finetuning=finetuning,
            ),
            make=fit_stage,
            inputs=(*own, named[f"encoder/{finetuning.network}-{arm}-s{seed}"]),
            gpus=run.gpus,
            where="task",
        )
        for seed in run.pretraining.seeds
        for number in range(run.folds.datasets[dataset].folds)
        for arm in run.pretraining.arms
    ]


def collect(recipe: Collected, workspace: Path, inputs: Mapping[str, Path], effort: Effort) -> None:
    """One table of all scores."""
    assert recipe.fits == len(inputs), "a fit for each input"
    del effort
    write_results(workspace / TABLE, [open_fit(folder) for folder in inputs.values()])

"""The steps of `synth-ct finetune`: a small root whose cohort and encoders lie elsewhere.

They are linked below the root under the names they would have in a run, so that fits, their
records and the table of results are those of a run.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finetune.cases import cases_stage
from finetune.folds import FoldsRecipe, draw, folds_stage
from finetune.shown import Shown, shown_in_pretraining
from finetune.stage import Finetuning, FitRecipe, fit_stage
from pretrain.encoder import SCRATCH, Encoder
from pretrain.objectives.mae import MaeRecipe
from pretrain.stage import Network, PretrainRecipe, pretrain_stage
from ray_jobs.fold_steps import RESULTS, Collected, collect
from ray_jobs.plan import Step, demand_gpu
from ray_jobs.recipes import Run
from reports.protocol import NAME, Contrast, Protocol, protocol_stage
from synth_ct.cohort import Cohort
from synth_ct.kit.artifact import read_record
from synth_ct.kit.loop import Training
from synth_ct.kit.recipe import Recipe


class Brought(Recipe):
    """A finished artifact that a person named; its own record says what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is asked for, looked at before anything is made."""

    cohort: Cohort
    dataset: str
    evidence: Literal["plumbing", "phantom", "real"]
    """The cohort's, unless the recipe trains for seconds."""
    arch: str
    """Of the recipe's fine-tuned networks."""
    finetuning: Finetuning
    shown: Shown
    encoders: Mapping[str, Encoder | None]
    """By arm; None: untouched initial weights, made here."""
    folds: FoldsRecipe
    seed: int
    gpus: float
    margin_points: float

    @property
    def first(self) -> Encoder:
        """Whose architecture and grid all share."""
        return next(encoder for encoder in self.encoders.values() if encoder is not None)


def study_of(
    cases: Path,
    folders: Sequence[Path],
    run: Run,
    network: str | None,
    scratch: bool,
    drawn: tuple[int, int],
) -> Study:
    """Refuse, in one line, what could never become a fit. `drawn`: number of folds, and seed."""
    cohort = Cohort.open(cases)
    if cohort.kind != "labelled":
        raise ValueError(
            f"{cases} is a cohort of kind {cohort.kind!r}, and fine-tuning needs labels; make one "
            "with `synth-ct ingest labelled SRC OUT` or `synth-ct phantoms OUT --kind abdomen`"
        )
    folds, seed = FoldsRecipe(folds=drawn[0]), drawn[1]
    draw(folds, cohort)
    encoders = _by_arm([Encoder.open(folder) for folder in folders], scratch)
    first = next(encoder for encoder in encoders.values() if encoder is not None)
    arch, finetuning = _network(run, network, first)
    _demand_alike(encoders, finetuning)
    demand_gpu(run.name, run.gpus)
    assert run.folds is not None, "asked by _network"
    return Study(
        cohort=cohort,
        dataset=dataset_name(cases),
        evidence="plumbing" if run.evidence == "plumbing" else cohort.about["evidence"],
        arch=arch,
        finetuning=finetuning,
        shown=finetuning.shown or shown_in_pretraining(first.adaptation.input),
        encoders=encoders,
        folds=folds,
        seed=seed,
        gpus=run.gpus,
        margin_points=run.folds.margin_points,
    )


def dataset_name(cases: Path) -> str:
    """The cohort's folder, as names of folders may be.

    >>> dataset_name(Path("cohorts/Liver tumours"))
    'liver_tumours'
    """
    return re.sub(r"[^a-z0-9]+", "_", cases.resolve().name.lower()).strip("_") or "own"


def _by_arm(encoders: Sequence[Encoder], scratch: bool) -> dict[str, Encoder | None]:
    arms: dict[str, Encoder | None] = {}
    for encoder in encoders:
        arm = encoder.adaptation.arm
        if (other := arms.get(arm)) is not None:
            raise ValueError(
                f"{other.folder} and {encoder.folder} are both of arm {arm!r}, and their fits "
                "would be one; fine-tune each with an OUT of its own"
            )
        arms[arm] = encoder
    if scratch:
        arms.setdefault(SCRATCH, None)
    return arms


def _network(run: Run, name: str | None, encoder: Encoder) -> tuple[str, Finetuning]:
    """The one asked for, or the recipe's first of the encoder's kind."""
    if run.folds is None or run.pretraining is None:
        raise ValueError(f"recipe {run.name} fine-tunes nothing; choose another, e.g. small")
    kinds = {
        arch: run.pretraining.networks[finetuning.network].backbone.kind
        for arch, finetuning in run.folds.networks.items()
    }
    kind = encoder.adaptation.architecture.kind
    fitting = [arch for arch, its in kinds.items() if its == kind]
    name = name or next(iter(fitting), kind)
    if name not in fitting:
        raise ValueError(
            f"{encoder.folder} is of architecture {kind}, and recipe {run.name} fine-tunes that as "
            f"{', '.join(fitting) or 'nothing'}, not as {name!r}; name one of these with "
            "--network, or take another encoder"
        )
    return name, run.folds.networks[name]


def _demand_alike(encoders: Mapping[str, Encoder | None], finetuning: Finetuning) -> None:
    """Arms differ in what they were pretrained on alone."""
    first, *others = (encoder for encoder in encoders.values() if encoder is not None)
    for other in others:
        ours, theirs = _compared(first, finetuning), _compared(other, finetuning)
        if fields := [name for name in ours.keys() & theirs if ours[name] != theirs[name]]:
            told = ", ".join(f"{n} {ours[n]} against {theirs[n]}" for n in sorted(fields))
            raise ValueError(
                f"{first.folder} and {other.folder} cannot be compared: {told}; take encoders that "
                "differ in their corpus alone, or fine-tune each with an OUT of its own"
            )


def _compared(encoder: Encoder, finetuning: Finetuning) -> dict[str, Any]:
    about = encoder.adaptation
    fields = {"transferred": about.transferred, **about.architecture.model_dump()}
    if about.arm != SCRATCH:
        fields |= {"objective": about.objective, "steps": about.steps, "seed": about.seed}
    if finetuning.shown is None:
        fields |= shown_in_pretraining(about.input).model_dump()
    return fields


# ---- the root ----------------------------------------------------------------------------------


def link(study: Study, out: Path) -> None:
    """What lies elsewhere, below the root; fingerprints in records say which it was."""
    _link(out / _cohort(study).name, study.cohort.folder)
    for arm, encoder in study.encoders.items():
        if encoder is not None:
            _link(out / _encoder_name(study, arm), encoder.folder)


def _link(place: Path, folder: Path) -> None:
    """Anew where the folder was moved; never to another one."""
    if place.resolve() == folder.resolve() and place.exists():
        return
    was, now = read_record(place), read_record(folder)
    assert now is not None, "it was opened"
    if place.exists() and (was is None or was.fingerprint != now.fingerprint):
        raise ValueError(
            f"{place} is another than {folder}, and fits were made from it; choose another OUT"
        )
    if place.exists() and not place.is_symlink():
        return  # a copy
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    fresh.symlink_to(folder.resolve(), target_is_directory=True)
    fresh.replace(place)


# ---- the steps ---------------------------------------------------------------------------------


def steps_of(study: Study, numbers: Sequence[int]) -> list[Step]:
    """Protocol, folds and cases, the fits of these folds, and the table once there are all."""
    cohort, frozen = _cohort(study), _folds_step(NAME, protocol(study), protocol_stage)
    below = f"cohorts/{study.dataset}"
    folds = _folds_step(f"{below}_folds", study.folds, folds_stage, cohort)
    cases = _folds_step(f"{below}_cases", study.shown, cases_stage, cohort)
    encoders = {arm: _encoder(study, arm) for arm in study.encoders}
    common = (cohort, folds, cases, frozen)
    fits = [
        _fit(study, arm, number, (*common, encoder))
        for number in numbers
        for arm, encoder in encoders.items()
    ]
    steps = [*common, *encoders.values(), *fits]
    if len(numbers) == study.folds.folds:
        steps.append(_folds_step(RESULTS, Collected(fits=len(fits)), collect, *fits))
    return steps


def protocol(study: Study) -> Protocol:
    """Every arm against scratch, or against the first where there is none."""
    arms = tuple(study.encoders)
    baseline = SCRATCH if SCRATCH in arms else arms[0]
    return Protocol(
        margin_points=study.margin_points,
        headline=tuple(Contrast(arm=arm, baseline=baseline) for arm in arms if arm != baseline),
        arms=arms,
        seeds=(study.seed,),
        folds=study.folds.folds,
    )


def is_fit(study: Study, name: str) -> bool:
    """Whether a step is one."""
    return name.startswith(f"fits/{study.dataset}-")


def _cohort(study: Study) -> Step:
    return Step(name=f"cohorts/{study.dataset}", stage="cohorts", recipe=Brought(), make=None)


def _folds_step(name: str, recipe: Recipe, make: Any, *inputs: Step) -> Step:
    return Step(name=name, stage="folds", recipe=recipe, make=make, inputs=inputs)


def _encoder_name(study: Study, arm: str) -> str:
    return f"encoder/{study.finetuning.network}-{arm}-s{study.seed}"


def _encoder(study: Study, arm: str) -> Step:
    """As it was brought; untouched initial weights are drawn here."""
    made = study.encoders[arm] is None
    return Step(
        name=_encoder_name(study, arm),
        stage="encoder",
        recipe=_untouched(study) if made else Brought(),
        make=pretrain_stage if made else None,
    )


def _untouched(study: Study) -> PretrainRecipe:
    """Of arm scratch: like the first encoder in all but its values."""
    about = study.first.adaptation
    return PretrainRecipe(
        network=Network(
            backbone=about.architecture,
            objective=MaeRecipe(),
            transfer=about.transferred,
            crop=about.input.crop_XYZ,
            training=Training(seed=study.seed, steps=1, global_batch=2, micro_batch=2),
        ),
        arm="scratch",
        evidence=study.evidence,
        spacing_mm=about.input.spacing_mm,
    )


def _fit(study: Study, arm: str, number: int, inputs: tuple[Step, ...]) -> Step:
    return Step(
        name=f"fits/{study.dataset}-{study.arch}-{arm}-f{number}-s{study.seed}",
        stage="folds",
        recipe=FitRecipe(
            dataset=study.dataset,
            arch=study.arch,
            arm=arm,
            fold=number,
            seed=study.seed,
            evidence=study.evidence,
            backbone=study.first.adaptation.architecture,
            finetuning=study.finetuning,
        ),
        make=fit_stage,
        inputs=inputs,
        gpus=study.gpus,
        where="task",
    )

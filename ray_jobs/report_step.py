"""The report stage of a run: one page about the study, and the study in MLflow.

The page is a finished folder like any other. MLflow stands outside of it: the driver logs what the
store lacks, as often as it is asked.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from finetune.results import read_results
from ray_jobs.fold_steps import RESULTS, TABLE
from ray_jobs.plan import Step
from ray_jobs.recipes import Run, read_toml, to_toml
from ray_jobs.report_gather import CORPUS, gathered, rows_of
from reports.comparable import ENCODER, name_of
from reports.compare import Comparison, comparison
from reports.mlflow_kept import KEPT
from reports.mlflow_runs import Study, UsedCorpus
from reports.mlflow_sink import Logged, log_kept, log_study
from reports.mlflow_store import Store
from reports.page import PAGE, write_report
from reports.protocol import NAME as PROTOCOL
from reports.protocol import Protocol, open_protocol
from reports.sections import QUESTION
from reports.wording import Words, estimate
from synth_ct.corpus import Corpus
from synth_ct.kit.artifact import read_record
from synth_ct.kit.durable import write_text
from synth_ct.kit.effort import Effort

NAME = "report"
RECIPE = "run.toml"
"""The recipe as it was last run, below the root."""


class Outcome(NamedTuple):
    """What a study says, in short."""

    comparison: Comparison
    protocol: Protocol


def report_steps(run: Run, folds: Sequence[Step], sources: Sequence[Step]) -> list[Step]:
    """The page: of the fits, and of the cohorts and corpora behind them."""
    told = [step for step in folds if step.name in (RESULTS, PROTOCOL)]
    if not told:
        return []
    inputs = (*told, *sources)
    return [Step(name=NAME, stage="report", recipe=run, make=make_report, inputs=inputs)]


def make_report(recipe: Run, workspace: Path, inputs: Mapping[str, Path], effort: Effort) -> None:
    """Write the page and its numbers."""
    del effort
    write_report(gathered(recipe, inputs), workspace)


def page_of(root: Path) -> Path:
    """Where the page of a run is."""
    return root / NAME / PAGE


# ---- a root that is there ----------------------------------------------------------------------


def keep_recipe(run: Run, root: Path) -> None:
    """Note what is run below this root, for those who come with nothing but the root."""
    root.mkdir(parents=True, exist_ok=True)
    write_text(root / RECIPE, to_toml(run))


def recipe_of(root: Path) -> Run:
    """What was run below this root."""
    if not (root / RECIPE).exists():
        raise ValueError(
            f"{root} holds no {RECIPE}, so nobody knows what was run there; `synth-ct run RECIPE "
            f"--root {root}` with the recipe of its fits keeps what is finished and notes it"
        )
    return read_toml(root / RECIPE)


def demanded(steps: Sequence[Step], root: Path) -> Step:
    """The step that reports, of a root that is as far as that."""
    found = [step for step in steps if step.name == NAME]
    if not found:
        raise ValueError(
            f"the recipe in {root / RECIPE} compares nothing: it has no folds; run one that has, "
            "such as tiny"
        )
    missing = [each.name for each in found[0].inputs if read_record(root / each.name) is None]
    if missing:
        raise ValueError(
            f"{root} has nothing to report yet: {', '.join(missing)} not finished; "
            f"`synth-ct run {root / RECIPE} --root {root}` makes what is missing"
        )
    return found[0]


def outcome_of(root: Path) -> Outcome:
    """The comparison, formed anew from the fits: the same fits give the same numbers."""
    protocol = open_protocol(root / PROTOCOL)
    return Outcome(comparison(read_results(root / RESULTS / TABLE), protocol), protocol)


def said(outcome: Outcome) -> list[str]:
    """The answer in a sentence, then one line for each headline contrast."""
    words = Words(*outcome)
    rows = [row for row in outcome.comparison.gaps if row.headline]
    lines = [words.answer([row for row in rows if (row.arm, row.baseline) == QUESTION])]
    for row in rows:
        contrast = words.contrast(row.arm, row.baseline)
        if words.claims or row.status == "not run":
            lines.append(f"{contrast}, {words.statement(row)}")
        else:
            lines.append(f"{contrast}, {words.place(row)}: {estimate(row)} points")
    return lines


# ---- MLflow ------------------------------------------------------------------------------------


def log(run: Run, root: Path, store: Store) -> Logged:
    """Log what the store lacks of the study; without a store it is kept with the report."""
    return log_study(study_of(run, root), store)


def load(run: Run, root: Path, store: Store) -> Logged:
    """Log it because a person asks: what was kept, if it was; no store is a mistake."""
    report = root / NAME
    if store.uri is None or (report / KEPT).exists():
        return log_kept(report, store)
    return log(run, root, store)


def study_of(run: Run, root: Path) -> Study:
    """What MLflow is to hold of a run whose report is there."""
    fits = read_results(root / RESULTS / TABLE)
    began_from = {name for fit in fits for name in fit.inputs if name.startswith(ENCODER)}
    return Study(
        name=run.name,
        comparison=outcome_of(root).comparison,
        fits=fits,
        recipe=to_toml(run),
        report=root / NAME,
        curves={name_of(fit): rows_of(root, fit) for fit in fits},
        corpora=[_used(name, root / name) for name in _corpora(root)],
        encoders={name: root / name for name in sorted(began_from)},
    )


def _corpora(root: Path) -> list[str]:
    record = read_record(root / NAME)
    assert record is not None, "the report is there"
    return [name for name in record.inputs if name.startswith(CORPUS)]


def _used(name: str, folder: Path) -> UsedCorpus:
    about = Corpus.open(folder).about
    return UsedCorpus(
        name=name, digest=about.digest, volumes=about.counts.committed, evidence=about.evidence
    )

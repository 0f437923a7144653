"""A study as the runs that MLflow will hold: names, numbers, tags and files, without MLflow.

One run for the study, one for each data set, network and arm, and one for each fit below it.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from finetune.results import Fit
from pretrain.encoder import ADAPTATION
from reports.comparable import ENCODER, in_order, name_of
from reports.compare import Cell, Comparison, GapRow, endpoint
from reports.protocol import SCRATCH
from synth_ct.kit.artifact import RECORD, read_record

NAME_LENGTH = 22
"""MLflow's page cuts longer names of runs."""
MOST_BARS = 10
"""MLflow hides further runs of a chart."""
PARENTS = "tags.kind = 'cv'"
MOST_POINTS = 100
"""Of a curve; the whole of it stays beside the fit."""
SHOWN = (".png", ".svg", ".html")
"""What of a report's folder goes along, beside `report.json`."""
SHORT = {
    "real_degraded": "degraded",
    "right kidney": "r_kidney",
    "left kidney": "l_kidney",
    "inferior vena cava": "vena_cava",
    "portal and splenic veins": "portal",
    "right adrenal gland": "r_adrenal",
    "left adrenal gland": "l_adrenal",
}

Kind = Literal["study", "cv", "fold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedCorpus:
    """Volumes that encoders learned from."""

    name: str
    """As it stands among an encoder's inputs: `corpus/synthetic`."""
    digest: str
    volumes: int
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """All that is logged of a study."""

    name: str
    """Of the experiment."""
    comparison: Comparison
    """Says the evidence level, too."""
    fits: Sequence[Fit]
    recipe: str
    """The run, as TOML."""
    report: Path
    """The folder with its figures."""
    curves: Mapping[str, Sequence[Mapping[str, int | float]]] = field(default_factory=dict)
    """Folder of a fit below the root -> rows of its `curve.jsonl`."""
    corpora: Sequence[UsedCorpus] = ()
    encoders: Mapping[str, Path] = field(default_factory=dict)
    """Name below the root -> folder: of every encoder that a fit began from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """A data set that a run used."""

    name: str
    digest: str
    context: str
    profile: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What MLflow is to hold of one run."""

    key: str
    """Which run this is, whatever it holds: a fit's fingerprint, or its place in the study."""
    parent: str = ""
    """The parent's key."""
    kind: Kind
    name: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[tuple[int, str, float], ...] = ()
    """(step, metric, value)."""
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[Used, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Path among the run's artifacts -> content."""

    @property
    def content(self) -> str:
        """Sixteen digits that change when anything of the run does."""
        facts = asdict(self)
        facts["files"] = {n: hashlib.sha256(data).hexdigest() for n, data in self.files.items()}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """A study, run by run; parents before their children, the study itself first."""

    experiment: str
    evidence: str
    runs: tuple[Run, ...]


def runs_of(study: Study) -> Runs:
    """Everything of a study in the form in which it is logged."""
    by_arm = groupby(in_order(study.fits), key=lambda f: (f.dataset, f.arch, f.arm))
    runs = [_whole(study)]
    for _, some in by_arm:
        fits = list(some)
        parent = _parent(study, fits)
        runs += [parent, *(_child(study, fit, parent) for fit in fits)]
    evidence = study.comparison.evidence
    return Runs(experiment=study.name, evidence=evidence, runs=tuple(runs))


def charts(runs: Runs) -> dict[str, str]:
    """name -> filter: parents in groups of so few that MLflow shows all of them in one chart."""
    cells = [run.params for run in runs.runs if run.kind == "cv"]
    found: dict[str, str] = {}
    for dataset in dict.fromkeys(params["dataset"] for params in cells):
        here = [params for params in cells if params["dataset"] == dataset]
        chosen = f"{PARENTS} and params.dataset = '{dataset}'"
        if len(here) <= MOST_BARS:
            found[dataset] = chosen
            continue
        for arch in dict.fromkeys(params["arch"] for params in here):
            found[f"{dataset}-{arch}"] = f"{chosen} and params.arch = '{arch}'"
    return found


# ---- the three kinds of run --------------------------------------------------------------------


def _whole(study: Study) -> Run:
    tables = {"gaps.csv": study.comparison.gaps, "results.csv": study.comparison.cells}
    files = {f"tables/{name}": _csv(rows) for name, rows in tables.items() if rows}
    return Run(
        key="study",
        kind="study",
        name="study",
        tags={"evidence": study.comparison.evidence, "fits": str(len(study.fits))},
        datasets=tuple(map(_corpus_used, study.corpora)),
        files={"recipe.toml": study.recipe.encode(), **files, **_shown_in(study.report)},
    )


def _parent(study: Study, fits: Sequence[Fit]) -> Run:
    """One network, one arm, one data set: what its folds and seeds say together."""
    first = fits[0]
    cell = (first.dataset, first.arch, first.arm)
    encoders = sorted({name for fit in fits for name in _encoders(fit)})
    corpora = _corpora(study, encoders)
    cohorts = {name: p for fit in fits for name, p in fit.inputs.items() if _is_cohort(name)}
    return Run(
        key="/".join(cell),
        kind="cv",
        name=_short_name(*cell),
        params=_shared_params(fits),
        metrics=_results(study.comparison, cell),
        tags={
            "evidence": study.comparison.evidence,
            "fits": str(len(fits)),
            "seeds": " ".join(str(s) for s in sorted({fit.seed for fit in fits})),
            "encoders": " ".join(sorted({p for fit in fits for p in _encoders(fit).values()})),
            "corpora": " ".join(corpus.digest for corpus in corpora),
        },
        datasets=(
            *(Used(name=n, digest=p, context="fine-tuning") for n, p in sorted(cohorts.items())),
            *map(_corpus_used, corpora),
        ),
        files={"fits.json": _facts(fits), **_encoder_files(study, encoders)},
    )


def _child(study: Study, fit: Fit, parent: Run) -> Run:
    encoders = _encoders(fit)
    params = _shared_params([fit])
    return Run(
        key=fit.fingerprint,
        parent=parent.key,
        kind="fold",
        name=f"f{fit.fold} s{fit.seed}",
        params={**params, "fold": str(fit.fold), "seed": str(fit.seed)},
        metrics=_means(fit),
        curve=_curve(study.curves.get(name_of(fit), ())),
        tags={
            "evidence": study.comparison.evidence,
            "encoders": " ".join(encoders.values()),
            "corpora": " ".join(corpus.digest for corpus in _corpora(study, encoders)),
        },
    )


def _shared_params(fits: Sequence[Fit]) -> dict[str, str]:
    first = fits[0]
    steps = sorted({fit.steps for fit in fits})
    return {
        "dataset": first.dataset,
        "arch": first.arch,
        "init": first.arm,
        "steps": " ".join(map(str, steps)),
    }


def _short_name(dataset: str, arch: str, arm: str) -> str:
    """Of what is too long, the data set is cut: the column `dataset` has it whole."""
    rest = f"/{arch}/{SHORT.get(arm, arm)}"
    return f"{dataset[: max(1, NAME_LENGTH - len(rest))]}{rest}"[:NAME_LENGTH]


# ---- numbers -----------------------------------------------------------------------------------


def _results(said: Comparison, cell: tuple[str, str, str]) -> dict[str, float]:
    """As the comparison says them; an arm that was not compared has none."""
    found: dict[str, float | None] = {}
    for row in said.cells:
        if _place(row) == cell:
            found |= {"dice": row.dice, "dice_sd": row.sd, "nsd": row.nsd}
    for gap in said.gaps:
        if _place(gap) == cell and gap.baseline == SCRATCH and gap.status == "run":
            found |= {"gap": gap.gap, "gap_lo": gap.lo, "gap_hi": gap.hi}
            found |= {"p": gap.p, "p_holm": gap.p_holm}
    for organ in said.organs:
        if (organ.dataset, organ.arch, organ.arm) == cell:
            found[_organ_metric(organ.organ)] = organ.dice
    return {name: float(value) for name, value in found.items() if value is not None}


def _place(row: Cell | GapRow) -> tuple[str, str, str]:
    return row.dataset, row.arch, row.arm


def _means(fit: Fit) -> dict[str, float]:
    """As the comparison forms them, of one fit's patients."""
    means = {
        "dice": fmean(endpoint([fit], "dice").values()),
        "nsd": fmean(endpoint([fit], "nsd").values()),
    }
    by_organ: dict[str, dict[str, list[float]]] = {}
    for score in fit.scores:
        if score.dice is not None:
            patients = by_organ.setdefault(_organ_metric(score.organ), {})
            patients.setdefault(score.patient, []).append(score.dice)
    return means | {name: fmean(map(fmean, found.values())) for name, found in by_organ.items()}


def _organ_metric(organ: str) -> str:
    """No slash: the page would put the organs above the Dice and its gap."""
    return f"organ_{_word(SHORT.get(organ, organ))}"


def _curve(rows: Sequence[Mapping[str, int | float]]) -> tuple[tuple[int, str, float], ...]:
    every = max(1, -(-len(rows) // MOST_POINTS))
    kept = [row for at, row in enumerate(rows) if at % every == 0 or at == len(rows) - 1]
    return tuple(
        (int(row["step"]), f"train/{_word(name)}", float(value))
        for row in kept
        for name, value in row.items()
        if name != "step"
    )


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)


# ---- where it came from ------------------------------------------------------------------------


def _encoders(fit: Fit) -> dict[str, str]:
    return {name: p for name, p in fit.inputs.items() if name.startswith(ENCODER)}


def _is_cohort(name: str) -> bool:
    return name.startswith("cohorts/") and not name.endswith("_folds")


def _corpora(study: Study, encoders: Iterable[str]) -> list[UsedCorpus]:
    """The corpora that the encoders' records name, in the study's order."""
    named = {n for encoder in encoders for n in _record_inputs(_folder(study, encoder))}
    known = {corpus.name for corpus in study.corpora}
    if strange := sorted(n for n in named if n.startswith("corpus") and n not in known):
        raise ValueError(
            f"encoders were pretrained on {', '.join(strange)}, which the study does not list; "
            "list every corpus, so that each fit can be traced to its volumes"
        )
    return [corpus for corpus in study.corpora if corpus.name in named]


def _record_inputs(folder: Path) -> dict[str, str]:
    record = read_record(folder)
    if record is None:
        raise ValueError(f"{folder} is no finished encoder (no {RECORD}); make it again")
    return record.inputs


def _folder(study: Study, encoder: str) -> Path:
    if encoder not in study.encoders:
        raise ValueError(
            f"a fit began from {encoder}, and the study does not say where it lies; name the "
            "folder of every encoder, so that each fit can be traced to its volumes"
        )
    return study.encoders[encoder]


def _encoder_files(study: Study, encoders: Iterable[str]) -> dict[str, bytes]:
    return {
        f"{encoder}/{name}": (_folder(study, encoder) / name).read_bytes()
        for encoder in encoders
        for name in (ADAPTATION, RECORD)
    }


def _corpus_used(corpus: UsedCorpus) -> Used:
    profile = {"num_rows": corpus.volumes, "digest": corpus.digest, "evidence": corpus.evidence}
    return Used(name=corpus.name, digest=corpus.digest, context="pretraining", profile=profile)


# ---- files -------------------------------------------------------------------------------------


def _facts(fits: Sequence[Fit]) -> bytes:
    """What the record of each fit says, without its scores."""
    shown = ("fold", "seed", "steps", "fingerprint", "config", "inputs")
    facts = [{name: getattr(fit, name) for name in shown} for fit in fits]
    return json.dumps(facts, indent=1).encode()


def _csv(rows: Sequence[Any]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow([column.name for column in fields(rows[0])])
    table.writerows([getattr(row, column.name) for column in fields(row)] for row in rows)
    return text.getvalue().encode()


def _shown_in(report: Path) -> dict[str, bytes]:
    found = [p for p in sorted(report.rglob("*")) if p.suffix in SHOWN or p.name == "report.json"]
    return {f"report/{p.relative_to(report).as_posix()}": p.read_bytes() for p in found}

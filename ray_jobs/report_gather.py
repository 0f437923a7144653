"""Everything that the page of a run tells, collected from the finished folders below its root."""

import base64
import json
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from finetune.results import Fit, read_results
from ray_jobs.costs import Spent, elapsed, read_costs
from ray_jobs.fold_steps import RESULTS, TABLE
from ray_jobs.plan import STAGES
from ray_jobs.recipes import Run, to_toml
from reports.comparable import name_of
from reports.compare import comparison
from reports.protocol import NAME as PROTOCOL
from reports.protocol import open_protocol
from reports.study import (
    Aside,
    CorpusShown,
    Cost,
    Curve,
    Provenance,
    QualityFigure,
    ReportInput,
    Sample,
    chosen,
)
from synth_ct.corpus import Corpus
from synth_ct.corpus.layout import SOURCES, preview_file
from synth_ct.corpus.row import Row
from synth_ct.corpus.tally import tally
from synth_ct.corpus.view.films import films_of
from synth_ct.corpus.view.page import spreads_of
from synth_ct.kit.artifact import code_hash, read_record
from synth_ct.kit.durable import sha256_of
from synth_ct.kit.place import CURVE
from synth_ct.kit.quarantine import REPORT as SET_ASIDE
from synth_ct.kit.quarantine import counts_by_code, read_report

CORPUS = "corpus/"
RANKED_BY = "reprojection_gain"
"""How much more like its own film than like other patients' a volume is, projected: more is better.
"""
PACKAGES = ("torch", "monai", "numpy", "ray", "mlflow")
MEANING: Mapping[str, str] = {
    "duplicate": "the same bytes or pixels as another input, which was kept",
    "E_UNREADABLE": "the system cannot read the file",
    "E_CRASH": "reading it, or making a volume of it, killed its process again and again",
    "E_SHA": "not the file that was listed when the run began",
    "E_READER": "the reader failed on it in a way nobody foresaw",
    "E_PATH_ESCAPE": "a link or a listed path leads out of the source folder",
    "E_NO_THORAX": "no thorax was found in the film of a CT",
    "E_HU_RANGE": "values that are not Hounsfield units",
    "E_ANAT_FLIP": "an organ at the patient's wrong side",
    "E_IMG": "not a picture that can be read as a frontal radiograph",
    "E_NII": "a NIfTI volume whose header or data cannot be trusted",
    "E_NRRD": "an NRRD volume whose header or data cannot be trusted",
    "E_MHA": "a MetaImage volume whose header or data cannot be trusted",
    "E_LBL": "labels other than the data set's",
    "E_PAIR": "image and labels that do not belong together",
    "E_DCM": "not a complete CT series whose geometry and values can be trusted",
}
"""Code, or what codes of one kind begin with. docs/quarantine.md has each."""


def gathered(run: Run, inputs: Mapping[str, Path]) -> ReportInput:
    """The study under the names that the report's step gives its inputs."""
    results = inputs[RESULTS]
    root = results.parents[1]
    fits = read_results(results / TABLE)
    protocol = open_protocol(inputs[PROTOCOL])
    spent = read_costs(root)
    curves = tuple(curves_of(root, fits))
    return ReportInput(
        run=run.name,
        date=datetime.now(UTC).date().isoformat(),
        comparison=comparison(fits, protocol),
        protocol=protocol,
        fits=tuple(fits),
        provenance=Provenance(
            recipe=to_toml(run),
            code=code_hash(),
            fingerprints=_fingerprints(fits, inputs),
            versions={name: version(name) for name in PACKAGES}
            | {"python": platform.python_version()},
        ),
        curves=curves,
        curve_of="fine-tuning loss",
        corpora=tuple(
            shown(name.removeprefix(CORPUS), Corpus.open(folder))
            for name, folder in inputs.items()
            if name.startswith(CORPUS)
        ),
        quarantine=tuple(aside for name in inputs for aside in asides(name, inputs[name])),
        cost=tuple(costs(spent)),
        not_run=tuple(_not_here(run, len(fits) - len(curves), {each.stage for each in spent})),
    )


def _fingerprints(fits: Sequence[Fit], inputs: Mapping[str, Path]) -> dict[str, str]:
    """Of all that the fits read, and of all that the page does."""
    found = {name: print_ for fit in fits for name, print_ in fit.inputs.items()}
    for name, folder in inputs.items():
        record = read_record(folder)
        assert record is not None, "the inputs of a step are finished"
        found[name] = record.fingerprint
    return found


def _not_here(run: Run, without_curve: int, timed: Collection[str]) -> Iterator[str]:
    yield (
        "Likeness: whether volumes resemble CT of the same person is not on this page; the command "
        "synth-ct evaluate measures it."
    )
    if run.corpus.gate == "record":
        yield (
            "Quality gate: it only recorded; volumes that failed a check are in the corpora and "
            "were learned from."
        )
    if without_curve:
        yield f"Learning curves: {without_curve} fits have none."
    if untimed := [stage for stage in STAGES[:-1] if stage not in timed]:
        yield f"Costs: no time was noted of these stages: {', '.join(untimed)}."
    yield "Costs: the time of tries that were killed is not known, and not counted."


# ---- learning curves ---------------------------------------------------------------------------


def curves_of(root: Path, fits: Sequence[Fit]) -> Iterator[Curve]:
    """The loss of every fit that kept it."""
    for fit in fits:
        points = tuple(_losses(rows_of(root, fit)))
        if points:
            yield Curve(
                dataset=fit.dataset,
                arch=fit.arch,
                arm=fit.arm,
                fold=fit.fold,
                seed=fit.seed,
                points=points,
            )


def rows_of(root: Path, fit: Fit) -> list[dict[str, int | float]]:
    """What a fit noted of its training; nothing where it kept no curve."""
    path = root / name_of(fit) / CURVE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _losses(rows: Sequence[Mapping[str, int | float]]) -> Iterator[tuple[int, float]]:
    for row in rows:
        for name, value in row.items():
            if name.rpartition("/")[2] == "total":
                yield int(row["step"]), float(value)


# ---- corpora -----------------------------------------------------------------------------------


def shown(arm: str, corpus: Corpus) -> CorpusShown:
    """Counts, figures, and three volumes by rule where volumes were judged."""
    counts = corpus.about.counts
    spreads = spreads_of(tally(corpus.rows()).figures)
    return CorpusShown(
        arm=arm,
        digest=corpus.about.digest,
        committed=counts.committed,
        rejected=counts.rejected,
        quarantined=counts.quarantined,
        figures=tuple(
            QualityFigure(name=name, low=spread.low, median=spread.median, high=spread.high)
            for name, spread in spreads.items()
        ),
        ranked_by=RANKED_BY,
        samples=tuple(_samples(corpus)),
    )


def _samples(corpus: Corpus) -> Iterator[Sample]:
    rows = {row.id: row for row in corpus.accepted() if row.preview_sha256}
    measured = {id_: row.quality.get(RANKED_BY) for id_, row in rows.items()}
    values = {id_: value for id_, value in measured.items() if value is not None}
    picked = chosen(values)
    films = _films(corpus, [rows[id_] for id_, _ in picked])
    for id_, rank in picked:
        yield Sample(
            id=id_,
            rank=rank,
            value=values[id_],
            preview=_preview(corpus, rows[id_]),
            radiograph=films.get(id_),
        )


def _films(corpus: Corpus, rows: Sequence[Row]) -> dict[str, bytes]:
    """The films that are still where the corpus was made from, as the generator saw them."""
    if not (corpus.folder / SOURCES).exists():
        return {}
    found = films_of(corpus.folder, rows)
    return {id_: base64.b64decode(uri.partition(",")[2]) for id_, uri in found.items()}


def _preview(corpus: Corpus, row: Row) -> bytes:
    path = corpus.folder / preview_file(row.id)
    png = path.read_bytes()
    if sha256_of(png) != row.preview_sha256:
        raise ValueError(
            f"{path} was changed after it was written; "
            f"see what else was with `synth-ct corpus verify {corpus.folder}`"
        )
    return png


# ---- what was set aside ------------------------------------------------------------------------


def asides(name: str, folder: Path) -> Iterator[Aside]:
    """Counts alone: causes may hold names of files."""
    codes: Mapping[str, int] = {}
    if name.startswith(CORPUS):
        codes = Corpus.open(folder).about.codes
    elif (folder / SET_ASIDE).exists():
        codes = counts_by_code(read_report(folder))
    for code, count in codes.items():
        yield Aside(where=name, code=code, meaning=meaning(code), count=count)


def meaning(code: str) -> str:
    """What a code says, or what all of its kind say."""
    kind = "_".join(code.split("_")[:2])
    return MEANING.get(code) or MEANING.get(kind) or "see docs/quarantine.md"


# ---- costs -------------------------------------------------------------------------------------


def costs(spent: Sequence[Spent]) -> Iterator[Cost]:
    """By stage and device, in the order in which stages were first finished."""
    groups: dict[tuple[str, str], list[Spent]] = {}
    for step in spent:
        groups.setdefault((step.stage, step.device), []).append(step)
    for (stage, device), steps in groups.items():
        yield Cost(
            stage=stage,
            seconds=round(elapsed(steps), 3),
            device=device,
            device_seconds=round(sum(step.seconds * step.devices for step in steps), 3),
        )

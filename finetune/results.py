"""Product: what fits leave for comparison, one by one and all together.

    fits/<name>/scores.parquet    one row per case and organ
    fits/results/results.parquet  the same of every fit, with the fit each row is from; what each
                                  fit was told and was made from stands once, in the file's metadata

Nobody is scored by a fit that learned from them: such scores are refused.
"""

import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from finetune.score import Score
from synth_ct.kit.artifact import RECORD, Record, partial_of, read_record
from synth_ct.kit.durable import sha256_of, write_bytes
from synth_ct.kit.quarantine import Refused

KIND = "fits"
"""What records of fits begin with."""
SCORES = "scores.parquet"
LAYOUT = 1
ABOUT = b"synth-ct"
"""Where a file's metadata say its layout, what its fits were told, and its digest."""
IDENTITY = ("dataset", "arch", "arm", "fold", "seed")
"""What tells fits apart, and the first columns of a table of them."""

Columns = list[tuple[str, pa.DataType]]
SCORE_COLUMNS: Columns = [
    ("case", pa.string()),
    ("patient", pa.string()),
    ("label", pa.int32()),
    ("organ", pa.string()),
    ("outcome", pa.string()),
    ("dice", pa.float64()),
    ("nsd", pa.float64()),
    ("reference_ml", pa.float64()),
    ("predicted_ml", pa.float64()),
]
FIT_COLUMNS: Columns = [
    ("dataset", pa.string()),
    ("arch", pa.string()),
    ("arm", pa.string()),
    ("fold", pa.int32()),
    ("seed", pa.int64()),
    ("steps", pa.int64()),
    ("fit", pa.string()),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One finished fit and how it did."""

    dataset: str
    arch: str
    arm: str
    fold: int
    seed: int
    steps: int
    fingerprint: str
    """Of its artifact; column `fit`."""
    config: dict[str, Any]
    """Its recipe, less what tells it apart."""
    inputs: dict[str, str]
    """Name of each artifact it read -> that one's fingerprint."""
    scores: tuple[Score, ...]

    @property
    def name(self) -> str:
        """As its folder is called."""
        return f"{self.dataset}-{self.arch}-{self.arm}-f{self.fold}-s{self.seed}"


# ---- one fit -----------------------------------------------------------------------------------


def write_scores(workspace: Path, scores: Sequence[Score], trained_on: Collection[str]) -> None:
    """Leave the scores of one fit, by case and label, in a workspace that somebody publishes.

    `trained_on`: the patients it learned from, of whom none may be scored.
    """
    if both := sorted({score.patient for score in scores} & {*trained_on}):
        _leak(f"{workspace} learned from {', '.join(both)} and is asked about them")
    table = pa.Table.from_pylist(
        [asdict(score) for score in _in_order(scores, str(workspace))], pa.schema(SCORE_COLUMNS)
    )
    _write(workspace / SCORES, table, {"layout": LAYOUT})


def open_fit(folder: Path) -> Fit:
    """Read a finished fit, or refuse it with the file and the cause."""
    record, path = _finished(folder), folder / SCORES
    if not path.is_file():
        _damaged(path, "it is missing")
    data = path.read_bytes()
    if record.files.get(SCORES) != sha256_of(data):
        _damaged(path, f"its sha256 is not the one in {RECORD}")
    table, _ = _read(path, data, SCORE_COLUMNS)
    try:
        config = dict(record.recipe)
        steps = config["finetuning"]["training"]["steps"]
        identity = {name: config.pop(name) for name in IDENTITY}
    except (KeyError, TypeError) as error:
        _damaged(folder / RECORD, f"its recipe is not one of a fit: {error} is not there")
    return Fit(
        **identity,
        steps=steps,
        fingerprint=record.fingerprint,
        config=config,
        inputs=record.inputs,
        scores=tuple(Score(**row) for row in table.to_pylist()),
    )


def _finished(folder: Path) -> Record:
    try:
        record = read_record(folder)
    except ValueError as error:
        _damaged(folder / RECORD, str(error))
    if record is None:
        partial = partial_of(folder)
        known = f"; {partial} is there, so it is under way" if partial.exists() else ""
        _damaged(folder, f"it holds no {RECORD}, so it is not a finished fit{known}")
    if record.kind.partition("/")[0] != KIND:
        _damaged(folder, f"its record says {record.kind!r}; a fit was asked for")
    return record


# ---- all fits ----------------------------------------------------------------------------------


def write_results(path: Path, fits: Sequence[Fit]) -> None:
    """One file of all fits: equal fits give equal bytes, in whatever order they come."""
    _demand_each_once(fits)
    demand_no_leak(fits)
    ordered = [replace(fit, scores=_in_order(fit.scores, fit.name)) for fit in _sorted(fits)]
    rows = [row for fit in ordered for row in _rows(fit)]
    about = {
        "layout": LAYOUT,
        "digest": _digest(ordered),
        "fits": {fit.fingerprint: {"config": fit.config, "inputs": fit.inputs} for fit in ordered},
    }
    table = pa.Table.from_pylist(rows, pa.schema(FIT_COLUMNS + SCORE_COLUMNS))
    _write(path, table, about)


def read_results(path: Path) -> list[Fit]:
    """The fits of a file, in the order of their names; a damaged file is refused."""
    if not path.is_file():
        _damaged(path, "it is missing")
    table, about = _read(path, path.read_bytes(), FIT_COLUMNS + SCORE_COLUMNS)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        rows.setdefault(row["fit"], []).append(row)
    try:
        fits = [_fit(fingerprint, own, about["fits"]) for fingerprint, own in rows.items()]
        intact = about["digest"] == _digest(fits)
    except (KeyError, TypeError) as error:
        _damaged(path, f"what it says of its fits is incomplete: {error}")
    if not intact:
        _damaged(path, "its rows do not match its digest")
    return fits


def demand_no_leak(fits: Iterable[Fit]) -> None:
    """Refuse a patient whom several folds of a run score, and not all: one was trained on them.

    Whom all score was held out of all.
    """
    runs: dict[tuple[str, ...], list[Fit]] = {}
    for fit in _sorted(fits):
        runs.setdefault((fit.dataset, fit.arch, fit.arm, str(fit.seed)), []).append(fit)
    for run in runs.values():
        asked: dict[str, dict[str, None]] = {}
        for fit in run:
            for score in fit.scores:
                asked.setdefault(score.patient, {})[fit.name] = None
        for patient, names in asked.items():
            if 1 < len(names) < len(run):
                _leak(
                    f"patient {patient} is scored by {', '.join(names)}, and not by every fold, so "
                    "one of these learned from them"
                )


def _leak(cause: str) -> NoReturn:
    raise Refused(
        "E_FOLDS_LEAK",
        cause,
        "make the fits from one set of folds, drawn by patient, and fit again",
    )


def _demand_each_once(fits: Sequence[Fit]) -> None:
    for attribute in ("name", "fingerprint"):
        seen: dict[str, Fit] = {}
        for fit in fits:
            if (other := seen.setdefault(getattr(fit, attribute), fit)) is not fit:
                raise ValueError(
                    f"two fits have the {attribute} {getattr(fit, attribute)} ({other.fingerprint} "
                    f"of {other.name} and {fit.fingerprint} of {fit.name}); results hold each "
                    "once: leave one out"
                )


def _rows(fit: Fit) -> list[dict[str, Any]]:
    who = {name: getattr(fit, name) for name in (*IDENTITY, "steps")} | {"fit": fit.fingerprint}
    return [who | asdict(score) for score in fit.scores]


def _fit(fingerprint: str, rows: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> Fit:
    who = {name: rows[0][name] for name in (*IDENTITY, "steps")}
    scores = tuple(Score(**{f.name: row[f.name] for f in fields(Score)}) for row in rows)
    return Fit(**who, **told[fingerprint], fingerprint=fingerprint, scores=scores)


def _sorted(fits: Iterable[Fit]) -> list[Fit]:
    return sorted(fits, key=lambda fit: tuple(getattr(fit, name) for name in IDENTITY))


def _in_order(scores: Sequence[Score], whose: str) -> tuple[Score, ...]:
    """By case and label, each once."""
    ordered = sorted(scores, key=lambda score: (score.case, score.label))
    once = {(score.case, score.label) for score in scores}
    if not scores or len(once) < len(scores):
        raise ValueError(
            f"{whose}: {len(scores)} scores of {len(once)} cases and organs; a fit scores at "
            "least one, and each once: score its test cases anew"
        )
    return tuple(ordered)


def _digest(fits: Sequence[Fit]) -> str:
    """sha256 of everything the fits say, so that no flipped bit reads as another number."""
    told = json.dumps([asdict(fit) for fit in fits], sort_keys=True, allow_nan=False)
    return sha256_of(told.encode())


# ---- files -------------------------------------------------------------------------------------


def _write(path: Path, table: pa.Table, about: Mapping[str, Any]) -> None:
    text = json.dumps(about, sort_keys=True, allow_nan=False)
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({ABOUT: text}), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def _read(path: Path, data: bytes, columns: Columns) -> tuple[pa.Table, dict[str, Any]]:
    """A table of ours and what its metadata say."""
    try:
        # Without threads: those of `read_table` may outlive the process, which then aborts.
        table = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)
        about = json.loads((table.schema.metadata or {}).get(ABOUT, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        _damaged(path, f"it cannot be read: {error}")
    if about.get("layout") != LAYOUT:
        _damaged(
            path,
            f"its layout is {about.get('layout', 'not said')}, and this version of synth-ct reads "
            f"layout {LAYOUT}",
        )
    if not table.schema.equals(pa.schema(columns)):
        _damaged(path, f"its columns are {', '.join(table.column_names)}, or of other types")
    return table, about


def _damaged(where: Path, cause: str) -> NoReturn:
    raise Refused(
        "E_FIT_DAMAGED",
        f"{where} cannot be trusted: {cause}",
        "finish the run that makes it, restore it from a copy, or delete its folder and run again",
    )

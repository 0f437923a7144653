"""Runs kept as parquet in a report's folder, to be logged when there is a store to send them to."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from reports.mlflow_runs import Run, Runs, Used
from synth_ct.kit.durable import write_bytes

KEPT = "mlflow_runs.parquet"
JSON_COLUMNS = ("params", "metrics", "curve", "tags")


def keep_runs(runs: Runs, report: Path) -> Path:
    """Write the runs into the report's folder, to be logged when there is a store."""
    columns: dict[str, list[Any]] = {
        name: [getattr(run, name) for run in runs.runs]
        for name in ("key", "parent", "kind", "name")
    }
    for name in JSON_COLUMNS:
        columns[name] = [json.dumps(getattr(run, name)) for run in runs.runs]
    columns["datasets"] = [json.dumps([asdict(d) for d in run.datasets]) for run in runs.runs]
    columns["files"] = [list(run.files.items()) for run in runs.runs]
    text = {name: pa.string() for name in columns} | {"files": pa.map_(pa.string(), pa.binary())}
    about = {"experiment": runs.experiment, "evidence": runs.evidence}
    table = pa.table(columns, schema=pa.schema(list(text.items()), metadata=about))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_bytes(report / KEPT, sink.getvalue().to_pybytes())
    return report / KEPT


def read_runs(report: Path) -> Runs:
    """The runs that were kept in a report's folder."""
    path = report / KEPT
    if not path.is_file():
        raise ValueError(f"{report} holds no {KEPT}; nothing was kept there to be logged later")
    with pq.ParquetFile(path) as file:
        table = file.read(use_threads=False)  # as finetune.results reads, and why
    about = {name.decode(): text.decode() for name, text in table.schema.metadata.items()}
    runs = tuple(_run_of(row) for row in table.to_pylist())
    return Runs(experiment=about["experiment"], evidence=about["evidence"], runs=runs)


def _run_of(row: dict[str, Any]) -> Run:
    found = {**row, **{name: json.loads(row[name]) for name in JSON_COLUMNS}}
    found["curve"] = tuple(tuple(point) for point in found["curve"])
    found["datasets"] = tuple(Used(**used) for used in json.loads(row["datasets"]))
    found["files"] = dict(row["files"])
    return Run(**found)

"""What became of one item of a corpus: a row of the manifest, or a line of the quarantine.

Neither can name a person or a path of this machine.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from synth_ct.kit.axes import HuArray

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("radiograph_sha256", pa.string()),
        ("patient", pa.string()),
        ("class", pa.string()),
        ("sample", pa.int32()),
        ("seed", pa.int64()),
        ("model", pa.string()),
        ("sampler", pa.string()),
        ("fingerprint", pa.string()),
        ("accepted", pa.bool_()),
        ("reason", pa.string()),
        ("file_sha256", pa.string()),
        ("voxel_sha256", pa.string()),
        ("preview_sha256", pa.string()),
        ("shape", pa.list_(pa.int32())),
        ("spacing_mm", pa.list_(pa.float64())),
        ("scale", pa.string()),
        ("out_of_distribution", pa.float64()),
        ("quality", pa.map_(pa.string(), pa.float64())),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One volume that was made: kept, or rejected by the quality gate."""

    id: str
    radiograph_sha256: str
    patient: str
    finding: str
    """Column `class`: NORMAL, PNEUMONIA/virus, ... where the source says so."""
    sample: int
    seed: int
    model: str
    """Fingerprint of the generator."""
    sampler: str
    """Name and evaluations, or `prior`."""
    fingerprint: str
    """Of the numerics: within one, the same item gives the same bits."""
    accepted: bool
    """Whether there is a volume."""
    reason: str
    """The quality check that failed. With gate `record` a volume may be kept in spite of it."""
    file_sha256: str = ""
    voxel_sha256: str = ""
    preview_sha256: str = ""
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    scale: str = "nominal"
    out_of_distribution: float | None = None
    """Of the film against the generator's training DRRs: 1 is as far as these are from another."""
    quality: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """One item whose radiograph could not be used."""

    id: str
    radiograph_sha256: str
    patient: str
    finding: str
    code: str
    cause: str
    remedy: str = ""


Entry = Row | Quarantined


def line_of(entry: Entry) -> str:
    """One line of a receipt, without its end."""
    return json.dumps(asdict(entry), allow_nan=False)


def entry_of(line: str) -> Entry:
    """The inverse of `line_of`."""
    fields: dict[str, Any] = json.loads(line)
    if "code" in fields:
        return Quarantined(**fields)
    fields["shape"], fields["spacing_mm"] = tuple(fields["shape"]), tuple(fields["spacing_mm"])
    return Row(**fields)


def columns_of(rows: Iterable[Row]) -> pa.RecordBatch:
    """Rows as the manifest stores them."""
    records = []
    for row in rows:
        record = asdict(row)
        record["class"] = record.pop("finding")
        record["quality"] = list(record["quality"].items())
        records.append(record)
    return pa.RecordBatch.from_pylist(records, schema=SCHEMA)


def rows_of(batch: pa.RecordBatch) -> list[Row]:
    """The inverse of `columns_of`."""
    rows = []
    for record in batch.to_pylist():
        record["finding"] = record.pop("class")
        record["quality"] = dict(record["quality"] or [])
        record["shape"], record["spacing_mm"] = tuple(record["shape"]), tuple(record["spacing_mm"])
        rows.append(Row(**record))
    return rows


def voxel_sha256(array_XYZ: HuArray) -> str:
    """Of the voxels alone, little-endian in C order: survives another gzip, another header."""
    return hashlib.sha256(np.ascontiguousarray(array_XYZ, "<i2").tobytes()).hexdigest()


def digest_of(rows: Iterable[Row]) -> str:
    """sha256 over `id voxel_sha256 accepted reason` of all rows, sorted by id."""
    digest = hashlib.sha256()
    last = ""
    for row in rows:
        assert row.id > last, "rows must be sorted and unique"
        last = row.id
        text = f"{row.id} {row.voxel_sha256} {str(row.accepted).lower()} {row.reason}\n"
        digest.update(text.encode())
    return digest.hexdigest()

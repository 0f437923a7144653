"""What became of one item of a corpus: a row of the manifest, or a line of the quarantine.

Neither can name a person or a path of this machine.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
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
FIELD_OF = {"class": "finding"}
"""Where a column's name cannot be a field's."""


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
    fields = {name: getattr(entry, name) for name in entry.__slots__}
    return json.dumps(fields, allow_nan=False)


def entry_of(line: str) -> Entry:
    """The inverse of `line_of`."""
    fields: dict[str, Any] = json.loads(line)
    if "code" in fields:
        return Quarantined(**fields)
    fields["shape"], fields["spacing_mm"] = tuple(fields["shape"]), tuple(fields["spacing_mm"])
    return Row(**fields)


def columns_of(rows: Sequence[Row]) -> pa.RecordBatch:
    """Rows as the manifest stores them."""
    columns = []
    for column in SCHEMA:
        values = [getattr(row, FIELD_OF.get(column.name, column.name)) for row in rows]
        figures = column.name == "quality"
        columns.append(_figures(values) if figures else pa.array(values, column.type))
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _figures(qualities: Iterable[dict[str, float | None]]) -> pa.MapArray:
    """Map arrays from their flat columns: a tuple for every figure would take far longer."""
    ends = [0]
    names: list[str] = []
    values: list[float | None] = []
    for quality in qualities:
        names += quality
        values += quality.values()
        ends.append(len(names))
    return pa.MapArray.from_arrays(
        pa.array(ends, pa.int32()), pa.array(names, pa.string()), pa.array(values, pa.float64())
    )


def rows_of(batch: pa.RecordBatch) -> list[Row]:
    """The inverse of `columns_of`."""
    values: dict[str, Iterable[Any]] = {}
    for column in SCHEMA:
        array = batch.column(column.name)
        figures = column.name == "quality"
        values[FIELD_OF.get(column.name, column.name)] = (
            _qualities(array) if figures else array.to_pylist()
        )
    for grid in ("shape", "spacing_mm"):
        values[grid] = map(tuple, values[grid])
    records = zip(*values.values(), strict=True)
    return [Row(**dict(zip(values, record, strict=True))) for record in records]


def _qualities(maps: pa.MapArray) -> list[dict[str, float | None]]:
    """The inverse of `_figures`."""
    names, figures = maps.keys.to_pylist(), maps.items.to_pylist()
    ends = pairwise(maps.offsets.to_pylist())
    return [dict(zip(names[a:b], figures[a:b], strict=True)) for a, b in ends]


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

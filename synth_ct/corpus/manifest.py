"""The manifest: one row for every volume made, sorted by id. Written once, read in pieces."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from synth_ct.corpus.layout import MANIFEST
from synth_ct.corpus.row import SCHEMA, Row, columns_of, rows_of
from synth_ct.kit.durable import sync_folder

ROWS_TOGETHER = 1024


def write_manifest(corpus: Path, rows: Iterable[Row]) -> None:
    """Write the rows, which come sorted by id, holding a thousand at a time."""
    temporary = corpus / f".{MANIFEST}.tmp"
    coming = iter(rows)
    with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        while some := list(islice(coming, ROWS_TOGETHER)):
            writer.write_batch(columns_of(some))
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(corpus / MANIFEST)
    sync_folder(corpus)


def read_manifest(corpus: Path) -> Iterator[Row]:
    """Its rows, in their order."""
    with pq.ParquetFile(corpus / MANIFEST, pre_buffer=False) as file:
        for batch in file.iter_batches(ROWS_TOGETHER):
            yield from rows_of(batch)


def read_columns(corpus: Path, names: list[str]) -> Iterator[dict[str, list[Any]]]:
    """Some columns of the manifest, a thousand rows at a time, in their order."""
    with pq.ParquetFile(corpus / MANIFEST, pre_buffer=False) as file:
        for batch in file.iter_batches(ROWS_TOGETHER, columns=names):
            columns = batch.to_pydict()
            yield {name: columns[name] for name in names}

"""`sources.csv`: which radiograph each item came from, on this machine. Local, never exported."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from synth_ct.corpus.layout import SOURCES
from synth_ct.kit.durable import write_bytes


def read_sources(corpus: Path) -> dict[str, str]:
    """Item -> path; nothing where the file is not there."""
    table = corpus / SOURCES
    if not table.exists():
        return {}
    with table.open(newline="", errors="surrogateescape") as file:
        return {row["id"]: row["path"] for row in csv.DictReader(file)}


def write_sources(corpus: Path, paths: Mapping[str, str]) -> None:
    """The inverse of `read_sources`; names that are no text keep their bytes."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("id", "path"))
    writer.writerows(paths.items())
    write_bytes(corpus / SOURCES, table.getvalue().encode("utf-8", "surrogateescape"))

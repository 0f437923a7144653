"""The table that says whose each radiograph is: our own columns, NIH's, or CheXpert's.

A mistake in it would leak a patient across the split, so every doubt is an error with its line.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from synth_ct.cohort.case import SPLITS, Split
from synth_ct.kit.quarantine import printable

CHEXPERT_PATIENT = re.compile(r"(?:^|/)(patient\d+)/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the table says about one file."""

    line: int
    file: str
    patient: str
    split: Split | None = None
    finding: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is what; a whole archive's table may name files that are not here."""

    file: str
    patient: str
    finding: str
    whole_archive: bool


OURS = Columns("file", "patient", "finding", whole_archive=False)
LAYOUTS = (
    OURS,
    Columns("Image Index", "Patient ID", "Finding Labels", whole_archive=True),
    Columns("Path", "Path", "", whole_archive=True),
)


def read_table(table: Path, files: Sequence[str]) -> dict[str, Row]:
    """File (below the source folder) -> its row. Any doubt is a `ValueError` with its line."""
    columns, lines = _lines(table)
    known = _Names(files)
    rows: dict[str, Row] = {}
    for number, fields in lines:
        row = _row(table, number, fields, columns)
        file = known.match(row.file)
        if file is None and columns.whole_archive:
            continue
        if file is None:
            raise _error(table, number, f"no file {printable(row.file)!r} below the source folder")
        if file in rows:
            raise _error(
                table, number, f"{printable(row.file)!r} again, after line {rows[file].line}"
            )
        rows[file] = row
    _check_splits(table, rows.values())
    return rows


def _error(table: Path, line: int, what: str) -> ValueError:
    return ValueError(f"{table}, line {line}: {what}; correct the table and run again")


def _lines(table: Path) -> tuple[Columns, list[tuple[int, dict[str, str]]]]:
    """The rows by column name; a byte-order mark and any line ends are fine."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", restval="", strict=True)
            names = [name.strip() for name in reader.fieldnames or ()]
            columns = _columns(table, names)
            reader.fieldnames = names
            return columns, [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise _error(table, 1, "it is not UTF-8 text") from error
    except csv.Error as error:
        raise _error(table, reader.reader.line_num, f"it is no readable CSV ({error})") from error


def _columns(table: Path, names: list[str]) -> Columns:
    for layout in LAYOUTS:
        if {layout.file, layout.patient} <= set(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise _error(table, 1, f"column {twice[0]!r} stands there twice")
            return layout
    found = ", ".join(printable(name) for name in names[:8]) or "nothing"
    raise _error(
        table,
        1,
        f"it has columns {found}, but needs `file` and `patient` (or NIH's `Image Index` and "
        "`Patient ID`, or CheXpert's `Path`)",
    )


def _row(table: Path, line: int, fields: Mapping[str, str], columns: Columns) -> Row:
    if "" in fields:
        raise _error(table, line, "it has more fields than there are columns")
    file, patient = fields[columns.file].strip(), fields[columns.patient].strip()
    if columns.file == columns.patient:
        match = CHEXPERT_PATIENT.search(file)
        patient = match[1] if match else ""
    if not file or not patient:
        raise _error(table, line, "file or patient is empty")
    told = fields.get("split", "").strip() if columns is OURS else ""
    if told and told not in SPLITS:
        raise _error(table, line, f"split {printable(told)!r} is not train, val or test")
    finding = fields.get(columns.finding, "").strip()
    return Row(line=line, file=file, patient=patient, split=SPLITS.get(told), finding=finding)


def _check_splits(table: Path, rows: Iterable[Row]) -> None:
    first: dict[str, Row] = {}
    for row in rows:
        before = first.setdefault(row.patient, row)
        if before.split != row.split:
            what = (
                f"this patient is in {row.split or 'no split'}, but in "
                f"{before.split or 'no split'} at line {before.line}"
            )
            raise _error(table, row.line, what)


class _Names:
    """Finds the file a table means: its path, the end of its path, or a name that is unique."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = frozenset(files)
        self.by_name: dict[str, list[str]] = {}
        for file in files:
            self.by_name.setdefault(PurePosixPath(file).name, []).append(file)

    def match(self, named: str) -> str | None:
        """The one file meant, or None. Nothing is opened, so no name can lead out."""
        parts = PurePosixPath(named.replace("\\", "/")).parts
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            if end in self.files:
                return end
        alike = self.by_name.get(parts[-1], []) if len(parts) == 1 else []
        return alike[0] if len(alike) == 1 else None

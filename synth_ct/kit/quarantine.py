"""Bad inputs, set aside: a code, the file, the cause. Never guessed at, never passed silently.

A reader raises `Refused`; whoever runs over many inputs catches it, keeps a `SetAside` row, and
goes on. The written report holds local paths and therefore never leaves the machine.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from synth_ct.kit.durable import write_text

REPORT = "quarantine.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """One quarantined input."""

    code: str
    file: str
    """Path below the source folder, escaped so that it is always printable."""
    cause: str
    remedy: str = ""
    kept: str = ""
    """For code `duplicate`: the file that was accepted in its place."""


class Refused(ValueError):
    """An input that cannot be trusted.

    `code` is stable and documented (docs/quarantine.md), `cause` says what is wrong and why it
    matters, `remedy` what to do next.
    """

    def __init__(self, code: str, cause: str, remedy: str = "") -> None:
        self.code = code
        self.cause = cause
        self.remedy = remedy
        super().__init__(f"{code}: {cause}" + (f" - {remedy}" if remedy else ""))

    def row(self, file: str) -> SetAside:
        """The refusal as it stands in a report, with the file it is about."""
        return SetAside(code=self.code, file=file, cause=self.cause, remedy=self.remedy)


def printable(path: Path | str) -> str:
    """A name that can be shown and stored, and no other gives: what cannot be shown is escaped."""
    text = str(path).replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counts_by_code(rows: Iterable[SetAside]) -> dict[str, int]:
    """How many inputs each code set aside, most frequent first."""
    return dict(Counter(row.code for row in rows).most_common())


def write_report(folder: Path, rows: list[SetAside]) -> Path:
    """Write the local report, sorted by file, so that two runs give the same bytes."""
    ordered = sorted(rows, key=lambda row: (row.file, row.code))
    report = {"counts": counts_by_code(ordered), "items": [asdict(row) for row in ordered]}
    write_text(folder / REPORT, json.dumps(report, indent=1, ensure_ascii=True))
    return folder / REPORT


def read_report(folder: Path) -> list[SetAside]:
    """Read what `write_report` wrote."""
    return [SetAside(**row) for row in json.loads((folder / REPORT).read_text())["items"]]

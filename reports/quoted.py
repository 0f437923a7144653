"""What papers report, verbatim, with how far it can be trusted: the reader of `quoted.csv`.

A quoted number is text. It is never averaged or mixed with what was measured here, and compared
with it in one place only, to call a baseline weak (`reports.baseline`).
"""

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("quoted.csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """One number of one paper; the fields are the columns of the file, in their order."""

    source: str
    table: str
    system: str
    dataset: str
    protocol: str
    metric: str
    value: str
    """As printed."""
    spread: str
    """The paper's ±, a standard deviation over cases."""
    views: str
    """Radiographs read; empty where it is not known, or where the CT itself is read."""
    ambiguity: str
    """What the paper does not say, or what is damaged in it; several are parted by semicolons."""

    @property
    def text(self) -> str:
        """The value with its spread."""
        return f"{self.value} ± {self.spread}" if self.spread else self.value


def read_quotes(file: Path = FILE) -> tuple[Quote, ...]:
    """Every quoted number, in the order of the file."""
    with file.open(newline="", encoding="utf-8") as lines:
        return tuple(Quote(**row) for row in csv.DictReader(lines))


def of_table(quotes: tuple[Quote, ...], source: str, table: str) -> tuple[Quote, ...]:
    """The numbers of one table of one paper."""
    found = tuple(q for q in quotes if q.source == source and q.table == table)
    if not found:
        known = sorted({f"{q.source}, table {q.table}" for q in quotes if q.table})
        raise ValueError(f"nothing is quoted of {source}, table {table}; known: {'; '.join(known)}")
    return found


def showing(quotes: tuple[Quote, ...], metrics: Collection[str]) -> tuple[Quote, ...]:
    """Those of some metrics, so that notes speak of what a table shows and of nothing else."""
    return tuple(quote for quote in quotes if quote.metric in metrics)


def by_system(quotes: tuple[Quote, ...]) -> dict[str, dict[str, str]]:
    """system -> metric -> text, for the columns of quoted values."""
    rows: dict[str, dict[str, str]] = {}
    for quote in quotes:
        rows.setdefault(quote.system, {})[quote.metric] = quote.text
    return rows


def notes(quotes: tuple[Quote, ...]) -> tuple[str, ...]:
    """Under the table: where the numbers are from, and every doubt about them."""
    lines = [
        f"* Quoted from {source}: {dataset}; protocol: {protocol}."
        for source, dataset, protocol in dict.fromkeys(
            (q.source, q.dataset, q.protocol) for q in quotes
        )
    ]
    doubts: dict[str, list[str]] = {}
    for quote in quotes:
        for doubt in filter(None, quote.ambiguity.split("; ")):
            doubts.setdefault(doubt, []).append(quote.system)
    everyone = {q.system for q in quotes}
    for doubt, systems in doubts.items():
        whose = "" if set(systems) == everyone else f" ({', '.join(dict.fromkeys(systems))})"
        lines.append(f"* Quoted values{whose}: {doubt}.")
    return tuple(lines)

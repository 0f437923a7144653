"""What a card says in numbers: counted over a corpus' rows, in one pass and in bounded memory."""

from array import array
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from synth_ct.corpus.layout import MANIFEST
from synth_ct.corpus.receipts import state_of
from synth_ct.corpus.row import Row

KEPT_VALUES = 1 << 16
"""Of one figure; an even number."""
Grid = tuple[tuple[int, ...], tuple[float, ...]]
"""Shape and spacing in millimetres."""


class Sample:
    """Values of one figure, thinned evenly where they are many.

    Rows come in the order of their ids, which are hashes: every second one is a fair sample.
    """

    def __init__(self) -> None:
        self.seen = 0
        self.values = array("d")
        self._stride = 1

    def add(self, value: float) -> None:
        """Take in one more."""
        if self.seen % self._stride == 0:
            self.values.append(value)
            if len(self.values) == KEPT_VALUES:
                self.values = self.values[::2]
                self._stride *= 2
        self.seen += 1


@dataclass(slots=True)
class Figure:
    """One measured number over the whole corpus."""

    passed: Sample = field(default_factory=Sample)
    """Of volumes that passed every quality check."""
    failed: Sample = field(default_factory=Sample)
    """Of those that did not, whether they were kept or not."""
    missing: int = 0
    """Rows in which it could not be measured."""

    @property
    def seen(self) -> int:
        """How many rows have it."""
        return self.passed.seen + self.failed.seen

    def add(self, value: float | None, reason: str) -> None:
        """Take in one row's."""
        if value is None:
            self.missing += 1
        else:
            (self.failed if reason else self.passed).add(value)


@dataclass(slots=True)
class Tally:
    """All counts of a card."""

    classes: dict[str, Counter[str]] = field(default_factory=dict)
    """Class -> how many were `committed`, `rejected`, and `passed` every check."""
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    out_of_distribution: Figure = field(default_factory=Figure)
    grids: Counter[Grid] = field(default_factory=Counter)
    samplers: Counter[str] = field(default_factory=Counter)
    picked: list[Row] = field(default_factory=list)
    """The volumes whose places were asked for."""


def tally(rows: Iterable[Row], places: Container[int] = ()) -> Tally:
    """Count everything once; on the way, pick the volumes at `places` among the volumes."""
    counts, volumes = Tally(), 0
    for row in rows:
        state = state_of(row)
        of_class = counts.classes.setdefault(row.finding, Counter())
        of_class.update((state,) if row.reason else (state, "passed"))
        if row.reason:
            counts.reasons.setdefault(row.reason, Counter())[state] += 1
        for name, value in row.quality.items():
            counts.figures.setdefault(name, Figure()).add(value, row.reason)
        if row.out_of_distribution is not None:
            counts.out_of_distribution.add(row.out_of_distribution, row.reason)
        if row.accepted:
            counts.grids[row.shape, row.spacing_mm] += 1
            if volumes in places:
                counts.picked.append(row)
            volumes += 1
        counts.samplers[row.sampler] += 1
    return counts


def distinct(corpus: Path, column: str) -> int:
    """How many different values a column of the manifest has, the empty one not counted."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(corpus / MANIFEST, pre_buffer=False) as file:
        values = file.read([column], use_threads=False)[column]
    return int(pc.count_distinct(pc.filter(values, pc.not_equal(values, "")))) if values else 0

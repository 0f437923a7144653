"""Which rows a page shows, and which of these can be opened in three dimensions. By rule alone."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from synth_ct.corpus.row import Row
from synth_ct.corpus.tally import Figure

QUANTILES = (1, 25, 50, 75, 99)


class Spread(NamedTuple):
    """Percentiles of one figure over all rows of a corpus."""

    low: float
    quarter: float
    median: float
    three_quarters: float
    high: float


def spread_of(figure: Figure) -> Spread | None:
    """Of all that were made, kept or not; None where it was never measured."""
    values = np.concatenate([np.asarray(s.values) for s in (figure.passed, figure.failed)])
    return Spread(*np.percentile(values, QUANTILES).tolist()) if len(values) else None


def oddness(row: Row, spreads: Mapping[str, Spread]) -> float:
    """How far a row's farthest figure is from the median: max |x - median| / (q75 - q25)."""
    distances = [
        abs(value - spread.median) / (spread.three_quarters - spread.quarter)
        for name, spread in spreads.items()
        if (value := figure_of(row, name)) is not None and spread.three_quarters > spread.quarter
    ]
    return max(distances, default=0.0)


def figure_of(row: Row, name: str) -> float | None:
    """A row's value of a figure, be it of the volume or of its film."""
    return row.out_of_distribution if name == "out_of_distribution" else row.quality.get(name)


def every_so_many(rows: Iterable[Row], total: int, limit: int) -> list[Row]:
    """At most `limit` rows, evenly spaced in the order of ids, which are hashes."""
    if total <= limit:
        return list(rows)
    places = {n * total // limit for n in range(limit)}
    return list(islice((row for n, row in enumerate(rows) if n in places), limit))


def from_usual_to_odd(rows: Sequence[Row], odd: Mapping[str, float], count: int) -> list[Row]:
    """Volumes at even quantiles of oddness: the most usual, the oddest, and between."""
    kept = sorted((row for row in rows if row.accepted), key=lambda row: (odd[row.id], row.id))
    if len(kept) <= count:
        return kept
    return [kept[round(n)] for n in np.linspace(0, len(kept) - 1, count)]

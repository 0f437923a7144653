"""What a report tells of a study, gathered by its caller. Ids only: no path, no person's name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from finetune.results import Fit
from reports.compare import Comparison
from reports.protocol import Protocol
from reports.quoted import Quote, read_quotes

Rank = Literal["worst", "median", "best"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What one fit's loss did while it was trained."""

    dataset: str
    arch: str
    arm: str
    fold: int
    seed: int
    points: tuple[tuple[int, float], ...]
    """(step, value), steps rising."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One volume of a corpus, chosen by rule."""

    id: str
    rank: Rank
    value: float
    """Of the figure it was ranked by."""
    preview: bytes
    """PNG of the volume."""
    radiograph: bytes | None = None
    """PNG of the film it was made from, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityFigure:
    """How one figure is spread over a corpus."""

    name: str
    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusShown:
    """One corpus: how many of its volumes are good, how good, and three of them."""

    arm: str
    digest: str
    committed: int
    rejected: int
    quarantined: int
    spread: str = "1st to 99th percentile"
    """What `low` and `high` of its figures are."""
    figures: tuple[QualityFigure, ...] = ()
    ranked_by: str = ""
    """The figure that chose the samples."""
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """Inputs that were set aside for one reason, in one place."""

    where: str
    """The artifact, e.g. `cohorts/bcv`."""
    code: str
    meaning: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one stage took."""

    stage: str
    seconds: float
    """From begin to end."""
    device: str
    """`cpu`, or the name of a GPU."""
    device_seconds: float
    """Summed over all devices at work."""

    @property
    def device_hours(self) -> float:
        """What a price list is multiplied by."""
        return self.device_seconds / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """From what every number came."""

    recipe: str
    """The run, as TOML."""
    code: str
    """Hash of the packaged sources."""
    fingerprints: Mapping[str, str]
    """Artifact -> fingerprint: cohorts, corpora, encoders, protocol. Fits carry their own."""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInput:
    """All that stands on the page."""

    run: str
    date: str
    """As it is to be printed; the page itself looks at no clock."""
    comparison: Comparison
    """Says the evidence level, too."""
    protocol: Protocol
    fits: tuple[Fit, ...]
    provenance: Provenance
    curves: tuple[Curve, ...] = ()
    curve_of: str = "training loss"
    corpora: tuple[CorpusShown, ...] = ()
    quarantine: tuple[Aside, ...] = ()
    cost: tuple[Cost, ...] = ()
    not_run: tuple[str, ...] = ()
    """Whatever else a reader may miss, one sentence each."""
    quotes: tuple[Quote, ...] = field(default_factory=read_quotes)


def chosen(values: Mapping[str, float]) -> tuple[tuple[str, Rank], ...]:
    """Worst, median and best id by a figure of which more is better, nobody twice.

    Of equals, the first id; of two, worst and best; of one, best.
    """
    ranked = sorted(values, key=lambda id_: (values[id_], id_))
    places: dict[int, Rank] = {len(ranked) // 2: "median", 0: "worst", len(ranked) - 1: "best"}
    return tuple((ranked[place], places[place]) for place in sorted(places)) if ranked else ()

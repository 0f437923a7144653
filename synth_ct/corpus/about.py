"""`corpus.json`: what a corpus is and where it comes from. No path, no name of a person."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from synth_ct.corpus.layout import ABOUT
from synth_ct.kit.durable import write_text
from synth_ct.kit.recipe import Recipe

SYNTHETIC = (
    "SYNTHETIC: every volume was made by a network from one radiograph. Not measured, "
    "not diagnostic."
)


class Source(Recipe):
    """Something a corpus was made from: radiographs, training CT, somebody's volumes."""

    role: Literal["radiographs", "training CT", "volumes"]
    title: str
    licence: str = "unknown"
    citation: str = ""
    cautions: tuple[str, ...] = ()


class Counts(Recipe):
    """total = committed + rejected + quarantined; duplicates are among the quarantined."""

    total: int = 0
    committed: int = 0
    rejected: int = 0
    quarantined: int = 0
    duplicates: int = 0


class About(Recipe):
    """All that is true of the corpus as a whole."""

    kind: Literal["generated", "adopted", "merged"]
    what: str = SYNTHETIC
    evidence: Literal["phantom", "real"]
    """What the generator learned from and what it was given: both real, or phantoms somewhere."""
    generator: str
    """Its name."""
    model: str
    """Its fingerprint; several, comma-separated, in a merged corpus."""
    trained_on: str
    scale: str = "nominal"
    recipe: dict[str, Any] = Field(default_factory=dict)
    """How it was used: samples, seed, gate, ..."""
    sources: tuple[Source, ...]
    counts: Counts = Counts()
    codes: dict[str, int] = Field(default_factory=dict)
    """Quarantine code -> how many."""
    digest: str = ""
    receipts_sha256: str = ""
    """Of the folded receipts; `record.json` has this file's own, so all bytes are accounted for."""
    numerics: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Fingerprint in the rows -> what it stands for."""
    shape: tuple[int, ...] = ()
    """Of all volumes, where they have one in common."""
    spacing_mm: tuple[float, ...] = ()


def write_about(corpus: Path, about: About) -> None:
    """Write `corpus.json`."""
    write_text(corpus / ABOUT, about.model_dump_json(indent=1))

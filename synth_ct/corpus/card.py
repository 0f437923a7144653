"""The data card: `README.md` of a corpus, for whoever finds the folder without us."""

from pathlib import Path

from synth_ct.corpus.about import About
from synth_ct.corpus.layout import CARD
from synth_ct.kit.durable import write_text


def write_card(corpus: Path, about: About) -> None:
    """Write the card from the manifest and the description."""
    write_text(corpus / CARD, f"# {about.generator}: synthetic CT\n\n{about.what}\n")

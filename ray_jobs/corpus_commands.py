"""`synth-ct corpus`: what can be done with a finished corpus."""

from pathlib import Path
from typing import Annotated

import typer

from ray_jobs.console import tell
from ray_jobs.options import AsJson

app = typer.Typer(
    help="What can be done with a corpus.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A finished corpus.")]


@app.command()
def card(folder: Folder, as_json: AsJson = False) -> None:
    """Show the data card.

    Example: synth-ct corpus card runs/tiny/corpus/synthetic
    """
    from synth_ct.corpus import Corpus
    from synth_ct.corpus.layout import CARD

    corpus = Corpus.open(folder)
    text = (corpus.folder / CARD).read_text()
    tell({"card": text, "about": corpus.about.model_dump(mode="json")}, [text.rstrip()], as_json)

"""What all formats take from a corpus: checked files of accepted volumes, and words about them."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from synth_ct.corpus.card import PICTURES
from synth_ct.corpus.layout import CARD, volume_file
from synth_ct.corpus.reader import Corpus
from synth_ct.corpus.row import Row
from synth_ct.kit.durable import link_or_copy, sha256_of_file, write_text
from synth_ct.kit.progress import progress

FENCE = "---\n"
NAME = "SyntheticCT"
NUMBER = 900
"""Data set number where a format wants one and the person gave none."""


def accepted(corpus: Corpus) -> Iterator[Row]:
    """The rows with a volume, sorted by id, with progress; none whose names could leave `out`."""
    with progress("export", corpus.about.counts.committed) as tick:
        for row in corpus.rows():
            if row.accepted:
                for name in (row.id, row.patient):
                    _demand_plain(name)
                yield row
                tick()


def _demand_plain(name: str) -> None:
    """Ids become names of files and DICOM values, in which `/`, `\\` and `^` have a meaning."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}", name):
        raise ValueError(
            f"{name!r} cannot be the name of a file or a subject: ids and patients are up to 48 "
            "letters, digits, '.', '_' and '-'; was the manifest written by another program?"
        )


def link_volume(corpus: Corpus, row: Row, to: Path) -> None:
    """The volume under another name, after its bytes were checked."""
    file = corpus.folder / volume_file(row.id)
    if sha256_of_file(file) != row.file_sha256:
        raise ValueError(
            f"{file} is damaged: it is not what the manifest recorded; restore it with "
            f"`synth-ct corpus repair {corpus.folder}`, then export again"
        )
    to.parent.mkdir(parents=True, exist_ok=True)
    link_or_copy(file, to)


def statement(corpus: Corpus) -> str:
    """What the volumes are, in one sentence that begins with SYNTHETIC."""
    what = corpus.about.what
    return what if what.startswith("SYNTHETIC") else f"SYNTHETIC: {what}"


def reference(corpus: Corpus) -> str:
    """What the corpus was made from."""
    titles = "; ".join(f"{source.title} ({source.role})" for source in corpus.about.sources)
    return f"generator {corpus.about.generator} ({corpus.about.model}); {titles}"


def licences(corpus: Corpus) -> list[str]:
    """Of all sources, each once."""
    return sorted({source.licence for source in corpus.about.sources})


def card(corpus: Corpus) -> tuple[list[str], str]:
    """The lines of the corpus's own front matter, and its card without them."""
    text = (corpus.folder / CARD).read_text()
    if not text.startswith(FENCE):
        return [], text
    _, front, body = text.split(FENCE, 2)
    return front.splitlines(), body


def write_readme(corpus: Corpus, workspace: Path, opening: str) -> None:
    """How this folder is opened; then the corpus's data card, with its pictures."""
    words = (
        f"> **{statement(corpus)}**",
        opening,
        "What follows is the card of the corpus this was exported from; the layout it speaks of is "
        "that corpus's own.",
        card(corpus)[1],
    )
    write_text(workspace / CARD, "\n\n".join(words))
    if (corpus.folder / PICTURES).is_dir():
        shutil.copytree(corpus.folder / PICTURES, workspace / PICTURES)


class DataSet(NamedTuple):
    """A folder as nnU-Net and its relatives name them: three digits and a word."""

    folder: Path
    number: int
    name: str


def data_set(workspace: Path, name: str) -> DataSet:
    """The workspace itself if it will be called `DatasetNNN_...`, else such a folder in it."""
    found = re.fullmatch(r"Dataset(\d{3})_\w+", name)
    if found:
        return DataSet(workspace, int(found[1]), name)
    name = f"Dataset{NUMBER}_{NAME}"
    (workspace / name).mkdir(exist_ok=True)
    return DataSet(workspace / name, NUMBER, name)

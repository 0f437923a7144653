"""A corpus in the layouts that other people's tools read. Whole or absent; ids only, no paths."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from synth_ct.corpus.export import dicom, hf, msd, nnssl, nnunet
from synth_ct.corpus.export.content import write_readme
from synth_ct.corpus.reader import Corpus
from synth_ct.kit.artifact import LOCK, PLAN, Record, partial_of, publish

Format = Literal["msd", "nnunet", "nnssl", "hf", "dicom"]


class Layout(NamedTuple):
    """How a format is written, and how a person opens it."""

    write: Callable[[Corpus, Path, str], None]
    """Fill a workspace, which will be called by the name."""
    opening: str


FORMATS: dict[Format, Layout] = {
    "msd": Layout(msd.write, msd.OPENING),
    "nnunet": Layout(nnunet.write, nnunet.OPENING),
    "nnssl": Layout(nnssl.write, nnssl.OPENING),
    "hf": Layout(hf.write, hf.OPENING),
    "dicom": Layout(dicom.write, dicom.OPENING),
}


def export(folder: Path, out: Path, to: Format) -> int:
    """Write the volumes of a finished corpus as `out`; return how many files that is."""
    corpus = Corpus.open(folder)
    _refuse_place(folder, out)
    if not corpus.about.counts.committed:
        raise ValueError(f"{folder} has no volume to export: none of its items was accepted")
    wanted = Record(kind="export", recipe={"to": to}, inputs={"corpus": corpus.record.fingerprint})
    with publish(out, wanted) as workspace:
        _sweep(workspace)
        write_readme(corpus, workspace, FORMATS[to].opening)
        FORMATS[to].write(corpus, workspace, out.name)
        os.sync()  # thousands of links or slices, made durable in one go before the rename
    return sum(path.is_file() for path in out.rglob("*"))


def _refuse_place(folder: Path, out: Path) -> None:
    if out.exists():
        raise ValueError(f"{out} exists already; name a folder that does not, or remove it")
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"{out} lies inside the corpus, and a finished corpus never changes; "
            "choose a place outside it"
        )
    left = partial_of(out)
    if left.exists() and not left.is_dir():
        raise ValueError(f"{left} is in the way: the work happens there; move it")


def _sweep(workspace: Path) -> None:
    """What a killed export left may be another version's layout; it is quick to make again."""
    for path in workspace.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (LOCK, PLAN):
            path.unlink()

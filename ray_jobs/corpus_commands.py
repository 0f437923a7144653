"""`synth-ct corpus`: what can be done with a finished corpus."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ray_jobs.console import FAILED, MAX_QUARANTINE, Tolerance, finish, tell
from ray_jobs.options import CORES, AsJson, Share, Strict, Workers

if TYPE_CHECKING:
    from synth_ct.kit.effort import Effort

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


@app.command()
def view(
    folder: Folder,
    out: Annotated[Path, typer.Argument(metavar="OUT.html", help="The page to write.")],
    limit: Annotated[int, typer.Option(min=1, help="Volumes shown, evenly spaced by id.")] = 300,
    radiographs: Annotated[
        bool,
        typer.Option(
            "--radiographs", help="Put the radiographs beside them, where this machine has them."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """One HTML page, complete in itself: thumbnails, filters, and some volumes in 3D.

    Example: synth-ct corpus view runs/tiny/corpus/synthetic corpus.html --limit 100
    """
    from synth_ct.corpus import Corpus
    from synth_ct.corpus.view import write_view

    made = write_view(Corpus.open(folder), out, limit=limit, radiographs=radiographs)
    lines = [f"{out}: {made.rows} volumes, {made.volumes} of them in 3D, {made.bytes / 1e6:.1f} MB"]
    if radiographs:
        lines.append(f"{made.radiographs} radiographs are in it: mind who sees it")
    tell({"out": str(out), **asdict(made)}, lines, as_json)


class ExportFormat(StrEnum):
    """What `corpus export` can write."""

    msd = "msd"
    nnunet = "nnunet"
    nnssl = "nnssl"
    hf = "hf"
    dicom = "dicom"


@app.command()
def export(
    folder: Folder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    to: Annotated[ExportFormat, typer.Option(help="Whose layout.")],
    as_json: AsJson = False,
) -> None:
    """Write the volumes in a layout that other tools read: hard links, or DICOM series.

    Example: synth-ct corpus export runs/tiny/corpus/synthetic exported --to msd
    """
    from synth_ct.corpus.export import export as write

    files = write(folder, out, to.value)
    answer = {"format": to.value, "files": files, "out": str(out)}
    tell(answer, [f"{out}: {files} files, {to.value}"], as_json)


@app.command()
def verify(folder: Folder, workers: Workers = CORES, as_json: AsJson = False) -> None:
    """Check every byte against what was recorded; exit 1, naming file and fault, if any differs.

    Example: synth-ct corpus verify runs/tiny/corpus/synthetic
    """
    from synth_ct.corpus.verify import verify as check

    with _effort("checked", workers) as effort:
        verdict = check(folder, effort)
    faults = [{"file": f.file, "kind": f.kind, "detail": f.detail} for f in verdict.faults]
    lines = [f"{f.file}: {f.kind}: {f.detail}" for f in verdict.faults]
    lines.append(f"{folder}: {verdict.volumes} volumes, {len(faults) or 'no'} faults")
    tell({"ok": verdict.ok, "volumes": verdict.volumes, "faults": faults}, lines, as_json)
    if faults:
        raise typer.Exit(FAILED)


@app.command()
def merge(
    corpora: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Two corpora or more.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The corpus to make.")],
    as_json: AsJson = False,
) -> None:
    """Make one corpus of several: every item once, people told apart by their radiographs.

    Example: synth-ct corpus merge runs/a/corpus/synthetic runs/b/corpus/synthetic merged
    """
    from synth_ct.corpus.merge import merge as join

    with _effort("linked", workers=0) as effort:
        about = join(corpora, out, effort)
    counts = about.counts.model_dump()
    lines = [f"{out}: {counts['committed']} volumes of {len(corpora)} corpora"]
    tell({"out": str(out), "digest": about.digest, **counts}, lines, as_json)


@app.command()
def adopt(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A folder of synthetic CT.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The corpus to make.")],
    generator: Annotated[str, typer.Option(help="What made them, e.g. MAISI.")],
    licence: Annotated[str, typer.Option(help="Theirs.")] = "unknown",
    workers: Workers = CORES,
    max_quarantine: Share = MAX_QUARANTINE,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Make a corpus of somebody else's synthetic volumes, read distrustfully and written anew.

    Example: synth-ct corpus adopt maisi_out/ adopted --generator MAISI --licence Apache-2.0
    """
    from synth_ct.adopt import adopt as take

    tolerance = Tolerance(max_quarantine=max_quarantine, strict=strict)
    with _effort("read", workers) as effort:
        about = take(source, out, generator, licence, effort)
    counts = about.counts
    lines = [f"{out}: {counts.committed} volumes adopted, {counts.quarantined} set aside"]
    tell({"out": str(out), "codes": about.codes, **counts.model_dump()}, lines, as_json)
    code = tolerance.exit_code(counts.total, counts.quarantined, counts.duplicates)
    finish(code, counts.quarantined)


@app.command()
def audit(
    folder: Folder,
    against: Annotated[
        list[Path], typer.Option(metavar="DIR", help="A cohort or a corpus; may be repeated.")
    ],
    as_json: AsJson = False,
) -> None:
    """Find copies, even altered ones, of training CTs or evaluation cases; exit 1 if there are any.

    Example: synth-ct corpus audit corpus/ --against runs/tiny/cohorts/bcv
    """
    from synth_ct.corpus.audit import audit as compare

    with _effort("compared", workers=0) as effort:
        found = compare(folder, against, effort)
    lines = [
        f"{p.id}: {p.kind} of {p.other} in {p.against} ({p.likeness:.2f})" for p in found.pairs
    ]
    lines += [*found.notes, f"{folder}: {len(found.pairs) or 'no'} copies found"]
    pairs = [asdict(pair) for pair in found.pairs]
    tell({"ok": not pairs, "pairs": pairs, "notes": found.notes}, lines, as_json)
    if pairs:
        raise typer.Exit(FAILED)


@contextmanager
def _effort(what: str, workers: int) -> Iterator["Effort"]:
    """How fast to work, with a progress bar on stderr."""
    from synth_ct.kit.effort import Effort
    from synth_ct.kit.progress import progress

    with ExitStack() as bars:
        yield Effort(workers=workers, begin=lambda total: bars.enter_context(progress(what, total)))


@app.command()
def repair(
    folder: Folder,
    model: Annotated[
        Path | None, typer.Option(help="The generator that made it; without it no volume is made.")
    ] = None,
    other_numerics: Annotated[
        bool, typer.Option("--other-numerics", help="Try on another kind of machine, too.")
    ] = False,
    workers: Workers = CORES,
    as_json: AsJson = False,
) -> None:
    """Put back what is damaged or missing: the recorded bytes, or nothing.

    Example: synth-ct corpus repair corpus/ --model runs/tiny
    """
    from synth_ct.corpus.repair import repair as stage
    from synth_ct.kit.numerics import device
    from synth_ct.production.again import maker_of

    with _effort("checking", workers) as effort:
        done = stage(folder, None, effort)  # what is derived first: the manifest names the model
    restored = list(done.restored)
    if done.left and model is not None:
        maker = maker_of(folder, model, device(), other_numerics=other_numerics)
        with _effort("checking", workers) as effort:
            done = stage(folder, maker, effort)
        restored += done.restored
    lines = [f"restored  {file}" for file in restored]
    lines += [f"{fault.kind}  {fault.file}: {fault.detail}" for fault in done.left]
    lines.append(f"{len(restored)} restored, {len(done.left)} left")
    left = [asdict(fault) for fault in done.left]
    tell({"ok": not left, "restored": restored, "faults": left}, lines, as_json)
    if left:
        raise typer.Exit(FAILED)

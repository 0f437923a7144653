"""`synth-ct`: the only command line. Heavy imports wait inside the commands that need them."""

import os
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ray_jobs import (
    corpus_commands,
    finetune_commands,
    generator_commands,
    pretrain_commands,
    report_commands,
)
from ray_jobs.console import MAX_QUARANTINE, Tolerance, finish, guarded, tell, working
from ray_jobs.options import CORES, AsJson, Root, Setting, Share, Strict, Workers

if TYPE_CHECKING:
    from ray_jobs.plan import Stage
    from ray_jobs.recipes import Run

app = typer.Typer(
    name="synth-ct",
    help="Turn chest radiographs into a corpus of synthetic CT, pretrain on it, measure the gain.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class SourceKind(StrEnum):
    """What `ingest` can read."""

    lidc = "lidc"
    chest_xray2017 = "chest-xray2017"
    bcv = "bcv"
    msd_spleen = "msd-spleen"
    ctspine1k = "ctspine1k"
    folder = "folder"
    radiographs = "radiographs"
    labelled = "labelled"


class PhantomKind(StrEnum):
    """What `phantoms` can make."""

    chest = "chest"
    abdomen = "abdomen"
    spleen = "spleen"
    lumbar = "lumbar"


class FamilyName(StrEnum):
    """Two ways of making phantoms: pretrain on one, fine-tune on the other."""

    A = "A"
    B = "B"


class ViewName(StrEnum):
    """From where the beam comes."""

    frontal = "frontal"
    lateral = "lateral"


class StageName(StrEnum):
    """The stages of a run, in order."""

    cohorts = "cohorts"
    generator = "generator"
    corpus = "corpus"
    encoder = "encoder"
    folds = "folds"
    report = "report"


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Turn chest radiographs into a corpus of synthetic CT, pretrain on it, measure the gain."""
    del debug  # taken out of the arguments before they are parsed, so that it may stand anywhere


@app.command()
def doctor(
    root: Annotated[Path, typer.Option(help="Where a run would live.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """What this machine can do, what is missing, and how to get it.

    Example: synth-ct doctor
    """
    from ray_jobs.doctor import examine

    found = examine(root, os.environ)
    lines = [
        f"{f.verdict:8}{f.what}: {f.detail}" + (f"  -> {f.remedy}" if f.remedy else "")
        for f in found
    ]
    missing = [f.what for f in found if f.verdict == "missing"]
    lines.append(f"missing: {', '.join(missing)}" if missing else "everything needed is here")
    tell({"ok": not missing, "findings": [asdict(f) for f in found]}, lines, as_json)
    if missing:
        raise typer.Exit(1)


@app.command()
def ingest(
    kind: Annotated[SourceKind, typer.Argument(help="What kind of source SRC is.")],
    source: Annotated[Path, typer.Argument(metavar="SRC", exists=True, help="The folder to read.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The cohort to make.")],
    patients: Annotated[
        Path | None,
        typer.Option(
            help="For `radiographs`: CSV file,patient[,split][,finding]. `finding` is kept as it "
            "is written: no names in it."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the division by patient.")] = 0,
    workers: Workers = CORES,
    max_quarantine: Share = MAX_QUARANTINE,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Read a folder distrustfully into a cohort; what cannot be trusted is set aside and named.

    Run the same command again to continue after a stop.

    Example: synth-ct ingest chest-xray2017 chest_xray/ cohorts/radiographs
    """
    from synth_ct.cohort.gather import ingest as make_cohort
    from synth_ct.kit.quarantine import REPORT, counts_by_code, read_report
    from synth_ct.sources.importers import importer_for

    tolerance = Tolerance(max_quarantine=max_quarantine, strict=strict)
    importer = importer_for(kind.value, patients)
    with working(workers) as effort:
        summary = make_cohort(importer, source, out, seed, effort("reading"))
    result: dict[str, Any] = {**asdict(summary), "out": str(out), "report": str(out / REPORT)}
    codes = counts_by_code(read_report(out))
    lines = [
        f"{summary.accepted} of {summary.total} accepted, {summary.patients} patients -> {out}",
        f"{summary.quarantined} set aside: {_counts(codes)} (see {out / REPORT})",
    ]
    if summary.leaking_patients:
        lines.append(
            f"{summary.leaking_patients} patients stand in several parts of the source's own "
            "split; none does in ours"
        )
    tell(result, lines, as_json)
    code = tolerance.exit_code(summary.total, summary.quarantined, summary.duplicates)
    finish(code, summary.quarantined)


@app.command()
def phantoms(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The cohort to make.")],
    kind: Annotated[PhantomKind, typer.Option(help="Which part of the body.")],
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many patients.")],
    size: Annotated[int, typer.Option(min=32, max=128, help="Voxels along each edge.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    family: Annotated[FamilyName, typer.Option(help="Shape and texture model.")] = FamilyName.A,
    workers: Workers = CORES,
    as_json: AsJson = False,
) -> None:
    """Make labelled CT phantoms: the embedded data set, nothing to download.

    Example: synth-ct phantoms out/ --kind chest --count 8
    """
    from synth_ct.kit.artifact import Record, is_done, publish
    from synth_ct.phantom.recipe import PhantomCohort, make_phantom_cohort, phantom_files

    recipe = PhantomCohort(kind=kind.value, count=count, size=size, seed=seed, family=family.value)
    wanted = Record(kind="phantoms", recipe=recipe.model_dump(mode="json"))
    if not is_done(out, wanted):
        with working(workers) as effort, publish(out, wanted) as workspace:
            make_phantom_cohort(recipe, workspace, effort("phantoms"))
    files, digest = phantom_files(out)
    lines = [f"{count} {kind.value} phantoms -> {out}", f"digest {digest}"]
    tell({"count": count, "files": files, "digest": digest}, lines, as_json)


@app.command()
def drr(
    ct: Annotated[
        Path, typer.Argument(metavar="CT", help="A CT: NIfTI, NRRD, MetaImage, or a DICOM folder.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.png", help="The picture to write.")],
    view: Annotated[ViewName, typer.Option(help="Where the beam comes from.")] = ViewName.frontal,
    as_json: AsJson = False,
) -> None:
    """Draw the radiograph a CT would have given.

    Example: synth-ct drr chest.nii.gz chest.png --view frontal
    """
    import numpy as np
    from PIL import Image

    from synth_ct.sources.folder import read_any_ct
    from synth_ct.xray.project import film_of

    if out.suffix.lower() != ".png":
        raise typer.BadParameter(f"the picture is written as PNG; name it {out.stem}.png")
    film_UV = film_of(read_any_ct(ct), view.value)
    Image.fromarray(np.rint(255 * film_UV).astype(np.uint8)).save(out)
    tell({"out": str(out), "view": view.value, "shape": list(film_UV.shape)}, [str(out)], as_json)


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """The named runs.

    Example: synth-ct recipes
    """
    from ray_jobs.recipes import RECIPES

    about = {name: " ".join((make.__doc__ or "").split()) for name, make in RECIPES.items()}
    width = max(map(len, about)) + 2
    lines = [f"{name:{width}}{text}" for name, text in about.items()]
    tell({"recipes": about}, lines, as_json)


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A named run, or a .toml file.")],
    settings: Setting = None,
    as_json: AsJson = False,
) -> None:
    """One run as TOML, which `run` takes back.

    Example: synth-ct show tiny > mine.toml
    """
    from ray_jobs.recipes import to_toml

    chosen = _chosen(recipe, settings)
    tell(chosen.model_dump(mode="json"), [to_toml(chosen).rstrip()], as_json)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A named run, or a .toml file.")],
    root: Root = None,
    settings: Setting = None,
    until: Annotated[StageName, typer.Option(help="Stop after this stage.")] = StageName.report,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be made; make nothing.")
    ] = False,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="With --dry-run: GPUs to plan for.")
    ] = None,
    workers: Workers = CORES,
    train_workers: Annotated[
        int, typer.Option(min=1, help="Processes that share each training, on Ray.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Make what is missing, in order; run again to continue.

    Example: synth-ct run tiny --root runs/tiny --until cohorts
    """
    chosen = _chosen(recipe, settings)
    folder = root or Path("runs") / chosen.name
    if gpus is not None and not dry_run:
        raise typer.BadParameter("--gpus is for planning: give it with --dry-run")
    if dry_run:
        _foretell(chosen, folder, until.value, gpus, as_json)
    else:
        _make(chosen, folder, until.value, workers, train_workers, as_json)


@app.command()
def quickstart(root: Root = None, workers: Workers = CORES, as_json: AsJson = False) -> None:
    """The whole experiment on phantoms: two cores, minutes, no download.

    Example: synth-ct quickstart
    """
    from ray_jobs.recipes import tiny

    _make(tiny(), root or Path("runs") / "tiny", "report", workers, 1, as_json)


def _chosen(recipe: str, settings: list[str] | None) -> "Run":
    from ray_jobs.recipes import find_recipe, with_settings

    try:
        return with_settings(find_recipe(recipe), settings or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _foretell(chosen: "Run", folder: Path, until: "Stage", gpus: int | None, as_json: bool) -> None:
    from ray_jobs import forecast, plan
    from ray_jobs.steps import steps_of

    steps = plan.until(steps_of(chosen), until)
    made = forecast.forecast(steps, plan.inspect(steps, folder), folder, gpus or 1)
    result: dict[str, Any] = {"root": str(folder), "steps": forecast.rows(made), "report": None}
    result["forecast"] = forecast.as_json(made)
    tell(result, forecast.told(made, folder, gpus), as_json)


def _make(
    chosen: "Run",
    folder: Path,
    until: "Stage",
    workers: int,
    train_workers: int,
    as_json: bool,
) -> None:
    from ray_jobs import plan, report_step
    from ray_jobs.cluster import demand_lasting
    from ray_jobs.graph import run_all
    from ray_jobs.steps import steps_of
    from reports.mlflow_store import store_for

    demand_lasting(folder)
    steps = plan.until(steps_of(chosen), until)
    if train_workers > 1 or os.environ.get("RAY_ADDRESS"):  # a cluster's driver never trains
        from ray_jobs.train import on_ray

        steps = on_ray(steps, folder, train_workers)
    reported = any(step.name == report_step.NAME for step in steps)
    if reported:
        store_for(folder, os.environ)  # a store that cannot be is refused now, not after hours
    plan.demand_possible(plan.still_missing(steps, folder), folder)
    report_step.keep_recipe(chosen, folder)
    with working(workers) as effort:
        results = run_all(steps, folder, effort)
    lines = [f"{r.status:8}{r.name}  {r.seconds:.1f} s" for r in results]
    if reported:
        lines += report_commands.conclude(chosen, folder)
    rows = [asdict(r) for r in results]
    page = str(report_step.page_of(folder)) if reported else None
    tell({"root": str(folder), "steps": rows, "report": page}, lines, as_json)


app.command()(generator_commands.reconstruct)
app.command()(generator_commands.generate)
app.command()(generator_commands.evaluate)
app.command()(pretrain_commands.pretrain)
app.command()(finetune_commands.finetune)
app.command()(report_commands.report)
app.add_typer(corpus_commands.app, name="corpus")


def _counts(codes: dict[str, int]) -> str:
    return ", ".join(f"{n} {code}" for code, n in codes.items()) or "nothing"


def main() -> None:
    """Run the command line; the exit codes are in docs/conventions.md."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MONAI imports MLflow
    sys.exit(guarded(lambda given: app(args=given, standalone_mode=False), sys.argv[1:]))


if __name__ == "__main__":
    main()

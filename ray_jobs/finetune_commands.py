"""`synth-ct finetune`: encoders on labelled cases of one's own, every fold, and how it went."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ray_jobs.console import tell, working
from ray_jobs.options import CORES, AsJson, Seed, Setting, Workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.results import Fit
    from ray_jobs.own_fits import Study
    from ray_jobs.plan import Result
    from reports.compare import GapRow


def finetune(
    cases: Annotated[
        Path, typer.Argument(metavar="CASES", exists=True, help="A labelled cohort, any classes.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder of all fits.")],
    encoders: Annotated[
        list[Path],
        typer.Option("--encoder", metavar="DIR", exists=True, help="A finished encoder; repeat."),
    ],
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Also fit without pretraining, and tell the gap.")
    ] = False,
    recipe: Annotated[
        str, typer.Option(help="A named run, or a .toml file: how its networks are fine-tuned.")
    ] = "small",
    network: Annotated[
        str | None, typer.Option(help="One of its fine-tuned networks [that of the encoder].")
    ] = None,
    settings: Setting = None,
    folds: Annotated[int, typer.Option(min=2, help="Patients are divided into so many.")] = 5,
    only: Annotated[
        list[int] | None, typer.Option("--fold", min=0, help="Fit these alone; repeat.")
    ] = None,
    seed: Seed = 0,
    workers: Workers = CORES,
    as_json: AsJson = False,
) -> None:
    """Fine-tune and score on every fold; run the same command again to continue.

    Example: synth-ct finetune cohorts/liver study/ --encoder encoders/mine --recipe tiny
    """
    from ray_jobs.cluster import demand_lasting
    from ray_jobs.graph import run_all
    from ray_jobs.own_fits import link, steps_of, study_of

    demand_lasting(out)
    study = study_of(cases, encoders, _run(recipe, settings or []), network, scratch, (folds, seed))
    chosen = tuple(dict.fromkeys(only or range(folds)))
    if beyond := [number for number in chosen if number >= folds]:
        raise typer.BadParameter(f"there is no fold {beyond[0]}: they are 0 to {folds - 1}")
    link(study, out)
    with working(workers) as effort:
        results = run_all(steps_of(study, chosen), out, effort)
    _tell(study, out, results, as_json)


def _run(recipe: str, settings: list[str]) -> Any:
    from ray_jobs.recipes import find_recipe, with_settings

    try:
        return with_settings(find_recipe(recipe), settings)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


# ---- what is told ------------------------------------------------------------------------------


def _tell(study: "Study", out: Path, results: "Sequence[Result]", as_json: bool) -> None:
    from finetune.results import open_fit
    from ray_jobs.fold_steps import RESULTS, TABLE
    from ray_jobs.own_fits import is_fit

    made = [result for result in results if is_fit(study, result.name)]
    fits = [open_fit(Path(result.folder)) for result in made]
    whole = any(result.name == RESULTS for result in results)
    gaps = _gaps(study, fits) if whole and len(study.encoders) > 1 else []
    table = str(out / RESULTS / TABLE) if whole else None
    organs = organ_rows(fits)
    told = {
        "out": str(out),
        "dataset": study.dataset,
        "evidence": study.evidence,
        "fits": [asdict(result) for result in made],
        "organs": organs,
        "gaps": [asdict(row) for row in gaps],
        "results": table,
    }
    lines = [*_organ_lines(organs), *map(_gap_line, gaps), *_places(study, fits, out, table)]
    tell(told, lines, as_json)


def organ_rows(fits: "Sequence[Fit]") -> list[dict[str, Any]]:
    """Mean over patients of the mean over each one's scans; what neither side has is counted."""
    from statistics import fmean

    scores: dict[tuple[str, int, str], dict[str, list[Any]]] = {}
    for fit in fits:
        for score in fit.scores:
            of_organ = scores.setdefault((fit.arm, score.label, score.organ), {})
            of_organ.setdefault(score.patient, []).append(score)
    rows = []
    for arm, label, organ in sorted(scores):
        row: dict[str, Any] = {"arm": arm, "organ": organ}
        of_organ = scores[arm, label, organ]
        for metric in ("dice", "nsd"):
            there = [
                [value for s in several if (value := getattr(s, metric)) is not None]
                for several in of_organ.values()
            ]
            means = [fmean(values) for values in there if values]
            row |= {metric: fmean(means) if means else None, "n": len(means)}
        row["absent"] = sum(s.outcome == "absent" for all_ in of_organ.values() for s in all_)
        rows.append(row)
    return rows


def _gaps(study: "Study", fits: "Sequence[Fit]") -> "Sequence[GapRow]":
    from ray_jobs.own_fits import protocol
    from reports.compare import comparison

    return [row for row in comparison(fits, protocol(study)).gaps if row.status == "run"]


def _organ_lines(organs: list[dict[str, Any]]) -> list[str]:
    width = max(len(row["organ"]) for row in organs)
    arms = max(len(row["arm"]) for row in organs)

    def shown(value: float | None) -> str:
        return "  -  " if value is None else f"{value:.3f}"

    return [
        f"{row['arm']:{arms}}  {row['organ']:{width}}  Dice {shown(row['dice'])}  "
        f"NSD {shown(row['nsd'])}  {row['n']} patients"
        + (f", absent in {row['absent']} scans" if row["absent"] else "")
        for row in organs
    ]


def _gap_line(row: "GapRow") -> str:
    assert row.gap is not None, "it was run"
    p = f"p {row.p:.3f}" if row.p_holm is None else f"p {row.p_holm:.3f} (Holm)"
    return (
        f"{row.arm} - {row.baseline}: {row.gap:+.1f} points of mean organ Dice "
        f"[{row.lo:+.1f}, {row.hi:+.1f}], {p}, {row.n_patients} patients; a true gap of "
        f"{row.mde:.1f} would be shown"
    )


def _places(study: "Study", fits: "Sequence[Fit]", out: Path, table: str | None) -> list[str]:
    lines = [
        f"evidence: {study.evidence}; {len(fits)} fits",
        f"predictions: {out}/fits/{study.dataset}-*/predictions/CASE.nii.gz",
    ]
    return [*lines, f"results: {table}"] if table else lines

"""`synth-ct report`, and the end of every run: the page, the answer, the way into MLflow."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ray_jobs.console import tell
from ray_jobs.options import AsJson

if TYPE_CHECKING:
    from ray_jobs.recipes import Run


def report(
    root: Annotated[
        Path, typer.Argument(metavar="ROOT", exists=True, file_okay=False, help="Of a run.")
    ],
    to_mlflow: Annotated[
        bool, typer.Option("--to-mlflow", help="Log what MLflow lacks, though the page is there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The Dice gaps of a run whose fits are finished: one page, and MLflow.

    Example: synth-ct report runs/tiny
    """
    from ray_jobs import report_step as made
    from ray_jobs.costs import note_cost
    from ray_jobs.plan import make_step
    from ray_jobs.steps import steps_of
    from reports.mlflow_sink import look
    from reports.mlflow_store import store_for
    from reports.page import NUMBERS
    from synth_ct.kit.effort import Effort

    run = made.recipe_of(root)
    step = made.demanded(steps_of(run), root)
    store = store_for(root, os.environ)
    result = make_step(step, root, Effort())
    note_cost(root, step, result)
    shown = look(store)
    if to_mlflow:
        shown = made.load(run, root, store).look
    elif result.status == "made":
        shown = made.log(run, root, store).look
    lines = [*made.said(made.outcome_of(root)), *closing(root, shown)]
    tell(json.loads((root / made.NAME / NUMBERS).read_text()), lines, as_json)


def conclude(run: "Run", root: Path) -> list[str]:
    """After a run: log what MLflow lacks of it, and say where everything is."""
    from ray_jobs.report_step import log
    from reports.mlflow_store import store_for

    return closing(root, log(run, root, store_for(root, os.environ)).look)


def closing(root: Path, look: str) -> list[str]:
    """The last lines: the page, and the command or address that opens MLflow."""
    from ray_jobs.report_step import page_of

    return [f"report: {page_of(root)}", f"MLflow: {look}"]

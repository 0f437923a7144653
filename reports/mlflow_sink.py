"""A study into MLflow: every run once, whole or marked as not, and nothing of this machine.

MLflow knows no keys, so each run carries two of ours: `key` says which run it is, `content` what it
holds. What is there already is left alone; what has changed is brought up to date; what a dead
process left running is closed as KILLED and then completed. One process at a time logs a study.
"""

import json
import logging
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from reports.mlflow_kept import keep_runs, read_runs
from reports.mlflow_runs import Run, Runs, Study, Used, charts, runs_of
from reports.mlflow_store import URI, Store
from synth_ct.kit.progress import progress

if TYPE_CHECKING:
    from mlflow import MlflowClient

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
RETRIES = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
"""Left alone, a server that is not there would be asked for minutes."""
PARENT = "mlflow.parentRunId"
POINTS_TOGETHER = 800
"""MLflow takes 1000 values at once, and ours travel with parameters and tags."""
DIGEST = 16
"""MLflow takes 36 digits and no more; the whole stands in the profile."""
SUPERSEDED = "superseded"
EVIDENCE = {
    "plumbing": "PLUMBING: fits of seconds, made to see that everything runs. They answer nothing.",
    "phantom": "PHANTOM: everything here was learned from and measured on procedural phantoms.",
    "real": "REAL: learned from and measured on images of patients.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """What became of a study."""

    experiment: str
    where: str
    why: str
    look: str
    """A command or an address that shows it."""
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    superseded: int = 0
    """Runs of fits that were made anew; no longer among `tags.kind = 'cv'`."""
    closed: int = 0
    """Runs that a dead process had left running."""
    kept: Path | None = None
    """Where the rows wait, if there was no store."""


def log_study(study: Study, store: Store) -> Logged:
    """Log what the store lacks of a study, or keep all of it with the report."""
    runs = runs_of(study)
    if store.uri is not None:
        return log_runs(runs, store)
    return Logged(
        experiment=runs.experiment,
        where=store.shown,
        why=store.why,
        look=look(store),
        kept=keep_runs(runs, study.report),
    )


def log_kept(report: Path, store: Store) -> Logged:
    """Log what was kept in a report's folder."""
    if store.uri is None:
        raise ValueError(f"there is still no store: {store.why}; set {URI} to a server")
    return log_runs(read_runs(report), store)


def log_runs(runs: Runs, store: Store) -> Logged:
    """Log what the store lacks."""
    with _alone(store):
        client = _client(store)
        experiment = _experiment(client, runs, store)
        found = _all_runs(client, experiment)
        closed = _close_left_running(client, found)
        there = _matches(runs, found)
        replaced = _supersede(client, runs, found, there)
        wanted = [run for run in runs.runs if not _is_whole(run, there.get(run.key))]
        created = sum(run.key not in there for run in wanted)
        if wanted:
            shelf = _Shelf(client=client, experiment=experiment, there=there)
            _write(shelf, runs.runs[0], wanted)
    return Logged(
        experiment=runs.experiment,
        where=store.shown,
        why=store.why,
        look=look(store, experiment),
        created=created,
        updated=len(wanted) - created,
        unchanged=len(runs.runs) - len(wanted),
        superseded=replaced,
        closed=closed,
    )


# ---- the store ---------------------------------------------------------------------------------


@contextmanager
def _alone(store: Store) -> Generator[None, None, None]:
    """One process at a time, where the store is on this machine."""
    if store.folder is None:
        yield
        return
    store.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(store.folder / "logging.lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(
            f"another process is logging to {store.shown}; wait for it or end it"
        ) from None


def _client(store: Store) -> "MlflowClient":
    """One for everything; it makes the database where there is none."""
    os.environ.update(SETTINGS)
    os.environ.setdefault(*RETRIES)
    from mlflow import MlflowClient
    from mlflow.telemetry import set_telemetry_client

    set_telemetry_client()  # off, if MONAI imported MLflow before the settings were made
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return MlflowClient(store.uri)


def _experiment(client: "MlflowClient", runs: Runs, store: Store) -> str:
    """The id of the study's experiment."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(runs.experiment)
    except MlflowException as error:
        raise ValueError(
            f"MLflow at {store.shown} does not answer ({error.error_code}); start it, or correct "
            f"or unset {URI}"
        ) from error
    if found is None:
        made = client.create_experiment(runs.experiment, artifact_location=store.artifacts)
        found = client.get_experiment(made)
    if found.lifecycle_stage != "active":
        raise ValueError(
            f"the experiment {runs.experiment!r} was deleted in {store.shown}; restore it with "
            f"`mlflow experiments restore -x {found.experiment_id}`, or give the study another name"
        )
    for name, value in _experiment_tags(runs, found.experiment_id).items():
        if found.tags.get(name) != value:
            client.set_experiment_tag(found.experiment_id, name, value)
    return str(found.experiment_id)


def _experiment_tags(runs: Runs, experiment: str) -> dict[str, str]:
    """What the experiment's page says and offers: an ordering with columns for every chart."""
    offered = charts(runs)
    links = [f"[{name}](#{_page(experiment, name)})" for name in offered]
    note = f"{EVIDENCE.get(runs.evidence, runs.evidence)} Dice gaps, best first: {', '.join(links)}"
    views = {f"mlflow.sharedViewState.{name}": _view(chosen) for name, chosen in offered.items()}
    kind = {"mlflow.experimentKind": "custom_model_development"}  # the other kind is chat agents
    return {"evidence": runs.evidence, "mlflow.note.content": note, **kind, **views}


def _view(chosen: str) -> str:
    columns = [f"params.`{name}`" for name in ("init", "arch")]
    columns += [f"metrics.`{name}`" for name in ("dice", "dice_sd", "gap", "gap_lo", "gap_hi", "p")]
    ordering = {"orderByKey": "metrics.`gap`", "orderByAsc": False}
    return json.dumps({"searchFilter": chosen, **ordering, "selectedColumns": columns})


def _page(experiment: str, view: str) -> str:
    shown = f"viewStateShareKey={view}&workflowType=machine_learning"
    return f"/experiments/{experiment}/runs?{shown}"


def look(store: Store, experiment: str = "") -> str:
    """The address or the command that shows an experiment, or all that is in the store."""
    if store.uri is None:
        return f"set {URI} and run `synth-ct report ROOT --to-mlflow`"
    if store.uri.startswith("http"):
        return f"{store.shown}/#/experiments/{experiment}/runs" if experiment else store.shown
    return f"mlflow ui --backend-store-uri {shlex.quote(store.shown)} --host 127.0.0.1"


# ---- what is there already ---------------------------------------------------------------------


def _all_runs(client: "MlflowClient", experiment: str) -> list[Any]:
    found: list[Any] = []
    token: str | None = ""
    while token is not None:
        page = client.search_runs([experiment], max_results=1000, page_token=token or None)
        found += page
        token = page.token or None
    return found


def _close_left_running(client: "MlflowClient", found: list[Any]) -> int:
    left = [run for run in found if run.info.status == "RUNNING"]
    for run in left:
        client.set_terminated(run.info.run_id, "KILLED")
    return len(left)


def _matches(runs: Runs, found: list[Any]) -> dict[str, Any]:
    """key -> the run that is there, whole or not."""
    ours = {run.key for run in runs.runs}
    below: dict[str | None, set[str]] = {}
    for one in found:
        below.setdefault(one.data.tags.get(PARENT), set()).add(one.data.tags.get("key", ""))
    there: dict[str, Any] = {}
    for run in runs.runs:
        if run.parent and run.parent not in there:
            continue
        above = there[run.parent].info.run_id if run.parent else None
        for one in found:
            same = one.data.tags.get("key") == run.key and one.data.tags.get(PARENT) == above
            # A parent grows with its study; of fits that were made anew it is not the parent.
            if same and below.get(one.info.run_id, set()) <= ours and _same_params(run, one):
                there[run.key] = one
    return there


def _same_params(run: Run, one: Any) -> bool:
    """MLflow never lets a parameter change."""
    return {**run.params, **one.data.params} == dict(run.params)


def _is_whole(run: Run, one: Any | None) -> bool:
    if one is None or one.info.status != "FINISHED":
        return False
    tags: dict[str, str] = one.data.tags
    return tags.get("content") == run.content and tags.get("kind") == run.kind


def _supersede(client: "MlflowClient", runs: Runs, found: list[Any], there: dict[str, Any]) -> int:
    """Parents that this study has made anew leave the filter, and stay to be looked at."""
    cells = {run.key for run in runs.runs if run.kind == "cv"}
    current = {one.info.run_id for one in there.values()}
    old = [
        one.info.run_id
        for one in found
        if one.data.tags.get("kind") == "cv" and one.data.tags.get("key") in cells
    ]
    replaced = [run_id for run_id in old if run_id not in current]
    for run_id in replaced:
        client.set_tag(run_id, "kind", SUPERSEDED)
    return len(replaced)


# ---- writing -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shelf:
    """Where runs are put."""

    client: "MlflowClient"
    experiment: str
    there: dict[str, Any]
    """key -> the run that is there, whole or not."""


def _write(shelf: _Shelf, study: Run, wanted: list[Run]) -> None:
    """The study is first to begin and last to end: what is not whole does not look whole."""
    with _running(shelf, study) as whole, progress("MLflow", len(wanted)) as tick:
        for run in wanted:
            if run is not study:
                with _running(shelf, run) as one:
                    _fill(shelf.client, run, one)
            tick()
        _fill(shelf.client, study, whole)


@contextmanager
def _running(shelf: _Shelf, run: Run) -> Generator[Any, None, None]:
    """Begin it, or take it up again; end it FINISHED, FAILED or KILLED, whatever happens."""
    if run.key in shelf.there:
        run_id = shelf.there[run.key].info.run_id
        shelf.client.update_run(run_id, status="RUNNING", name=run.name)
    else:
        above = {PARENT: shelf.there[run.parent].info.run_id} if run.parent else {}
        tags = {"key": run.key, "kind": run.kind, **above}
        made = shelf.client.create_run(shelf.experiment, tags=tags, run_name=run.name)
        shelf.there[run.key], run_id = made, made.info.run_id
    status = "KILLED"
    try:
        yield shelf.there[run.key]
        status = "FINISHED"
    finally:
        if isinstance(sys.exception(), Exception):
            status = "FAILED"
        shelf.client.set_terminated(run_id, status)


def _fill(client: "MlflowClient", run: Run, one: Any) -> None:
    """Numbers, tags, data sets and files. What is there already stays as it is."""
    from mlflow.entities import Param, RunTag

    run_id = one.info.run_id
    tags = {**run.tags, "kind": run.kind, "content": run.content}
    first, *more = list(_in_batches(_points(run, one))) or [[]]
    client.log_batch(
        run_id,
        metrics=first,
        params=[Param(name, value) for name, value in run.params.items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
    for points in more:
        client.log_batch(run_id, metrics=points)
    if run.datasets:
        client.log_inputs(run_id, [_input(used) for used in run.datasets])
    if run.files:
        _upload(client, run_id, run)


def _points(run: Run, one: Any) -> list[Any]:
    """The curve bears the time at which the run began: logged twice, it is there once."""
    from mlflow.entities import Metric

    now, begun = int(time.time() * 1000), one.info.start_time
    changed = {n: v for n, v in run.metrics.items() if one.data.metrics.get(n) != v}
    return [
        *(Metric(name, value, now, 0) for name, value in changed.items()),
        *(Metric(name, value, begun, step) for step, name, value in run.curve),
    ]


def _in_batches(points: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(points), POINTS_TOGETHER):
        yield points[start : start + POINTS_TOGETHER]


def _input(used: Used) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=used.name,
        digest=used.digest[:DIGEST],
        source_type="code",
        source=json.dumps({"tags": {}}),
        profile=json.dumps(dict(used.profile)),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", used.context)])


def _upload(client: "MlflowClient", run_id: str, run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in run.files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        client.log_artifacts(run_id, folder)

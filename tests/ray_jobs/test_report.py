"""The report of a made-up root: what a run leaves, without running anything."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import corpora
import fits_by_hand
import mlflow_study
import pytest
from fits import make_labelled
from little_steps import Little, task, write

from finetune.results import write_results
from ray_jobs.cli import app
from ray_jobs.console import guarded
from ray_jobs.costs import COSTS, Spent, elapsed, note_cost, read_costs
from ray_jobs.fold_steps import RESULTS, TABLE, protocol
from ray_jobs.graph import run_all
from ray_jobs.plan import Result
from ray_jobs.recipes import Run, tiny
from ray_jobs.report_gather import costs, meaning
from ray_jobs.report_step import RECIPE, demanded, keep_recipe, study_of
from ray_jobs.steps import steps_of
from reports.comparable import ENCODER, name_of
from reports.mlflow_store import URI
from reports.protocol import NAME as PROTOCOL
from reports.protocol import protocol_stage
from synth_ct.corpus.layout import SOURCES
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.effort import Effort
from synth_ct.kit.place import CURVE
from synth_ct.kit.quarantine import SetAside, write_report
from synth_ct.kit.recipe import changed

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own libraries
DOCS = Path(__file__).parents[2] / "docs"


def synth_ct(*arguments: object) -> int:
    return guarded(lambda given: app(args=given, standalone_mode=False), [*map(str, arguments)])


def small_run() -> Run:
    """`tiny` on one data set with one network and two folds."""
    run = tiny()
    assert run.folds is not None
    folds = changed(
        run.folds,
        datasets={"bcv": changed(run.folds.datasets["bcv"], folds=2)},
        networks={"unet": run.folds.networks["unet"]},
    )
    return changed(run, folds=folds)


def make_root(root: Path) -> Run:
    """Cohorts, corpora, encoders and fits that nobody computed."""
    run = small_run()
    assert run.folds is not None
    assert run.pretraining is not None
    frozen = protocol(run.folds, run.pretraining)
    fits = fits_by_hand.study(frozen, evidence="plumbing")
    with publish(root / PROTOCOL, _record(PROTOCOL, frozen.model_dump(mode="json"))) as workspace:
        protocol_stage(frozen, workspace, {}, Effort())
    with publish(root / RESULTS, _record(RESULTS, {"fits": len(fits)})) as workspace:
        write_results(workspace / TABLE, fits)
    for fit in fits:
        folder = root / name_of(fit)
        folder.mkdir()
        rows = ({"step": n, "rate": 0.1, "finetune/total": 1 / n} for n in range(1, 4))
        (folder / CURVE).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        for name in fit.inputs:
            if name.startswith(ENCODER):
                mlflow_study.make_encoder(root / name)
    for step in demanded_inputs(run, root):
        _make_source(root / step)
    keep_recipe(run, root)
    return run


def demanded_inputs(run: Run, root: Path) -> list[str]:
    (step,) = (each for each in steps_of(run) if each.stage == "report")
    return [each.name for each in step.inputs if not (root / each.name).exists()]


def _make_source(folder: Path) -> None:
    if folder.parent.name == "corpus":
        corpora.make_corpus(folder, range(20))
    elif folder.name == "bcv":
        make_labelled(folder, patients=1)
    else:
        with publish(folder, _record(folder.name, {})) as workspace:
            write_report(workspace, [SetAside(code="E_HU_RANGE", file="a/b.nii", cause="not HU")])


def _record(kind: str, recipe: Mapping[str, Any]) -> Record:
    return Record(kind=kind, recipe=dict(recipe))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished root with its report."""
    root = tmp_path_factory.mktemp("made") / "root"
    root.mkdir()
    make_root(root)
    os.environ.pop(URI, None)
    assert synth_ct("report", root, "--json") == 0
    return root


def numbers(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "report" / "report.json").read_text())
    return found


def test_it_tells_of_every_fit_and_every_gap(made: Path) -> None:
    told = numbers(made)
    assert set(told) == {"evidence", "fits", "gaps", "quarantine", "cost", "provenance"}
    assert told["evidence"] == "plumbing"
    assert len(told["fits"]) == 4 * 2
    run = {(row["arm"], row["baseline"]) for row in told["gaps"] if row["gap"] is not None}
    assert run >= {("synthetic", baseline) for baseline in ("scratch", "real", "primitives")}
    assert any(row["baseline"] == "drr" and row["gap"] is None for row in told["gaps"])
    assert {"E_HU_RANGE", "E_IMG_TRUNCATED"} <= {row["code"] for row in told["quarantine"]}
    assert {"cohorts/ct", "corpus/synthetic", PROTOCOL} <= set(told["provenance"]["fingerprints"])


def test_the_page_has_curves_corpora_and_what_was_set_aside(made: Path) -> None:
    page = (made / "report" / "report.html").read_text()
    for shown in ("lungs, median HU", "values that are not Hounsfield units", "fine-tuning loss"):
        assert shown in page, shown
    assert "not HU" not in page  # a cause may name a file


def test_a_second_call_changes_nothing_and_says_what_there_is(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in made.rglob("*") if p.is_file()}
    assert synth_ct("report", made) == 0
    assert {p: p.stat().st_mtime_ns for p in made.rglob("*") if p.is_file()} == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "This run answers no scientific question."
    assert sum("against scratch" in line and "points" in line for line in lines) == 1
    assert lines[-2] == f"report: {made}/report/report.html"
    assert lines[-1].startswith("MLflow: mlflow ui --backend-store-uri sqlite:///")
    assert synth_ct("report", made, "--json") == 0
    assert json.loads(capsys.readouterr().out) == numbers(made)


def test_mlflow_holds_the_study_and_is_not_filled_twice(made: Path) -> None:
    from mlflow import MlflowClient

    assert synth_ct("report", made, "--to-mlflow") == 0
    client = MlflowClient(f"sqlite:///{made.resolve()}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert len(client.search_runs([experiment.experiment_id])) == 1 + 4 + 4 * 2


def test_made_anew_it_gives_the_same_fits_and_gaps(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:1")  # no store: the rows are kept
    for name in ("fits", "corpus", "cohorts", "encoder"):
        shutil.copytree(made / name, tmp_path / name)
    keep_recipe(small_run(), tmp_path)
    row: dict[str, Any] = {"name": "a", "stage": "folds", "seconds": 7200.0, "ended": 1.0}
    row |= {"device": "H", "devices": 2.0}
    (tmp_path / COSTS).write_text(json.dumps(row))
    assert synth_ct("report", tmp_path) == 0
    first, second = numbers(made), numbers(tmp_path)
    assert second["fits"] == first["fits"]
    assert second["gaps"] == first["gaps"]
    assert [cost["device_hours"] for cost in second["cost"]] == [4.0]
    assert (tmp_path / "report" / "mlflow_runs.parquet").exists()
    page = (tmp_path / "report" / "report.html").read_text()
    assert "no time was noted of these stages: cohorts, generator, corpus, encoder." in page


def test_without_a_store_asking_for_mlflow_is_a_mistake(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:1")
    assert synth_ct("report", made, "--to-mlflow") == 1
    assert "no store" in capsys.readouterr().err


def test_a_root_without_fits_is_told_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert synth_ct("report", tmp_path) == 1
    assert f"`synth-ct run RECIPE --root {tmp_path}`" in capsys.readouterr().err
    keep_recipe(small_run(), tmp_path)
    assert synth_ct("report", tmp_path) == 1
    assert f"`synth-ct run {tmp_path / RECIPE} --root {tmp_path}`" in capsys.readouterr().err
    keep_recipe(changed(small_run(), folds=None), tmp_path)
    with pytest.raises(ValueError, match="compares nothing"):
        demanded(steps_of(changed(small_run(), folds=None)), tmp_path)
    assert not (tmp_path / "report").exists()


def test_a_report_of_another_recipe_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("fits", "corpus", "cohorts", "encoder", "report"):
        (tmp_path / name).symlink_to(made / name)
    keep_recipe(changed(small_run(), seed=9), tmp_path)
    assert synth_ct("report", tmp_path) == 1
    assert "recipe.seed" in capsys.readouterr().err


def test_a_run_ends_with_the_page_and_the_way_into_mlflow(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last = steps_of(small_run())[-1:]
    monkeypatch.setattr("ray_jobs.steps.steps_of", lambda run: last)
    command = ["run", made / RECIPE, "--root", made, "--workers", 0]
    assert synth_ct(*command) == 0
    page, shown = capsys.readouterr().out.splitlines()[-2:]
    assert page == f"report: {made}/report/report.html"
    assert shown.startswith("MLflow: mlflow ui ")
    assert synth_ct(*command, "--json") == 0
    assert json.loads(capsys.readouterr().out)["report"] == f"{made}/report/report.html"
    assert synth_ct(*command, "--json", "--until", "folds") == 0
    assert json.loads(capsys.readouterr().out)["report"] is None
    monkeypatch.setenv(URI, "file:///tmp/runs")
    assert synth_ct(*command) == 1
    assert URI in capsys.readouterr().err


def test_mlflow_is_told_which_corpora_and_encoders_there_were(made: Path) -> None:
    study = study_of(small_run(), made)
    assert {corpus.name for corpus in study.corpora} == {"corpus/synthetic", "corpus/real"}
    assert len(study.encoders) == 4
    assert all(len(rows) == 3 for rows in study.curves.values())


# ---- costs -------------------------------------------------------------------------------------


def test_what_is_made_is_noted_and_what_is_done_is_not(tmp_path: Path) -> None:
    steps = [replace(task("fits/a", write), where="driver"), task("fits/b", write)]
    for _ in range(2):
        run_all(steps, tmp_path, lambda name: Effort(workers=0))
    (tmp_path / COSTS).write_bytes((tmp_path / COSTS).read_bytes() + b'{"name": "torn')
    more = task("fits/c", write, number=1, gpus=0.0)
    run_all([*steps, more], tmp_path, lambda name: Effort(workers=0))
    assert [spent.name for spent in read_costs(tmp_path)] == ["fits/a", "fits/b", "fits/c"]
    assert {(s.stage, s.device, s.devices) for s in read_costs(tmp_path)} == {("folds", "cpu", 1.0)}


def test_a_step_on_two_gpus_costs_twice_its_time(tmp_path: Path) -> None:
    step = task("fits/a", write, gpus=2.0)
    with publish(tmp_path / step.name, _record(step.name, Little().model_dump())):
        pass
    note_cost(tmp_path, step, Result(name=step.name, status="made", seconds=9.0, folder=""))
    (cost,) = costs(read_costs(tmp_path))
    assert (cost.seconds, cost.device_seconds) == (9.0, 18.0)


def spent(begun: float, ended: float) -> Spent:
    return Spent(
        name="a", stage="folds", seconds=ended - begun, ended=ended, device="cpu", devices=1.0
    )


def test_side_by_side_takes_the_time_of_one() -> None:
    assert elapsed([spent(0.0, 10.0), spent(2.0, 8.0), spent(5.0, 12.0), spent(20.0, 21.0)]) == 13
    (cost,) = costs([spent(0.0, 10.0), spent(0.0, 10.0)])
    assert (cost.seconds, cost.device_seconds) == (10, 20)


def test_every_documented_code_of_an_input_has_a_meaning() -> None:
    inputs, _, _ = (DOCS / "quarantine.md").read_text().partition("## What cannot be seen")
    codes = [word for word in inputs.split("`") if word.startswith("E_") and "<" not in word]
    assert len(codes) > 40
    assert [code for code in codes if "docs" in meaning(code)] == []


def test_sources_stay_on_this_machine(made: Path) -> None:
    said = "".join(p.read_text() for p in (made / "report").iterdir() if p.suffix != ".parquet")
    assert str(made) not in said
    assert SOURCES not in said

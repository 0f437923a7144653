"""A study in MLflow: every fit once under its parent, whatever happened on the way."""

import getpass
import json
import shutil
import socket
import sqlite3
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from mlflow_study import ARCHS, ARMS, DATASETS, DIGEST, level, made_anew, make_study

from reports import mlflow_sink
from reports.mlflow_kept import keep_runs, read_runs
from reports.mlflow_runs import Study, charts, runs_of
from reports.mlflow_sink import PARENT, log_kept, log_study
from reports.mlflow_store import Store, store_for

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own libraries
CELL = ("bcv", "swin", "synthetic")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without runs: to make one takes seconds."""
    root = tmp_path_factory.mktemp("empty")
    mlflow_sink._client(store_for_in(root))
    return root / "mlflow" / "mlflow.db"


def store_for_in(root: Path) -> Store:
    store = store_for(root, {})
    assert store.folder is not None, store.why
    store.folder.mkdir(parents=True, exist_ok=True)
    return store


@pytest.fixture
def store(tmp_path: Path, empty: Path) -> Store:
    found = store_for_in(tmp_path / "my root")
    shutil.copy(empty, tmp_path / "my root" / "mlflow" / "mlflow.db")
    return found


@pytest.fixture
def small(tmp_path: Path) -> Study:
    """One data set and one network."""
    return make_study(tmp_path, datasets=("bcv",), archs=("swin",))


def runs_in(store: Store) -> list[Any]:
    client = mlflow_sink._client(store)
    experiment = client.get_experiment_by_name("tiny")
    return mlflow_sink._all_runs(client, experiment.experiment_id)


def of_kind(runs: list[Any], kind: str) -> list[Any]:
    return [run for run in runs if run.data.tags["kind"] == kind]


def rows_in(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    assert store.folder is not None
    with sqlite3.connect(store.folder / "mlflow.db") as database:
        names = [
            n for (n,) in database.execute("select name from sqlite_master where type='table'")
        ]
        return {name: database.execute(f"select * from {name}").fetchall() for name in names}


def test_every_fit_is_under_its_parent_and_a_second_time_adds_nothing(
    tmp_path: Path, store: Store
) -> None:
    study = make_study(tmp_path)
    logged = log_study(study, store)
    assert (logged.created, logged.unchanged) == (49, 0)
    found = runs_in(store)
    assert {run.info.status for run in found} == {"FINISHED"}
    parents = {run.info.run_id: run for run in of_kind(found, "cv")}
    assert sorted(run.info.run_name for run in parents.values()) == sorted(
        f"{d}/{a}/{arm}" for d in DATASETS for a in ARCHS for arm in ARMS
    )
    children = {run.data.tags["key"]: run for run in of_kind(found, "fold")}
    assert set(children) == {fit.fingerprint for fit in study.fits}
    for fit in study.fits:
        child = children[fit.fingerprint]
        above = parents[child.data.tags[PARENT]].data.params
        assert (above["dataset"], above["arch"], above["init"]) == (fit.dataset, fit.arch, fit.arm)
        assert child.info.run_name == f"f{fit.fold} s{fit.seed}"
        assert child.data.params["steps"] == "6"
        expected = level((fit.dataset, fit.arch, fit.arm)) + 0.01 * fit.fold + 0.01
        assert child.data.metrics["dice"] == pytest.approx(expected)
        assert child.data.metrics["organ_r_kidney"] == pytest.approx(expected)
        (encoder,) = (p for n, p in fit.inputs.items() if n.startswith("encoder/"))
        assert child.data.tags["encoders"] == encoder
        assert child.data.tags["corpora"] == (DIGEST if fit.arm == "synthetic" else "")
    before = rows_in(store)
    again = log_study(study, store)
    assert (again.created, again.updated, again.unchanged) == (0, 0, 49)
    assert rows_in(store) == before


def test_a_parent_holds_dice_gap_data_sets_and_what_its_encoder_was(
    small: Study,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("synth_ct.kit.progress.LINE_EVERY_S", 0.0)
    created = log_study(small, store).created
    assert f"MLflow  {created}/{created}" in capsys.readouterr().err, "how far it is, is told"
    found = {run.info.run_name: run for run in runs_in(store)}
    synthetic, scratch = found["bcv/swin/synthetic"], found["bcv/swin/scratch"]
    cell = next(c for c in small.comparison.cells if c.arm == "synthetic")
    expected = {"dice": cell.dice, "dice_sd": 0.02, "nsd": 0.5, "gap": 5.0, "gap_lo": 2.0}
    expected |= {"gap_hi": 8.0, "p": 0.01, "p_holm": 0.04, "organ_spleen": cell.dice}
    assert synthetic.data.metrics == {**expected, "organ_r_kidney": cell.dice}
    assert "gap" not in scratch.data.metrics
    used = {i.dataset.name: i.dataset for i in synthetic.inputs.dataset_inputs}
    assert set(used) == {"cohorts/bcv", "corpus/synthetic"}
    assert used["corpus/synthetic"].digest == DIGEST[:16]
    assert json.loads(used["corpus/synthetic"].profile)["digest"] == DIGEST
    client = mlflow_sink._client(store)
    encoder = "encoder/swin-synthetic-s0"
    names = {f.path for f in client.list_artifacts(synthetic.info.run_id, encoder)}
    assert names == {f"{encoder}/adaptation.json", f"{encoder}/record.json"}
    study = {f.path for f in client.list_artifacts(found["study"].info.run_id)}
    assert study == {"recipe.toml", "report", "tables"}


def test_curves_are_there_point_by_point_but_no_more_than_a_page_can_draw(
    tmp_path: Path, store: Store
) -> None:
    study = make_study(tmp_path, ("bcv",), ("swin",), ("scratch",), steps=950)
    log_study(study, store)
    child = of_kind(runs_in(store), "fold")[0]
    history = mlflow_sink._client(store).get_metric_history(child.info.run_id, "train/total")
    points = {m.step: m.value for m in history}
    assert len(history) == len(points) == 96
    assert (min(points), max(points)) == (0, 949)
    assert points[10] == 1 / 11


@pytest.mark.parametrize(("kind", "status"), [(KeyboardInterrupt, "KILLED"), (OSError, "FAILED")])
def test_what_is_interrupted_leaves_nothing_running_and_is_completed_once(
    small: Study,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[BaseException],
    status: str,
) -> None:
    fill, count = mlflow_sink._fill, Counter[str]()

    def stopped(client: Any, run: Any, one: Any) -> None:
        fill(client, run, one)
        count["runs"] += 1
        if count["runs"] == 5:
            raise kind

    monkeypatch.setattr(mlflow_sink, "_fill", stopped)
    with pytest.raises(kind):
        log_study(small, store)
    monkeypatch.undo()
    found = Counter(run.info.status for run in runs_in(store))
    assert found == {"FINISHED": 4, status: 2}, "the one that was written, and the study"
    logged = log_study(small, store)
    assert (logged.created, logged.closed) == (13 - 6, 0)
    after = runs_in(store)
    assert len(after) == 13
    assert {run.info.status for run in after} == {"FINISHED"}
    client = mlflow_sink._client(store)
    for child in of_kind(after, "fold"):
        assert len(client.get_metric_history(child.info.run_id, "train/total")) == 20


def test_what_a_dead_process_left_running_is_closed_as_killed(small: Study, store: Store) -> None:
    log_study(small, store)
    client = mlflow_sink._client(store)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    left = client.create_run(experiment, tags={"key": "a fit of old", "kind": "fold"})
    assert log_study(small, store).closed == 1
    assert client.get_run(left.info.run_id).info.status == "KILLED"


def test_a_grown_study_adds_its_new_fits_to_the_parents_that_are_there(
    tmp_path: Path, small: Study, store: Store
) -> None:
    log_study(small, store)
    before = {run.info.run_id for run in runs_in(store)}
    grown = make_study(tmp_path, ("bcv",), ("swin",), seeds=(0, 1))
    better = [replace(cell, dice=0.9) for cell in grown.comparison.cells]
    grown = replace(grown, comparison=replace(grown.comparison, cells=tuple(better)))
    logged = log_study(grown, store)
    assert (logged.created, logged.superseded) == (10, 0)
    after = runs_in(store)
    assert before < {run.info.run_id for run in after}
    assert len(of_kind(after, "cv")) == 2
    assert {run.data.metrics["dice"] for run in of_kind(after, "cv")} == {0.9}
    assert {run.data.tags["seeds"] for run in of_kind(after, "cv")} == {"0 1"}


def test_fits_made_anew_get_a_new_parent_and_the_old_one_leaves_the_filter(
    small: Study, store: Store
) -> None:
    log_study(small, store)
    logged = log_study(made_anew(small, CELL), store)
    assert (logged.created, logged.superseded) == (6, 1)
    found = runs_in(store)
    assert Counter(run.data.tags["kind"] for run in found if PARENT not in run.data.tags) == {
        "study": 1,
        "cv": 2,
        "superseded": 1,
    }
    back = log_study(small, store)
    assert (back.created, back.superseded) == (0, 1)
    assert len(of_kind(runs_in(store), "cv")) == 2


def test_nothing_of_this_machine_is_logged_and_nothing_is_sent(
    tmp_path: Path, small: Study, store: Store
) -> None:
    from mlflow.telemetry import get_telemetry_client

    log_study(small, store)
    assert get_telemetry_client() is None
    rows = rows_in(store)
    where = {"experiments", "runs"}  # MLflow must say there where artifacts lie
    said = json.dumps(
        {name: found for name, found in rows.items() if name not in where}, default=str
    )
    assert str(tmp_path) not in said
    assert socket.gethostname() not in said
    names = {name for run in runs_in(store) for name in run.data.tags if name.startswith("mlflow.")}
    assert names == {"mlflow.runName", PARENT}
    assert {run.info.user_id for run in runs_in(store)} == {"unknown"} != {getpass.getuser()}


def test_two_processes_do_not_log_at_once(small: Study, store: Store) -> None:
    assert store.folder is not None
    with (
        FileLock(store.folder / "logging.lock"),
        pytest.raises(ValueError, match="another process is logging"),
    ):
        log_study(small, store)


def test_a_deleted_experiment_is_not_written_to_in_secret(small: Study, store: Store) -> None:
    log_study(small, store)
    client = mlflow_sink._client(store)
    client.delete_experiment(client.get_experiment_by_name("tiny").experiment_id)
    with pytest.raises(ValueError, match="mlflow experiments restore -x"):
        log_study(small, store)


def test_a_server_that_is_not_there_is_named_without_its_password(
    small: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = Store(uri="http://me:secret@127.0.0.1:9", why="a test")
    with pytest.raises(ValueError, match=r"http://127.0.0.1:9 does not answer") as caught:
        log_study(small, away)
    assert "secret" not in str(caught.value)


# ---- kept for later ----------------------------------------------------------------------------


def test_without_a_store_everything_is_kept_and_logged_later_as_it_would_have_been(
    small: Study, store: Store
) -> None:
    nowhere = store_for(small.report, {"RAY_ADDRESS": "10.0.0.1:6379"})
    logged = log_study(small, nowhere)
    assert logged.kept == small.report / "mlflow_runs.parquet"
    assert "RAY_ADDRESS" in logged.why
    assert "MLFLOW_TRACKING_URI" in logged.look
    assert read_runs(small.report) == runs_of(small)
    assert log_kept(small.report, store).created == 13
    assert log_study(small, store).unchanged == 13
    with pytest.raises(ValueError, match="still no store"):
        log_kept(small.report, nowhere)


def test_where_nothing_was_kept_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no mlflow_runs.parquet"):
        read_runs(tmp_path)


# ---- which store -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "uri"),
    [
        ({}, "sqlite:///{root}/mlflow/mlflow.db"),
        ({"RAY_ADDRESS": "auto"}, None),
        ({"RAY_ADDRESS": "auto", "MLFLOW_TRACKING_URI": "http://a:5000/"}, "http://a:5000"),
        ({"MLFLOW_TRACKING_URI": "postgresql+psycopg2://a/b"}, "postgresql+psycopg2://a/b"),
    ],
)
def test_the_environment_decides_where(
    tmp_path: Path, environ: dict[str, str], uri: str | None
) -> None:
    found = store_for(tmp_path, environ, mounts=tmp_path / "none")
    assert found.uri == (uri and uri.format(root=tmp_path))
    assert found.why


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "databricks"])
def test_stores_that_lose_or_refuse_runs_are_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ValueError, match="or unset it"):
        store_for(tmp_path, {"MLFLOW_TRACKING_URI": uri})


@pytest.mark.parametrize(
    ("kind", "local"),
    [("ext4", True), ("overlay", True), ("fuse.fuse-overlayfs", True), ("nfs4", False),
     ("fuse.sshfs", False), ("lustre", False)],
)  # fmt: skip
def test_sqlite_is_for_disks_of_this_machine(tmp_path: Path, kind: str, local: bool) -> None:
    mounts = tmp_path / "mounts"
    root = tmp_path / "a disk"
    mounts.write_text(
        f"/dev/a / ext4 rw 0 0\nhost:/x {str(root).replace(' ', chr(92) + '040')} {kind} rw 0 0\n"
    )
    found = store_for(root / "run", {}, mounts)
    assert (found.uri is not None) == local
    assert local or kind in found.why


# ---- what is logged ----------------------------------------------------------------------------


def test_names_are_short_and_no_chart_has_more_than_ten_bars(tmp_path: Path) -> None:
    eight = ("scratch", "real", "synthetic", "primitives", "real_degraded", "drr", "prior_only")
    runs = runs_of(make_study(tmp_path, arms=(*eight, "mixed"), datasets=(*DATASETS, "our_own_ct")))
    parents = [run for run in runs.runs if run.kind == "cv"]
    assert len({run.name for run in parents}) == len(parents) == 48
    assert max(len(run.name) for run in runs.runs) <= 22
    assert set(charts(runs)) == {f"{d}-{a}" for d in (*DATASETS, "our_own_ct") for a in ARCHS}
    few = runs_of(make_study(tmp_path, arms=eight[:4]))
    assert charts(few) == {
        "bcv": "tags.kind = 'cv' and params.dataset = 'bcv'",
        "spleen": "tags.kind = 'cv' and params.dataset = 'spleen'",
    }


def test_a_fit_that_cannot_be_traced_to_its_volumes_is_refused(small: Study) -> None:
    with pytest.raises(ValueError, match=r"corpus/synthetic.*list every corpus"):
        runs_of(replace(small, corpora=()))
    with pytest.raises(ValueError, match=r"encoder/swin-scratch-s0.*where it lies"):
        runs_of(replace(small, encoders={}))


def test_kept_runs_are_the_same_to_the_byte_of_their_files(small: Study, tmp_path: Path) -> None:
    runs = runs_of(small)
    keep_runs(runs, tmp_path)
    kept = read_runs(tmp_path)
    assert [run.content for run in kept.runs] == [run.content for run in runs.runs]
    assert kept.runs[0].files["report/gaps.png"] == (small.report / "gaps.png").read_bytes()

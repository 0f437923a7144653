"""A real tracking server, logged to over HTTP, and its page in a real browser."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, browser, chromium
from mlflow_study import make_study

from reports.mlflow_runs import Study
from reports.mlflow_sink import log_study
from reports.mlflow_store import Store, store_for

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own libraries
WIDTH, HEIGHT = 1500, 900
LINES = "(document.body?.innerText ?? '').split('\\n')"
DRAWN = "[...document.querySelectorAll('.plotly text')].some(t => t.textContent === '5.00')"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """What `MLFLOW_TRACKING_URI` of a server of our own gives."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, env={**os.environ, **quiet}, cwd=folder, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, server, folder / "server.log")
        yield store_for(folder, {"MLFLOW_TRACKING_URI": address})
    finally:
        server.terminate()  # ends its workers, too
        server.wait(30)


def wait_for(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"no server: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Study:
    """One data set, two networks, two arms; logged."""
    made = make_study(tmp_path_factory.mktemp("study"), datasets=("bcv",))
    logged = log_study(made, store)
    assert (logged.created, logged.look) == (25, f"{store.uri}/#/experiments/1/runs")
    return made


def test_a_server_holds_what_a_database_would_and_a_second_time_adds_nothing(
    study: Study, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    again = log_study(study, store)
    assert (again.created, again.updated, again.unchanged) == (0, 0, 25)
    assert capsys.readouterr().out == "", "standard output is for answers"
    client = MlflowClient(store.uri)
    found = client.search_runs(["1"], "tags.kind = 'cv'", order_by=["metrics.gap DESC"])
    assert [run.info.run_name for run in found[2:]] == ["bcv/unet/scratch", "bcv/swin/scratch"]
    assert [run.data.metrics.get("gap") for run in found] == [5.0, 5.0, None, None]
    for parent in found:
        chosen = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        assert len(client.search_runs(["1"], chosen)) == 5
    whole = client.search_runs(["1"], "tags.kind = 'study'")[0].info.run_id
    file = client.download_artifacts(whole, "recipe.toml", str(tmp_path))
    assert Path(file).read_text() == study.recipe


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if chromium() is None:
        pytest.skip("no Chromium here: install it to open MLflow's page")
    with browser(tmp_path_factory.mktemp("profile")) as found:
        found.call(
            "Emulation.setDeviceMetricsOverride",
            width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        # The assistant's pane would cover a quarter of the page until a person closes it.
        found.call(
            "Page.addScriptToEvaluateOnNewDocument",
            source="localStorage['mlflow.assistant.fab.autoOpenedOnFirstLoad_v1'] = 'true'",
        )
        yield found


def kept(page: Page, name: str) -> None:
    """For people: `MLFLOW_PICTURES=folder` keeps what was seen."""
    if folder := os.environ.get("MLFLOW_PICTURES"):
        time.sleep(2)
        (Path(folder) / name).write_bytes(page.picture())


def test_the_saved_view_shows_every_arm_with_its_gap_best_first(
    study: Study, store: Store, page: Page
) -> None:
    address = (
        f"{store.uri}/#/experiments/1/runs?viewStateShareKey=bcv&workflowType=machine_learning"
    )
    page.call("Page.navigate", url=address)
    page.wait(f"{LINES}.filter(line => line.startsWith('bcv/')).length === 4")
    page.wait(f"{LINES}.includes('gap_hi')")
    said = page.ask(LINES)
    names = [line for line in said if line.startswith("bcv/")]
    assert {name.split("/")[2] for name in names[:2]} == {"synthetic"}
    assert sorted(names) == sorted(
        f"bcv/{a}/{i}" for a in ("swin", "unet") for i in ("scratch", "synthetic")
    )
    assert {"dice", "gap", "gap_lo", "gap_hi"} <= set(said)
    assert any(line.startswith("PLUMBING") for line in said)
    kept(page, "mlflow-experiment.png")


def test_its_chart_draws_the_gap_and_nothing_is_fetched_from_elsewhere(
    study: Study, store: Store, page: Page
) -> None:
    query = "compareRunsMode=CHART&viewStateShareKey=bcv&workflowType=machine_learning"
    page.call("Page.navigate", url=f"{store.uri}/#/experiments/1/runs?{query}")
    page.wait(DRAWN)
    kept(page, "mlflow-charts.png")
    ids = [run["info"]["run_id"] for run in parents(store)]
    query = f"runs={json.dumps(ids)}&experiments={json.dumps(['1'])}".replace('"', "%22")
    page.call("Page.navigate", url=f"{store.uri}/#/compare-runs?{query}")
    page.wait("document.body?.innerText.includes('Comparing 4 Runs')")
    kept(page, "mlflow-compare.png")
    strange = [r for r in page.requests if not r.startswith((f"{store.uri}/", "data:", "blob:"))]
    assert set(strange) <= {"about:blank"}


def parents(store: Store) -> list[dict[str, dict[str, str]]]:
    body = json.dumps({"experiment_ids": ["1"], "filter": "tags.kind = 'cv'"}).encode()
    asked = urllib.request.Request(
        f"{store.uri}/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked) as answer:
        found: list[dict[str, dict[str, str]]] = json.load(answer)["runs"]
        return found

"""All of ChestXray2017 through the command line, as a user imports it."""

import json
from pathlib import Path

import pytest

from ray_jobs.cli import app
from ray_jobs.console import guarded
from synth_ct.kit.quarantine import read_report


@pytest.mark.real_data
@pytest.mark.chaos  # minutes
def test_the_whole_archive_is_accounted_for(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ingest", "chest-xray2017", str(real_data / "chest_xray_224")]
    command += [str(tmp_path / "out"), "--workers", "2", "--json"]
    assert guarded(lambda given: app(args=given, standalone_mode=False), command) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {k: answer[k] for k in ("total", "accepted", "quarantined", "duplicates")} == {
        "total": 5856,
        "accepted": 5824,
        "quarantined": 32,
        "duplicates": 32,
    }
    assert (answer["patients"], answer["leaking_patients"]) == (2789, 264)
    rows = read_report(tmp_path / "out")
    assert {row.code for row in rows} == {"duplicate"}
    assert all((real_data / "chest_xray_224" / row.kept).is_file() for row in rows)

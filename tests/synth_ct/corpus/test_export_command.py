"""`synth-ct corpus export`: one answer for machines, one line for mistakes."""

import json
from pathlib import Path

import pytest

from ray_jobs.cli import app
from ray_jobs.console import guarded
from ray_jobs.corpus_commands import ExportFormat
from synth_ct.corpus.export import FORMATS


def synth_ct(*arguments: object) -> int:
    return guarded(lambda given: app(args=given, standalone_mode=False), [*map(str, arguments)])


def test_the_command_offers_every_format() -> None:
    assert {each.value for each in ExportFormat} == set(FORMATS)


def test_export_answers_with_its_format_its_place_and_how_many_files(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert synth_ct("corpus", "export", corpus, out, "--to", "msd", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    files = sum(path.is_file() for path in out.rglob("*"))
    assert answer == {"format": "msd", "files": files, "out": str(out)}
    assert synth_ct("corpus", "export", corpus, out, "--to", "msd") == 1
    said = capsys.readouterr().err
    assert "exists already" in said
    assert said.count("\n") == 1
    assert synth_ct("corpus", "export", corpus, tmp_path / "bids", "--to", "bids") == 2
    assert not (tmp_path / "bids").exists()

"""`reconstruct` on the command line: what a person is told, and what goes wrong with arguments."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ray_jobs.cli import app
from ray_jobs.console import guarded
from synth_ct.pairs.disk import open_pairs


def reconstruct(*arguments: object) -> int:
    given = ["reconstruct", *map(str, arguments)]
    return guarded(lambda words: app(args=words, standalone_mode=False), given)


@pytest.fixture
def film(generator_root: Path, tmp_path: Path) -> Path:
    film_UV = open_pairs(generator_root / "cohorts/pairs").films_NUV[0]
    grey = Image.fromarray(np.rint((film_UV + 1) * 127.5).astype(np.uint8))
    grey.resize((160, 160)).save(tmp_path / "film.png")
    return tmp_path / "film.png"


def test_films_become_volumes_and_the_rest_is_listed(
    generator_root: Path, film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter.png").write_bytes(b"Dear colleague")
    given = (film, tmp_path / "letter.png", tmp_path / "out", "--model", generator_root)
    assert reconstruct(*given, "--json", "--max-quarantine", 0.5) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [v["source"] for v in answer["volumes"]] == [str(film)]
    assert [row["file"] for row in answer["quarantined"]] == [str(tmp_path / "letter.png")]
    assert (answer["scale"], answer["trained_on"]) == ("nominal", "phantoms")
    assert reconstruct(*given) == 4
    assert "SYNTHETIC. scale: nominal" in capsys.readouterr().out


def test_where_nothing_was_made_nothing_is_called_synthetic(
    generator_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere.png"
    assert reconstruct(nowhere, tmp_path / "out", "--model", generator_root) == 4
    shown = capsys.readouterr().out
    assert "no volume was made" in shown
    assert "SYNTHETIC" not in shown


def test_a_forgotten_output_folder_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b.jpeg").write_bytes(b"film")
    for given in (["a.jpeg", "b.jpeg"], ["b.jpeg"]):
        assert reconstruct(*(tmp_path / name for name in given), "--model", tmp_path) == 2
        assert "the last argument is OUT, the folder to write to" in capsys.readouterr().err
    assert (tmp_path / "b.jpeg").read_bytes() == b"film"
    assert reconstruct(tmp_path / "out", "--model", tmp_path) == 2
    assert "no RADIOGRAPH is given before the output folder" in capsys.readouterr().err


def test_nothing_is_written_into_a_finished_artifact(
    generator_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = generator_root / "generator/tiny"
    before = {path.name for path in home.iterdir()}
    assert reconstruct(tmp_path / "a.jpeg", home, "--model", generator_root) == 2
    assert "never changes; write to another folder" in capsys.readouterr().err
    assert {path.name for path in home.iterdir()} == before

"""Tables and figures of a run: every row there, quoted numbers apart, the same twice."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ray_jobs.cli import app
from ray_jobs.console import guarded
from synth_ct.evaluation.table import METRICS
from synth_ct.kit.artifact import read_record


@pytest.fixture(scope="module")
def root(generator_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, for answers are written into the root."""
    return Path(shutil.copytree(generator_root, tmp_path_factory.mktemp("evaluated") / "root"))


def evaluate(root: Path, capsys: pytest.CaptureFixture[str], *how: str) -> dict[str, object]:
    words = ["evaluate", str(root), *how, "--json"]
    assert guarded(lambda given: app(args=given, standalone_mode=False), words) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_table_1_holds_what_must_be_beaten_and_what_cannot_be(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = evaluate(root, capsys, "--table", "1", "--samples", "2")
    rows = {(row["system"], row["protocol"]): row for row in answer["rows"]}  # type: ignore[attr-defined]
    systems = {system for system, _ in rows}
    assert systems == {
        "mean_volume",
        "nearest_case",
        "prior_only",
        "xctdiff",
        "xctdiff_mean2",
        "xctdiff_other_film",
        "xctdiff_other_film_mean2",
        "autoencoder_ceiling",
    }
    assert {protocol for _, protocol in rows} == {"hu1500", "x2ct"}
    row = rows["xctdiff", "hu1500"]
    assert set(METRICS) < set(row)
    assert row["lpips"] is None
    assert "alexnet-owt-7be5be79.pth" in row["absent"]["lpips"]
    assert "2 samples a radiograph" in (root / "evaluation/table1.md").read_text()
    assert row["psnr"]["lo"] <= row["psnr"]["mean"] <= row["psnr"]["hi"]
    assert rows["mean_volume", "hu1500"]["psnr"]["mean"] > 10
    pairs = {(p["system"], p["against"]) for p in answer["paired"]}  # type: ignore[attr-defined]
    assert ("xctdiff_mean2", "xctdiff_other_film_mean2") in pairs


def test_quoted_numbers_stand_in_columns_of_their_own(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(root, capsys, "--table", "1", "--samples", "2")
    lines = (root / "evaluation/table1.md").read_text().splitlines()
    header = lines[0].split("|")
    quoted = next(n for n, title in enumerate(header) if "PSNR (dB), quoted" in title)
    ours = next(n for n, title in enumerate(header) if title.strip() == "PSNR (dB)")
    row = next(line.split("|") for line in lines if line.startswith("| xctdiff "))
    assert row[quoted].strip() == "23.57 ± 1.205"
    assert "23.57" not in row[ours]


def test_the_same_question_has_the_same_answer(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ("--table", "1", "--samples", "2")
    assert evaluate(root, capsys, *how) == evaluate(root, capsys, *how)


def test_table_2_has_a_row_for_each_autoencoder_with_its_code_use(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *known, row = evaluate(root, capsys, "--table", "2")["rows"]  # type: ignore[misc]
    assert [r["system"] for r in known] == ["mean_volume", "nearest_case"]
    assert row["system"] == "tiny"
    assert 0 < row["code_usage"]["mean"] <= 1
    said = (root / "evaluation/table2.md").read_text()
    assert "a radiograph" not in said
    record = read_record(root / "autoencoder/tiny")
    assert record is not None
    assert f"Weights: tiny {record.fingerprint}" in said


def test_table_3_has_a_row_for_each_generator(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *known, row = evaluate(root, capsys, "--table", "3")["rows"]  # type: ignore[misc]
    assert [r["system"] for r in known] == ["mean_volume", "nearest_case"]
    assert row["system"] == "tiny"
    assert row["tmacs"] > 0
    assert "* 1 sample a radiograph" in (root / "evaluation/table3.md").read_text()


@pytest.mark.parametrize("figure", ["2", "3"])
def test_figures_are_pictures(figure: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = evaluate(root, capsys, "--figure", figure, "--samples", "1")
    picture = Image.open(str(answer["figure"])).convert("L")
    assert min(picture.size) > 300
    assert np.asarray(picture).std() > 20


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ((), 2, "give either --table"),
        (("--table", "1", "--figure", "2"), 2, "give either --table"),
        (("--figure", "4"), 1, "figure 4 shows networks pretrained"),
        (("--table", "1", "--lpips", "nowhere.pth"), 1, "nowhere.pth"),
        (("--table", "1", "--extractor", __file__), 1, "test_evaluate.py is not TorchScript"),
    ],
)
def test_what_cannot_be_answered_is_said(
    how: tuple[str, ...], code: int, said: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(root), *how]
    assert guarded(lambda given: app(args=given, standalone_mode=False), words) == code
    assert said in capsys.readouterr().err


def test_a_root_without_a_generator_is_told_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(tmp_path), "--table", "1"]
    assert guarded(lambda given: app(args=given, standalone_mode=False), words) == 1
    assert "synth-ct run tiny --until generator" in capsys.readouterr().err


def test_a_generator_is_measured_with_strangers_alone(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Moved away it has nobody to be measured with; in another run it may have learnt from them."""
    moved = Path(shutil.copytree(root / "generator/tiny", tmp_path / "moved"))
    other = tmp_path / "other"
    shutil.copytree(root / "cohorts/pairs", other / "cohorts/pairs")
    shutil.copytree(moved, other / "generator/tiny")
    record = read_record(other / "cohorts/pairs")
    assert record is not None
    changed = replace(record, recipe={"size": 64}).sealed()
    (other / "cohorts/pairs/record.json").write_text(changed.text())
    for place, said in ((moved, "is no root of a run"), (other, "learnt from other pairs")):
        words = ["evaluate", str(place), "--table", "1"]
        assert guarded(lambda given: app(args=given, standalone_mode=False), words) == 1
        assert said in capsys.readouterr().err

"""Own cases and encoders become fits: told of, continued, compared, or refused in one line."""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from encoders import publish_encoder
from fits import CLASSES, make_encoder, make_labelled
from pretrain_tiny import UNET

from finetune.results import read_results
from ray_jobs.cli import app
from ray_jobs.console import guarded
from synth_ct.cohort import Cohort

SHORT = [
    "--recipe=tiny",
    "--workers=0",
    "--set=folds.networks.unet.training.steps=2",
    "--set=folds.networks.unet.crop.sides=[16, 16, 16]",
    "--folds=3",
]


def synth_ct(*arguments: object) -> int:
    return guarded(lambda given: app(args=given, standalone_mode=False), [*map(str, arguments)])


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a person has: labelled cases and an encoder."""
    root = tmp_path_factory.mktemp("brought")
    make_labelled(root / "Boxes 1", patients=6)
    make_encoder(root / "mine", arm="synthetic")
    return root


@pytest.fixture(scope="module")
def command(brought: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    out = tmp_path_factory.mktemp("out") / "fits"
    return ["finetune", brought / "Boxes 1", out, "--encoder", brought / "mine", *SHORT]


def asked(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert synth_ct(*arguments, "--json") == 0, capsys.readouterr().err
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_fits_of_all_folds_are_made_once_and_told_by_organ(
    command: list[object], brought: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = asked(capsys, *command, "--fold", 2)
    assert [fit["name"] for fit in first["fits"]] == ["fits/boxes_1-unet-synthetic-f2-s0"]
    assert first["results"] is None
    told = asked(capsys, *command)
    assert told.keys() == {"out", "dataset", "evidence", "fits", "organs", "gaps", "results"}
    assert (told["dataset"], told["evidence"]) == ("boxes_1", "plumbing")
    assert [fit["status"] for fit in told["fits"]] == ["made", "made", "done"]
    organs = {row["organ"]: row for row in told["organs"]}
    assert {*organs} == {*CLASSES.values()}
    assert {row["n"] for row in organs.values()} == {6}
    scored = [s for fit in read_results(Path(str(told["results"]))) for s in fit.scores]
    assert {s.patient for s in scored} == {
        c.patient for c in Cohort.open(brought / "Boxes 1").cases
    }
    spleens = [s.dice for s in scored if s.organ == "spleen" and s.dice is not None]
    assert organs["spleen"]["dice"] == pytest.approx(sum(spleens) / len(spleens))
    again = asked(capsys, *command)
    assert {fit["status"] for fit in again["fits"]} == {"done"}
    assert again["organs"] == told["organs"]
    assert synth_ct(*command) == 0
    assert "predictions: " in capsys.readouterr().out


def test_another_recipe_under_the_same_name_is_refused_by_field(
    command: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    asked(capsys, *command, "--fold", 0)
    other = ["--fold", 0, "--set", "folds.networks.unet.rate=0.5"]
    assert synth_ct(*command, *other) == 1
    said = capsys.readouterr().err
    assert "recipe.finetuning.rate" in said
    assert said.count("\n") == 1


def test_cases_may_move_and_others_of_the_same_name_are_refused(
    command: list[object], brought: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(capsys, *command, "--fold", 0)
    moved = copytree(brought / "Boxes 1", tmp_path / "moved" / "Boxes 1")
    told = asked(capsys, "finetune", moved, *command[2:], "--fold", 0)
    assert [fit["status"] for fit in told["fits"]] == ["done"]
    make_labelled(tmp_path / "Boxes 1", patients=4)
    assert synth_ct("finetune", tmp_path / "Boxes 1", *command[2:]) == 1
    assert "choose another OUT" in capsys.readouterr().err


def test_scratch_beside_an_encoder_gives_a_gap_under_a_frozen_protocol(
    command: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [command[0], command[1], tmp_path / "out", *command[3:]]
    told = asked(capsys, *cases, "--scratch")
    (gap,) = told["gaps"]
    assert (gap["arm"], gap["baseline"], gap["n_patients"]) == ("synthetic", "scratch", 6)
    assert gap["lo"] <= gap["gap"] <= gap["hi"]
    frozen = json.loads((tmp_path / "out/fits/protocol/protocol.json").read_text())
    assert frozen["protocol"]["headline"] == [{"arm": "synthetic", "baseline": "scratch"}]
    assert len(told["fits"]) == 6
    assert synth_ct(*cases) == 1  # without scratch it is another study
    assert "recipe.arms" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--folds", 7], "has 6 patients"),
        (["--fold", 3], "no fold 3"),
        (["--network", "swin"], "is of architecture unet"),
        (["--set", "gpus=64"], "needs 64 GPU"),
        (["--recipe", "tniy"], "did you mean 'tiny'"),
    ],
)
def test_what_cannot_become_a_fit_is_refused_in_one_line_before_anything_is_made(
    options: list[object],
    said: str,
    command: list[object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert synth_ct(command[0], command[1], tmp_path / "out", *command[3:], *options) != 0
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_encoders_that_differ_in_more_than_their_arm_are_not_compared(
    command: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_encoder(tmp_path / "same", arm="synthetic", seed=9)
    assert synth_ct(*command, "--encoder", tmp_path / "same") == 1
    assert "are both of arm 'synthetic'" in capsys.readouterr().err
    publish_encoder(tmp_path / "wider", UNET, arm="real", transferred="all_but_head")
    assert synth_ct(*command, "--encoder", tmp_path / "wider") == 1
    said = capsys.readouterr().err
    assert "width 2 against 4" in said
    assert "spacing_mm (5.0, 5.0, 5.0) against (2.5, 2.5, 2.5)" in said


def test_another_grid_than_in_pretraining_is_used_if_asked_for_and_recorded(
    command: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = ["--set", "folds.networks.unet.shown={spacing_mm = [4, 4, 8]}", "--fold", 0]
    told = asked(capsys, command[0], command[1], tmp_path / "out", *command[3:], *shown)
    fit = json.loads((Path(told["fits"][0]["folder"]) / "fit.json").read_text())
    assert fit["shown"]["spacing_mm"] == [4, 4, 8]
    assert fit["mismatch"]["spacing_mm"] == [5, 5, 5]


def test_a_cohort_without_labels_is_refused_with_the_command_that_makes_one(
    brought: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chest = tmp_path / "chest"
    assert synth_ct("phantoms", chest, "--kind=chest", "--count=1", "--size=32", "--workers=0") == 0
    assert synth_ct("finetune", chest, tmp_path / "out", "--encoder", brought / "mine") == 1
    assert "synth-ct ingest labelled" in capsys.readouterr().err

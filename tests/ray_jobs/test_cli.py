"""The command line: frozen words, one JSON object, one-line errors, stable exit codes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
import typer
from PIL import Image

from ray_jobs import cli
from ray_jobs.cli import app
from ray_jobs.console import Tolerance, guarded
from ray_jobs.plan import STAGES, Step
from ray_jobs.recipes import RECIPES
from synth_ct.phantom import Family, Kind
from synth_ct.sources.importers import IMPORTERS
from synth_ct.xray.geometry import View

FROZEN = {
    "doctor": "--root --json",
    "ingest": "KIND SRC OUT --patients --seed --workers --max-quarantine --strict --json",
    "phantoms": "OUT --kind --count --size --seed --family --workers --json",
    "drr": "CT OUT.png --view --json",
    "recipes": "--json",
    "show": "RECIPE --set --json",
    "run": "RECIPE --root --set --until --dry-run --gpus --workers --train-workers --json",
    "quickstart": "--root --workers --json",
    "reconstruct": "RADIOGRAPH... OUT --model --samples --seed --drr --max-quarantine --strict"
    " --json",
    "corpus card": "DIR --json",
    "corpus view": "DIR OUT.html --limit --radiographs --json",
    "corpus export": "DIR OUT --to --json",
    "corpus repair": "DIR --model --other-numerics --workers --json",
    "corpus verify": "DIR --workers --json",
    "corpus merge": "DIR... OUT --json",
    "corpus audit": "DIR --against --json",
    "corpus adopt": "SRC OUT --generator --licence --workers --max-quarantine --strict --json",
    "generate": "RADIOGRAPHS OUT --model --actors --gpus-per-actor --wait-gpus --local --samples"
    " --seed --gate --retry-quarantined --max-quarantine --strict --json",
    "pretrain": "CORPUS OUT --recipe --network --set --seed --json",
    "finetune": "CASES OUT --encoder --scratch --recipe --network --set --folds --fold --seed"
    " --workers --json",
    "evaluate": "ROOT --table --figure --samples --cases --lpips --extractor --seed --json",
    "report": "ROOT --to-mlflow --json",
}


def synth_ct(*arguments: object) -> int:
    return guarded(lambda given: app(args=given, standalone_mode=False), [*map(str, arguments)])


def commands() -> Iterator[tuple[str, typer.core.TyperCommand]]:
    """Every command by the words that call it."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        if below is None:
            yield name, command
        else:
            yield from ((f"{name} {word}", each) for word, each in below.items())


def words(command: typer.core.TyperCommand) -> str:
    shown = [
        p.opts[0] if p.param_type_name == "option" else p.metavar or str(p.name).upper()
        for p in command.params
    ]
    return " ".join(word for word in shown if word != "--help")


def test_the_command_line_is_frozen() -> None:
    """Changing a word here breaks somebody's script: it needs a decision, not a habit."""
    assert {name: words(command) for name, command in commands()} == FROZEN


def test_choices_on_the_command_line_are_those_of_the_code() -> None:
    """They stand twice so that `--help` need not load torch; here they must agree."""
    assert set(cli.SourceKind) == set(IMPORTERS)
    assert set(cli.PhantomKind) == set(get_args(Kind))
    assert set(cli.FamilyName) == set(get_args(Family))
    assert set(cli.ViewName) == set(get_args(View))
    assert tuple(cli.StageName) == STAGES


def test_every_command_shows_an_example() -> None:
    for name, command in commands():
        assert f"Example: synth-ct {name}" in (command.help or ""), name


def test_help_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from ray_jobs.cli import app\n"
        "try: app(args=['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'ray', 'mlflow', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_module_is_the_same_program() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "ray_jobs", "recipes", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(json.loads(said.stdout)["recipes"]) == set(RECIPES)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "tniy"], 2, "did you mean 'tiny'"),
        (["show", "nowhere.toml"], 2, "no such recipe file"),
        (["show", "tiny", "--set", "sede=1"], 2, "did you mean 'seed'"),
        (["show", "tiny", "--set", "seed"], 2, "FIELD=VALUE"),
        (["show", "tiny", "--set", "cohorts.ct.size=31"], 2, "cohorts.ct.size"),
        (["run", "tiny", "--gpus", "2"], 2, "--dry-run"),
        (["run", "tiny", "--until", "lunch"], 2, "lunch"),
        (["frobnicate"], 2, "frobnicate"),
        (["ingest", "folder", "nowhere", "out"], 2, "nowhere"),
        (["phantoms", "out", "--kind", "chest", "--count", "0"], 2, "count"),
    ],
)
def test_a_mistake_is_one_line_without_a_traceback(
    arguments: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert synth_ct(*arguments) == code
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert synth_ct("show", "nothing", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_doctor_finds_what_a_recipe_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert synth_ct("doctor", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert {"torch", "torch with torchvision", "gpu", "free disk"} <= {
        f["what"] for f in report["findings"]
    }


@pytest.mark.parametrize(
    ("total", "quarantined", "duplicates", "strict", "code"),
    [
        (100, 0, 0, False, 0),
        (100, 5, 0, False, 0),
        (100, 6, 0, False, 4),
        (100, 36, 31, False, 0),
        (100, 1, 1, True, 3),
        (100, 0, 0, True, 0),
    ],
)
def test_the_exit_code_says_how_much_was_set_aside(
    total: int, quarantined: int, duplicates: int, strict: bool, code: int
) -> None:
    assert Tolerance(strict=strict).exit_code(total, quarantined, duplicates) == code


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two CTs and an empty file."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for seed in range(2):
        hu = np.random.default_rng(seed).integers(-1010, -990, (20, 16, 12)).astype(np.int16)
        hu[4:16, 3:13] = 40
        image = nib.Nifti1Image(hu, np.diag([2.0, 2.0, 2.5, 1.0]))
        image.to_filename(folder / f"{seed}.nii.gz")
    (folder / "empty.nii.gz").touch()
    return folder


@pytest.mark.parametrize(
    ("options", "code"), [([], 4), (["--strict"], 3), (["--max-quarantine", 0.5], 0)]
)
def test_ingest_answers_with_its_accounting_and_its_code(
    scans: Path, options: list[object], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = scans.parent / "out"
    assert synth_ct("ingest", "folder", scans, out, "--workers", 0, "--json", *options) == code
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {
        "total": 3, "accepted": 2, "quarantined": 1, "duplicates": 0, "patients": 2,
        "leaking_patients": 0, "out": str(out), "report": str(out / "quarantine.json"),
    }  # fmt: skip
    assert ("1 set aside" in shown.err) == (code != 0)


def test_drr_draws_what_a_ct_would_have_given(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct, film = scans / "0.nii.gz", tmp_path / "film.png"
    assert synth_ct("drr", ct, film, "--view", "lateral", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["view"] == "lateral"
    with Image.open(film) as picture:
        assert [picture.height, picture.width] == answer["shape"] == [15, 16]
    assert synth_ct("drr", ct, tmp_path / "film.jpg") == 2
    assert synth_ct("drr", scans / "empty.nii.gz", film) == 1
    assert "E_NII_NOTNIFTI" in capsys.readouterr().err


def test_same_seed_same_bytes_on_one_process_or_four(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = []
    for workers in (0, 4):
        out = tmp_path / str(workers)
        options = ["--kind", "abdomen", "--count", 5, "--size", 32, "--seed", 3, "--json"]
        assert synth_ct("phantoms", out, *options, "--workers", workers) == 0
        digests.append(json.loads(capsys.readouterr().out))
    assert digests[0] == digests[1]
    assert digests[0]["count"] == 5
    assert len(digests[0]["files"]) == 10


def test_run_makes_all_that_exists_and_the_second_time_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--set", "cohorts.ct.count=3", "--set", "cohorts.bcv.count=2"]
    small += ["--set", "cohorts.spleen.count=2", "--set", "cohorts.radiographs.count=6"]
    command = ["run", "tiny", "--root", tmp_path, *small, "--until", "cohorts", "--json"]
    assert synth_ct(*command, "--dry-run") == 0
    assert {s["status"] for s in json.loads(capsys.readouterr().out)["steps"]} == {"missing"}
    for status in ("made", "done"):
        assert synth_ct(*command, "--workers", 2) == 0
        answer = json.loads(capsys.readouterr().out)
        assert {s["status"] for s in answer["steps"]} == {status}
        assert set(answer["steps"][0]) == {"name", "status", "seconds", "folder"}
    assert synth_ct(*command, "--set", "cohorts.ct.size=40") == 1
    assert "recipe.size" in capsys.readouterr().err


def test_show_and_run_speak_the_same_toml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert synth_ct("show", "tiny", "--set", "seed=7") == 0
    (tmp_path / "mine.toml").write_text(capsys.readouterr().out)
    assert synth_ct("show", tmp_path / "mine.toml", "--json") == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 7


def test_with_a_cluster_to_join_the_driver_never_trains(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sent: list[int] = []

    def on_ray(steps: list[Step], root: Path, workers: int) -> list[Step]:
        sent.append(workers)
        return []

    monkeypatch.setattr("ray_jobs.train.on_ray", on_ray)
    monkeypatch.setenv("RAY_ADDRESS", "ray://nowhere:10001")
    assert synth_ct("run", "tiny", "--root", tmp_path, "--until", "cohorts") == 0
    assert sent == [1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--local", "--gpus-per-actor", "1"], "leave --local out"),
        (["--actors", "500"], "an actor needs a core"),
        (["--actors", "3:2"], "MIN not above MAX"),
        (["--wait-gpus", "64"], "set RAY_ADDRESS"),
    ],
)
def test_workers_that_can_never_come_are_refused_before_anything_starts(
    options: list[str],
    said: str,
    generator_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    Image.new("L", (96, 96), 90).save(tmp_path / "a.png")
    code = synth_ct(
        "generate", tmp_path, tmp_path.parent / "o", "--model", generator_root, *options
    )
    assert code != 0
    assert said in capsys.readouterr().err

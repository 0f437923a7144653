"""The step runner: once, in order, refusing surprises."""

from dataclasses import replace
from pathlib import Path

import pytest

from ray_jobs.cli import app
from ray_jobs.console import guarded
from ray_jobs.plan import Result, Step, inspect, run, until
from ray_jobs.recipes import paper, tiny, with_settings
from ray_jobs.steps import steps_of
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.effort import Effort
from synth_ct.kit.recipe import Recipe


class Count(Recipe):
    to: int


def write_numbers(recipe: Count, folder: Path, inputs: dict[str, Path], effort: Effort) -> None:
    (folder / "numbers.txt").write_text("\n".join(map(str, range(recipe.to))))


def add_up(recipe: Count, folder: Path, inputs: dict[str, Path], effort: Effort) -> None:
    (source,) = inputs.values()
    numbers = map(int, (source / "numbers.txt").read_text().split())
    (folder / "sum.txt").write_text(str(sum(numbers) + recipe.to))


def break_down(recipe: Count, folder: Path, inputs: dict[str, Path], effort: Effort) -> None:
    raise RuntimeError("power cut")


NUMBERS = Step(name="cohorts/numbers", stage="cohorts", recipe=Count(to=5), make=write_numbers)
TOTAL = Step(name="sum/1", stage="corpus", recipe=Count(to=0), make=add_up, inputs=(NUMBERS,))


def go(steps: list[Step], root: Path) -> list[Result]:
    return run(steps, root, lambda name: Effort())


def test_steps_run_once(tmp_path: Path) -> None:
    assert [r.status for r in go([NUMBERS, TOTAL], tmp_path)] == ["made", "made"]
    assert (tmp_path / "sum/1/sum.txt").read_text() == "10"
    before = (tmp_path / "sum/1/record.json").stat().st_mtime_ns
    assert [r.status for r in go([NUMBERS, TOTAL], tmp_path)] == ["done", "done"]
    assert (tmp_path / "sum/1/record.json").stat().st_mtime_ns == before


def test_a_changed_recipe_is_refused_by_field_before_anything_is_made(tmp_path: Path) -> None:
    go([NUMBERS, TOTAL], tmp_path)
    first = Step(name="cohorts/new", stage="cohorts", recipe=Count(to=1), make=write_numbers)
    changed = Step(name="sum/1", stage="corpus", recipe=Count(to=7), make=add_up, inputs=(NUMBERS,))
    with pytest.raises(ValueError, match=r"sum/1 was made by another recipe.*recipe\.to\."):
        go([first, NUMBERS, changed], tmp_path)
    assert not (tmp_path / "cohorts/new").exists()


def test_a_changed_input_is_refused_downstream(tmp_path: Path) -> None:
    go([NUMBERS, TOTAL], tmp_path)
    other = Step(name="cohorts/numbers", stage="cohorts", recipe=Count(to=6), make=write_numbers)
    go([other], tmp_path / "elsewhere")
    (tmp_path / "cohorts/numbers").rename(tmp_path / "old")
    (tmp_path / "elsewhere/cohorts/numbers").rename(tmp_path / "cohorts/numbers")
    moved = Step(name="sum/1", stage="corpus", recipe=Count(to=0), make=add_up, inputs=(other,))
    with pytest.raises(ValueError, match=r"inputs\.cohorts/numbers"):
        go([moved], tmp_path)


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sum/1 needs cohorts/numbers, not finished"):
        go([TOTAL], tmp_path)


def test_what_was_finished_before_a_failure_is_kept(tmp_path: Path) -> None:
    broken = Step(name="sum/1", stage="corpus", recipe=Count(to=0), make=break_down)
    with pytest.raises(RuntimeError, match="power cut"):
        go([NUMBERS, broken], tmp_path)
    assert [r.status for r in inspect([NUMBERS, broken], tmp_path)] == ["done", "missing"]


def test_until_keeps_the_stages_before(tmp_path: Path) -> None:
    assert until([NUMBERS, TOTAL], "generator") == [NUMBERS]
    assert until([NUMBERS, TOTAL], "corpus") == [NUMBERS, TOTAL]


# ---- what cannot be made here is said before anything is ---------------------------------------


class Importer(Recipe):
    importer: str
    seed: int


REAL = Step(name="cohorts/ct", stage="cohorts", recipe=Importer(importer="lidc", seed=0), make=None)


def ingested(root: Path, importer: str) -> None:
    record = Record(kind="cohort/ct", recipe={"importer": importer, "seed": 0, "listing": "abc"})
    with publish(root / REAL.name, record) as folder:
        (folder / "numbers.txt").write_text("1\n2")


def test_absent_real_data_is_asked_for_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"synth-ct ingest lidc SRC .*cohorts/ct"):
        go([NUMBERS, REAL], tmp_path)
    assert not (tmp_path / NUMBERS.name).exists()


def test_real_data_feeds_what_is_made_from_it(tmp_path: Path) -> None:
    ingested(tmp_path, "lidc")
    total = Step(name="sum/1", stage="corpus", recipe=Count(to=0), make=add_up, inputs=(REAL,))
    assert [r.status for r in go([REAL, total], tmp_path)] == ["done", "made"]
    assert (tmp_path / "sum/1/sum.txt").read_text() == "3"


def test_data_of_another_importer_is_refused(tmp_path: Path) -> None:
    ingested(tmp_path, "folder")
    with pytest.raises(ValueError, match=r"was ingested as .*folder.*asks for .*lidc"):
        inspect([REAL], tmp_path)


def test_a_missing_gpu_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sum/1 needs 99 GPU and this machine has"):
        go([NUMBERS, replace(TOTAL, gpus=99.0)], tmp_path)
    assert not (tmp_path / NUMBERS.name).exists()


def test_what_a_step_will_want_is_demanded_before_anything_is_made(tmp_path: Path) -> None:
    def demand() -> None:
        raise ValueError("no weights")

    with pytest.raises(ValueError, match="no weights"):
        go([NUMBERS, replace(TOTAL, demand=demand)], tmp_path)
    assert not (tmp_path / NUMBERS.name).exists()


def test_all_that_is_lacking_is_said_in_one_error(tmp_path: Path) -> None:
    def demand() -> None:
        raise ValueError("no weights.")

    films = replace(REAL, name="cohorts/films", recipe=Importer(importer="chest-xray2017", seed=3))
    wanting = replace(NUMBERS, demand=demand)
    steps = [REAL, films, wanting, replace(wanting, name="cohorts/more", gpus=99.0)]
    with pytest.raises(ValueError, match="only you have is missing") as refused:
        go(steps, tmp_path)
    said = str(refused.value)
    assert f"synth-ct ingest lidc SRC {tmp_path / 'cohorts/ct'};" in said
    assert f"synth-ct ingest chest-xray2017 SRC {tmp_path / 'cohorts/films'} --seed 3" in said
    assert said.count("no weights") == 1
    assert "cohorts/more needs 99 GPU" in said


def test_a_dry_run_says_what_a_person_must_bring_and_what_is_lacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    words = ["run", "paper", "--dry-run", "--root", str(tmp_path / "root")]
    assert guarded(lambda given: app(args=given, standalone_mode=False), words) == 0
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if line}
    bring = f"bring   cohorts/ct  synth-ct ingest lidc SRC {tmp_path / 'root/cohorts/ct'}"
    assert lines["cohorts/ct"] == bring
    assert "vgg16-397923af.pth does not exist" in lines["autoencoder/paper"]
    assert "but" not in lines["prior/paper"]


def test_too_few_phantoms_to_train_on_are_refused_before_any_is_made(tmp_path: Path) -> None:
    steps = steps_of(with_settings(tiny(), ["cohorts.ct.count=9"]))
    with pytest.raises(ValueError, match=r"at least 8 patients.*9 leaves 7.*make it 10"):
        go(steps, tmp_path)
    assert not (tmp_path / "cohorts").exists()
    assert until(steps, "cohorts")  # these alone are of any number
    for step in steps_of(with_settings(tiny(), ["cohorts.ct.count=10"])):
        step.demand()


def test_a_finished_step_demands_nothing(tmp_path: Path) -> None:
    go([NUMBERS, TOTAL], tmp_path)
    again = go([NUMBERS, replace(TOTAL, gpus=99.0)], tmp_path)
    assert [r.status for r in again] == ["done", "done"]


def test_lpips_without_weights_is_refused_before_its_autoencoder_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    step = next(s for s in steps_of(paper()) if s.name == "autoencoder/paper")
    with pytest.raises(ValueError, match=r"vgg16-397923af.pth does not exist"):
        step.demand()

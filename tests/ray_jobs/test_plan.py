"""The step runner: once, in order, refusing surprises."""

from pathlib import Path

import pytest

from ray_jobs.plan import Result, Step, inspect, run, until
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

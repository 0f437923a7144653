"""Artifacts: whole or absent, continued when killed, refused when changed."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from synth_ct.kit.artifact import Record, is_done, partial_of, publish, read_record

ASKED = Record(kind="corpus", recipe={"steps": 30, "net": {"width": 8}}, inputs={"ae": "ab12"})


def make(folder: Path, wanted: Record = ASKED, text: str = "...") -> None:
    with publish(folder, wanted) as work:
        (work / "whole.txt").write_text(text)


def give_up_half_way(folder: Path) -> None:
    with publish(folder, ASKED) as workspace:
        (workspace / "receipt").write_text("half done")
        raise RuntimeError


def test_a_finished_artifact_is_recognised_and_says_what_made_it(tmp_path: Path) -> None:
    assert not is_done(tmp_path / "a", ASKED)
    make(tmp_path / "a")
    record = read_record(tmp_path / "a")
    assert is_done(tmp_path / "a", ASKED)
    assert record is not None
    assert (record.recipe, record.inputs) == (ASKED.recipe, ASKED.inputs)
    assert set(record.files) == {"whole.txt"}
    assert record.code
    assert record.numerics["torch"]


def test_a_job_that_dies_leaves_no_artifact_and_is_continued(tmp_path: Path) -> None:
    def die() -> None:
        with publish(tmp_path / "a", ASKED) as work:
            (work / "half.txt").write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        die()
    assert not (tmp_path / "a").exists()
    with publish(tmp_path / "a", ASKED) as work:
        assert (work / "half.txt").read_text() == "half"
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["half.txt", "record.json"]
    assert not partial_of(tmp_path / "a").exists()


def test_a_killed_process_frees_its_lock(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from synth_ct.kit.artifact import Record, publish\n"
        "with publish(Path(sys.argv[1]), Record(kind='k', recipe={})):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=False)
    assert died.returncode == -signal.SIGKILL
    make(tmp_path / "a", Record(kind="k", recipe={}))
    assert os.listdir(tmp_path) == ["a"]


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with (
        publish(tmp_path / "a", ASKED),
        pytest.raises(ValueError, match="another process is working"),
    ):
        make(tmp_path / "a")


@pytest.mark.parametrize("finished", [True, False])
def test_another_recipe_is_refused_and_the_field_is_named(tmp_path: Path, finished: bool) -> None:
    if finished:
        make(tmp_path / "a")
    else:
        with pytest.raises(RuntimeError):
            give_up_half_way(tmp_path / "a")
    other = replace(ASKED, recipe={"steps": 30, "net": {"width": 9}})
    with pytest.raises(ValueError, match=r"differ: recipe\.net\.width\."):
        make(tmp_path / "a", other)


def test_a_finished_artifact_never_changes(tmp_path: Path) -> None:
    make(tmp_path / "a")
    with pytest.raises(ValueError, match="never changes"):
        make(tmp_path / "a")


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="not a finished artifact"):
        make(tmp_path / "a")


def test_the_fingerprint_follows_outcome_and_inputs_but_not_local_paths(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b", text="other")
    make(tmp_path / "c", replace(ASKED, inputs={"ae": "cd34"}))
    with publish(tmp_path / "d", ASKED) as work:
        (work / "whole.txt").write_text("...")
        (work / "sources.csv").write_text("id,path")
    a, b, c, d = (getattr(read_record(tmp_path / n), "fingerprint", n) for n in "abcd")
    assert len({a, b, c}) == 3
    assert a == d


def test_a_damaged_record_is_not_taken_for_absence(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "a" / "record.json").write_text(json.dumps({"kind": "corpus"})[:-3])
    with pytest.raises(ValueError, match=r"record\.json is damaged"):
        read_record(tmp_path / "a")


def test_a_recipe_that_failed_before_any_work_does_not_block_the_mended_one(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), publish(tmp_path / "a", Record(kind="x", recipe={"n": 1})):
        raise RuntimeError("no such crop")
    with publish(tmp_path / "a", Record(kind="x", recipe={"n": 2})) as workspace:
        (workspace / "made.txt").write_text("2")
    assert (tmp_path / "a/made.txt").read_text() == "2"


@pytest.mark.parametrize(("was", "now"), [('"steps": 30', '"steps": 32'), ("\n", "\n\n")])
def test_a_flipped_bit_in_a_record_does_not_read_as_another_number(
    tmp_path: Path, was: str, now: str
) -> None:
    make(tmp_path / "a")
    text = (tmp_path / "a" / "record.json").read_text()
    (tmp_path / "a" / "record.json").write_text(text.replace(was, now, 1))
    with pytest.raises(ValueError, match="does not match its seal"):
        read_record(tmp_path / "a")

"""How a command ends when the person or the system stops it."""

import errno
from pathlib import Path

import pytest
import typer

from ray_jobs.console import FAILED, guarded

app = typer.Typer()


@app.command()
def interrupted() -> None:
    raise KeyboardInterrupt


@app.command()
def missing(path: Path) -> None:
    path.read_text()


def run(*arguments: str) -> int:
    return guarded(lambda given: app(args=given, standalone_mode=False), [*arguments])


def test_ctrl_c_is_one_line_that_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("interrupted") == FAILED
    assert capsys.readouterr().err == "error: stopped; run the same command again to continue\n"


def test_what_the_system_refuses_names_the_file_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("missing", str(tmp_path / "patients.csv")) == FAILED
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'patients.csv'}: no such file or directory; ")
    assert "Errno" not in said


@app.command()
def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_and_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("full") == FAILED
    assert "the disk is full; free space and run the same command" in capsys.readouterr().err

"""The example in every command's help is one that the command takes."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from ray_jobs.cli import app
from ray_jobs.console import guarded
from ray_jobs.recipes import find_recipe

EXAMPLE = re.compile(r"^\s*Example: synth-ct (.*)$", re.MULTILINE)
PROGRAM: Any = typer.main.get_command(app)


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by the words that call it."""
    for name, command in PROGRAM.commands.items():
        for word, below in getattr(command, "commands", {"": command}).items():
            yield f"{name} {word}".strip(), below


COMMANDS = dict(commands())


def example_of(name: str) -> list[str]:
    """What a person would copy, without the name of the program and what a shell redirects."""
    (line,) = EXAMPLE.findall(COMMANDS[name].help or "")
    return shlex.split(line.partition(" > ")[0])


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """What the last command named would be called with; nothing is called."""
    command, name = PROGRAM, ""
    while hasattr(command, "commands"):
        word, *words = words
        command, name = command.commands[word], f"{name} {word}".strip()
    return name, command.make_context(name, list(words)).params


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_is_a_command_line_that_parses(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = example_of(name)
    for word in words:
        if not word.startswith("-"):
            Path(word).mkdir(parents=True, exist_ok=True)  # some must exist
    called, given = parsed(words)
    assert called == name
    run = find_recipe(given["recipe"]) if "recipe" in given else None
    if run and given.get("network"):
        assert run.pretraining
        assert given["network"] in run.pretraining.networks


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_the_example_whole(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*name.split(), "--help"]
    assert guarded(lambda given: app(args=given, standalone_mode=False), command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    (line,) = EXAMPLE.findall(COMMANDS[name].help or "")
    assert f"Example: synth-ct {line}" in shown


@pytest.mark.parametrize(
    "line",
    ["run tiny --rot x", "run", "corpus export a b --to zip", "drr a.nii.gz b.png --view top"],
)
def test_what_no_command_takes_does_not_parse(line: str) -> None:
    with pytest.raises(typer.TyperException):
        parsed(line.split())


@pytest.mark.parametrize("name", ["recipes", "show"])
def test_what_takes_no_time_is_run_as_it_stands(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = example_of(name)
    assert guarded(lambda given: app(args=given, standalone_mode=False), command) == 0
    assert "tiny" in capsys.readouterr().out

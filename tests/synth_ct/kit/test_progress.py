import os
import subprocess
import sys
import time

import pytest

from synth_ct.kit import progress as module
from synth_ct.kit.progress import progress, remaining_s

TWO_BARS = """
from synth_ct.kit.progress import progress
with progress("reading", 3) as tick, progress("writing", 2) as other:
    tick(3, "1 set aside")
    other(2)
with progress("later", 1) as tick:
    tick()
"""


def seen_on_a_terminal(code: str, **environment: str) -> str:
    ours, theirs = os.openpty()
    known = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-c", code]
    env = {**known, "TERM": "xterm-256color", "COLUMNS": "120", **environment}
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, env=env) as process:
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(ours, 4096):
                seen += piece
        except OSError:
            pass  # how a terminal says that the other side is gone
        assert process.stdout is not None
        assert process.stdout.read() == b""
    os.close(ours)
    assert process.returncode == 0, seen.decode()
    return seen.decode()


def test_a_terminal_sees_counts_time_and_notes_of_every_bar() -> None:
    seen = seen_on_a_terminal(TWO_BARS)
    for text in ("reading", "3/3", "1 set aside", "writing", "2/2", "later", "1/1", "0:00:00"):
        assert text in seen
    assert "\x1b[38;" in seen


def test_no_color_is_respected() -> None:
    seen = seen_on_a_terminal(TWO_BARS, NO_COLOR="1")
    assert "3/3" in seen
    assert "\x1b[38;" not in seen
    assert "\x1b[3" not in seen.replace("\x1b[?", "")


def test_a_log_gets_plain_lines_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.0)
    with progress("reading", 3) as tick:
        tick(1)
        tick(1, "1 set aside")
        tick()
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert lines[0] == "reading  1/3"
    assert lines[1] == "reading  2/3  0:00:00 left  1 set aside"
    assert lines[-1] == "reading  3/3  took 0:00:00"
    assert said.out == ""


def test_a_log_gets_lines_while_nothing_is_done_for_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LINE_EVERY_S", 0.05)
    with progress("volumes", 40) as tick:
        tick(3, "3 done")
        time.sleep(0.3)
        lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert set(lines) == {"volumes  3/40  3 done"}
    time.sleep(0.2)
    assert capsys.readouterr().err.count("\n") == 1, "the last word, and then silence"


def test_a_short_loop_writes_nothing_to_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("reading", 100) as tick:
        for _ in range(100):
            tick()
    assert capsys.readouterr().err == ""


def test_the_time_left_ignores_what_an_earlier_run_had_done() -> None:
    assert remaining_s(done=10, to_do=30, seconds=5.0) == 15.0
    assert remaining_s(done=0, to_do=30, seconds=5.0) is None

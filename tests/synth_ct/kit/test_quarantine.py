"""Quarantine: what was set aside, and why, in the same words every time."""

from pathlib import Path

from synth_ct.kit.quarantine import (
    Refused,
    SetAside,
    counts_by_code,
    printable,
    read_report,
    write_report,
)

ROWS = [
    SetAside(code="E_B", file="z.png", cause="torn"),
    SetAside(code="E_A", file="a.png", cause="empty", remedy="fetch it again"),
    SetAside(code="E_B", file="b.png", cause="torn"),
]


def test_a_refusal_says_code_cause_and_remedy() -> None:
    assert str(Refused("E_X", "no pixels", "fetch it again")) == "E_X: no pixels - fetch it again"


def test_the_report_round_trips_sorted_by_file(tmp_path: Path) -> None:
    write_report(tmp_path, ROWS)
    assert [row.file for row in read_report(tmp_path)] == ["a.png", "b.png", "z.png"]
    assert set(read_report(tmp_path)) == set(ROWS)


def test_the_order_of_discovery_does_not_change_the_bytes(tmp_path: Path) -> None:
    first = write_report(tmp_path, ROWS).read_bytes()
    assert write_report(tmp_path, ROWS[::-1]).read_bytes() == first


def test_codes_are_counted_most_frequent_first() -> None:
    assert list(counts_by_code(ROWS).items()) == [("E_B", 2), ("E_A", 1)]


def test_wild_names_can_be_shown() -> None:
    wild = b"a\nb\xff\x1b[31m.png".decode(errors="surrogateescape")
    shown = printable(wild)
    assert shown.isprintable()
    assert shown.encode()
    assert "\\n" in shown


def test_two_names_never_look_the_same() -> None:
    assert printable("a\n") != printable(r"a\n")

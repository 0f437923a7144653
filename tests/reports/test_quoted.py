"""Quoted numbers are text with a source, and the doubts about them travel along."""

import pytest

from reports.quoted import by_system, notes, of_table, read_quotes, showing

PAPER = "Bai et al., XctDiff"
QUOTES = read_quotes()


def test_table_1_is_the_papers() -> None:
    rows = by_system(of_table(QUOTES, PAPER, "1"))
    assert rows["xctdiff"] == {
        "psnr": "23.57 ± 1.205",
        "ssim": "0.524 ± 0.075",
        "lpips": "0.123 ± 0.069",
    }
    assert list(rows) == ["reconnet", "x2ct_cnn", "x2ct_gan", "xctdiff"]


def test_tables_2_and_3_are_whole() -> None:
    second = by_system(of_table(QUOTES, PAPER, "2"))
    assert sum("code_usage" in row for row in second.values()) == 9
    assert second["homogeneous_sr_8192x8"]["code_usage"] == "98.2 %"
    third = by_system(of_table(QUOTES, PAPER, "3"))
    assert [row["psnr"] for row in third.values()] == ["22.47", "23.26", "23.14", "23.57"]


def test_every_quote_is_printed_once_and_has_a_source() -> None:
    names = [(q.source, q.table, q.system, q.dataset, q.metric, q.views, q.value) for q in QUOTES]
    assert len(set(names)) == len(names)
    assert all(q.source and q.system and q.metric and q.value and q.protocol for q in QUOTES)


def test_damaged_text_is_kept_and_called_damaged() -> None:
    (garbled,) = (q for q in QUOTES if q.value == "40.9 dB")
    assert "garbled" in garbled.ambiguity
    gains = [q for q in QUOTES if q.value in ("+3.1", "+1.8")]
    assert len(gains) == 2
    assert all("whether" in q.ambiguity for q in gains)


def test_notes_name_source_protocol_and_every_doubt_once() -> None:
    table = of_table(QUOTES, PAPER, "2")
    text = notes(table)
    assert len(set(text)) == len(text)
    assert text[0].startswith(f"* Quoted from {PAPER}: LIDC-IDRI")
    doubts = {part for q in table for part in q.ambiguity.split("; ") if part}
    assert all(any(doubt in line for line in text) for doubt in doubts)
    assert any("(plain_8192x3)" in line and "damaged" in line for line in text)


def test_notes_are_silent_on_columns_that_are_not_shown() -> None:
    shown = showing(of_table(QUOTES, PAPER, "2"), ("psnr",))
    assert not any("codes" in line or "no title" in line for line in notes(shown))
    assert set(by_system(shown)["homogeneous_sr_8192x8"]) == {"psnr"}


def test_a_table_nobody_quotes_is_refused() -> None:
    with pytest.raises(ValueError, match="XctDiff, table 1"):
        of_table(QUOTES, PAPER, "9")

"""A large corpus: no folder grows large, and what is held does not grow with the rows."""

import gc
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpora import random_entry

from synth_ct.corpus.layout import RECEIPTS, preview_file, quarantine_file, volume_file
from synth_ct.corpus.manifest import read_columns, read_manifest, write_manifest
from synth_ct.corpus.receipts import fold
from synth_ct.corpus.row import Entry, Quarantined, Row, columns_of, digest_of, line_of, rows_of
from synth_ct.kit.durable import sha256_of

ITEMS, WRITERS, FIGURES = 5_000, 40, 20


@pytest.fixture
def model(tmp_path: Path) -> Row:
    (tmp_path / "volumes" / sha256_of(b"film 0")[:2]).mkdir(parents=True)
    (tmp_path / "previews" / sha256_of(b"film 0")[:2]).mkdir(parents=True)
    entry = random_entry(tmp_path, 0)
    assert isinstance(entry, Row)
    return entry


def fake(model: Row, number: int) -> Entry:
    sha = sha256_of(f"item {number}".encode())
    if number % 9 == 8:
        return Quarantined(
            id=sha[:16], radiograph_sha256=sha, patient="p", finding="", code="X", cause="bad"
        )
    figures = {f"figure {n}": number + n / 7 for n in range(FIGURES)}
    return replace(model, id=sha[:16], radiograph_sha256=sha, quality={**figures, "none": None})


def write_receipts(corpus: Path, model: Row, items: int) -> None:
    (corpus / RECEIPTS).mkdir()
    for writer in range(WRITERS):
        lines = [line_of(fake(model, number)) for number in range(writer, items, WRITERS)]
        (corpus / RECEIPTS / f"{writer}.jsonl").write_text("\n".join(lines) + "\n")


def peak_bytes(corpus: Path, model: Row, items: int) -> int:
    """The most Python held while the receipts became a manifest."""
    corpus.mkdir()
    write_receipts(corpus, model, items)
    gc.collect()
    tracemalloc.start()
    try:
        write_manifest(corpus, fold(corpus).rows())
        digest_of(read_manifest(corpus))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_folders_of_a_hundred_thousand_items_stay_below_a_thousand_files() -> None:
    ids = [sha256_of(str(number).encode())[:16] for number in range(100_000)]
    for file in (volume_file, preview_file, quarantine_file):  # whatever became of all of them
        assert max(Counter(file(item).rpartition("/")[0] for item in ids).values()) < 500


def test_many_receipts_become_one_manifest_with_every_row_as_it_was(
    tmp_path: Path, model: Row
) -> None:
    write_receipts(tmp_path, model, ITEMS)
    wanted = [fake(model, number) for number in range(ITEMS)]
    rows = sorted((entry for entry in wanted if isinstance(entry, Row)), key=lambda row: row.id)
    book = fold(tmp_path)
    write_manifest(tmp_path, book.rows())
    assert (len(book), book.counts()["quarantined"]) == (ITEMS, ITEMS - len(rows))
    assert list(read_manifest(tmp_path)) == rows
    batches = list(read_columns(tmp_path, ["id"]))
    assert len(batches) > 1
    assert [item for batch in batches for item in batch["id"]] == [row.id for row in rows]


def test_what_is_held_grows_by_a_fraction_of_what_is_read(
    tmp_path: Path, model: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synth_ct.corpus.manifest.ROWS_TOGETHER", 50)
    peak_bytes(tmp_path / "warm", model, 100)
    before, after = (peak_bytes(tmp_path / str(items), model, items) for items in (200, 1000))
    a_row = len(line_of(fake(model, 0)))
    assert (after - before) / 800 < a_row / 2, "what is held per item is a place, not a row"


@pytest.mark.parametrize("part", [slice(0, 40), slice(7, 19), slice(39, 40), slice(5, 5)])
def test_columns_give_the_rows_back_and_so_does_a_part_of_them(model: Row, part: slice) -> None:
    random = np.random.default_rng(0)
    rows = [
        replace(
            model,
            seed=int(random.integers(2**62)),
            shape=tuple(random.integers(1, 99, 3).tolist()) if number % 4 else (),
            out_of_distribution=None if number % 5 == 0 else float(random.normal()),
            quality={f"f{n}": None if n == 2 else n / 3 for n in range(number % 6)},
        )
        for number in range(40)
    ]
    batch = columns_of(rows)
    assert rows_of(batch.slice(part.start, part.stop - part.start)) == rows[part]

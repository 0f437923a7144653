"""Receipts are the truth of a corpus: what they say is done is done, once."""

from dataclasses import replace
from pathlib import Path

import pytest
from corpora import random_entry

from synth_ct.corpus.layout import RECEIPTS, make_folders
from synth_ct.corpus.receipts import Receipts, fold
from synth_ct.corpus.row import Quarantined, digest_of, entry_of, line_of


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    make_folders(tmp_path)
    return tmp_path


def write(workspace: Path, *numbers: int) -> None:
    receipts = Receipts(workspace)
    for number in numbers:
        receipts.append([random_entry(workspace, number)])


def test_a_line_says_all_that_a_row_or_a_quarantined_item_holds(workspace: Path) -> None:
    for number in (0, 6, 8):
        entry = random_entry(workspace, number)
        assert entry_of(line_of(entry)) == entry
    assert isinstance(random_entry(workspace, 8), Quarantined)


def test_many_writers_fold_into_one_sorted_file_with_every_id_once(workspace: Path) -> None:
    write(workspace, 3, 1, 2)
    write(workspace, 2, 5)
    book = fold(workspace)
    ids = [entry.id for entry in book.entries()]
    assert ids == sorted(random_entry(workspace, n).id for n in (1, 2, 3, 5))
    assert [path.name for path in (workspace / RECEIPTS).iterdir()] == ["folded.jsonl"]
    assert list(fold(workspace).entries()) == list(book.entries())


def test_a_torn_last_line_and_a_damaged_one_are_not_receipts(workspace: Path) -> None:
    write(workspace, 0, 1, 2)
    (path,) = (workspace / RECEIPTS).iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0\0{" + lines[1] + lines[2][:-1])
    book = fold(workspace)
    assert [entry.id for entry in book.entries()] == [random_entry(workspace, 0).id]


def test_what_is_dropped_is_not_done_any_more(workspace: Path) -> None:
    write(workspace, 0, 8)
    book = fold(workspace, drop=lambda entry: isinstance(entry, Quarantined))
    assert book.counts() == {"committed": 1}
    assert random_entry(workspace, 8).id not in fold(workspace)


def test_the_digest_knows_order_voxels_and_verdicts_and_nothing_else(workspace: Path) -> None:
    write(workspace, 0, 1, 6)
    rows = list(fold(workspace).rows())
    rows[0] = replace(rows[0], accepted=True)
    before = digest_of(rows)
    for field, value in (("voxel_sha256", "x"), ("accepted", False), ("reason", "body")):
        assert digest_of([replace(rows[0], **{field: value}), *rows[1:]]) != before
    assert digest_of([replace(rows[0], file_sha256="another gzip"), *rows[1:]]) == before
    with pytest.raises(AssertionError):
        digest_of([rows[1], rows[0]])

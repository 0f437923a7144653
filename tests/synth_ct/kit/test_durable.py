"""A file is there whole or as it was before, whatever stops its writing."""

import errno
from pathlib import Path

import pytest

from synth_ct.kit.durable import link_or_copy, sha256_of_file, write_bytes, write_text


def test_what_is_written_is_there_under_the_sum_that_is_returned(tmp_path: Path) -> None:
    assert write_bytes(tmp_path / "a", b"voxels") == sha256_of_file(tmp_path / "a")
    assert write_text(tmp_path / "b", "né") == sha256_of_file(tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == "né".encode()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes(tmp_path / "a", b"old")

    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(tmp_path / "a", b"new, and longer")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_who_has_the_old_file_open_reads_it_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes(tmp_path / "a", b"old")
    synced = []
    monkeypatch.setattr("os.fsync", lambda _: synced.append((tmp_path / "a").read_bytes()))
    with (tmp_path / "a").open("rb") as reader:
        write_bytes(tmp_path / "a", b"new, and longer")
        assert reader.read() == b"old"
    assert synced == [b"old", b"new, and longer"]  # the data before the name, then its folder


def test_a_link_is_the_same_file_and_a_copy_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("left by a run that was stopped")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")

    def refuse(*names: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr("os.link", refuse)
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").samefile(tmp_path / "a")
    assert (tmp_path / "b").read_text() == "a"

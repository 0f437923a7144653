"""Exports: whole or absent, of accepted volumes alone, and without a word about where they lay."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from corpora import make_corpus

from synth_ct.corpus import Corpus
from synth_ct.corpus.export import FORMATS, Format, export
from synth_ct.corpus.layout import preview_file, volume_file
from synth_ct.kit.artifact import partial_of

LINKED: tuple[Format, ...] = ("msd", "nnunet", "nnssl", "hf")


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus for all tests here, to be read alone."""
    folder = tmp_path_factory.mktemp("read") / "corpus"
    make_corpus(folder, range(10))
    return folder


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def first_volume(corpus: Path) -> str:
    return Corpus.open(corpus).accepted()[0].id


@pytest.mark.parametrize("to", LINKED)
def test_accepted_volumes_are_there_under_a_second_name_and_no_others(
    intact: Path, tmp_path: Path, to: Format
) -> None:
    assert export(intact, tmp_path / "out", to) == len(files_below(tmp_path / "out"))
    found = {
        re.sub(r"(_0000)?\.nii\.gz$", "", path.name): path
        for path in files_below(tmp_path / "out")
        if path.name.endswith(".nii.gz")
    }
    rows = Corpus.open(intact).accepted()
    assert set(found) == {row.id for row in rows}
    assert all(found[row.id].samefile(intact / volume_file(row.id)) for row in rows)


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_says_synthetic_and_names_neither_paths_nor_sources(
    intact: Path, tmp_path: Path, to: Format
) -> None:
    (intact / "sources.csv").write_text("id,file\nx,Doe_Jane_1970.png\n")
    (intact / "quarantine.json").write_text('{"file": "Doe_Jane_1970.png"}')
    export(intact, tmp_path / "out", to)
    assert "SYNTHETIC" in (tmp_path / "out" / "README.md").read_text()
    for path in files_below(tmp_path / "out"):
        content = path.read_bytes()
        assert b"Doe_Jane" not in content
        assert str(tmp_path).encode() not in content
        if path.name in ("dataset.json", "pretrain_data.json"):
            assert b"SYNTHETIC" in content


def test_a_place_that_exists_or_lies_inside_the_corpus_is_refused(
    intact: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        export(intact, tmp_path / "taken", "msd")
    with pytest.raises(ValueError, match="inside the corpus"):
        export(intact, intact / "volumes" / ".." / "msd", "msd")
    assert not (intact / "msd.partial").exists()


@pytest.mark.parametrize(
    ("to", "file"),
    [("msd", volume_file), ("dicom", volume_file), ("hf", volume_file), ("hf", preview_file)],
)
def test_a_damaged_file_is_not_passed_on_and_nothing_half_done_is_left_under_the_name(
    corpus: Path, tmp_path: Path, to: Format, file: object
) -> None:
    assert callable(file)
    damaged = corpus / file(first_volume(corpus))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="damaged"):
        export(corpus, out, to)
    assert not out.exists()
    damaged.write_bytes(whole)
    (partial_of(out) / "stale").mkdir()
    export(corpus, out, to)
    assert not (out / "stale").exists()
    assert not partial_of(out).exists()


def test_a_corpus_without_a_volume_has_nothing_to_export(tmp_path: Path) -> None:
    make_corpus(tmp_path / "corpus", [6, 8])
    with pytest.raises(ValueError, match="none of its items was accepted"):
        export(tmp_path / "corpus", tmp_path / "out", "msd")


def test_names_that_could_leave_the_folder_are_refused(
    intact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = [r for r in Corpus.open(intact).accepted() if r.id == first_volume(intact)]
    for strange in ("../../up", "a/b", "", ".hidden", "two words", "x" * 49, "a^b", "a\\b"):
        odd = type(row)(**{**{f: getattr(row, f) for f in row.__slots__}, "patient": strange})
        monkeypatch.setattr(Corpus, "rows", lambda self, odd=odd: iter([odd]))
        with pytest.raises(ValueError, match="cannot be the name"):
            export(intact, tmp_path / "out", "nnssl")


def test_the_list_of_formats_is_the_type_and_no_folder_grows_large(
    intact: Path, tmp_path: Path
) -> None:
    assert set(FORMATS) == set(get_args(Format))
    for to in ("nnssl", "hf", "dicom"):  # msd and nnU-Net want one flat folder
        export(intact, tmp_path / to, to)
        item = first_volume(intact)
        assert any(path.parent.name == item[:2] for path in (tmp_path / to).rglob(f"{item}*"))


def test_a_folder_named_as_nnunet_wants_is_the_data_set_itself(
    intact: Path, tmp_path: Path
) -> None:
    export(intact, tmp_path / "Dataset042_Mine", "nnssl")
    collection = json.loads((tmp_path / "Dataset042_Mine" / "pretrain_data.json").read_text())
    assert collection["collection_name"] == "Dataset042_Mine"
    assert set(collection["datasets"]) == {"42"}

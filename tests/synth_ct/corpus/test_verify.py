"""Every fault that is planted in a corpus is found, by its file and its kind."""

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from corpora import ABOUT as TEST_ABOUT
from corpora import make_corpus, random_entry

from ray_jobs.cli import app
from ray_jobs.console import guarded
from synth_ct.corpus import Corpus, Row
from synth_ct.corpus.finish import finish
from synth_ct.corpus.layout import make_folders, preview_file, volume_file
from synth_ct.corpus.manifest import read_manifest, write_manifest
from synth_ct.corpus.receipts import Receipts, fold
from synth_ct.corpus.verify import verify
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.durable import sha256_of_file, write_text
from synth_ct.kit.effort import Effort

TOPS = ("manifest.parquet", "corpus.json", "README.md", "record.json", "receipts/folded.jsonl")


@pytest.fixture(scope="module", autouse=True)
def _plain_card() -> Iterator[None]:
    """The real one takes longer than everything else together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "synth_ct.corpus.finish.write_card",
            lambda corpus, about: write_text(corpus / "README.md", about.what),
        )
        yield


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """330 items: 252 volumes. To be copied before it is damaged."""
    folder = tmp_path_factory.mktemp("large") / "corpus"
    make_corpus(folder, range(330))
    return folder


@pytest.fixture
def damaged(large: Path, tmp_path: Path) -> Path:
    shutil.copytree(large, tmp_path / "corpus")
    return tmp_path / "corpus"


def flip(path: Path, rng: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def found(corpus: Path) -> dict[str, str]:
    return {fault.file: fault.kind for fault in verify(corpus).faults}


def test_a_corpus_as_it_was_made_has_no_fault(large: Path) -> None:
    for workers in (0, 2):
        verdict = verify(large, Effort(workers=workers))
        assert verdict.ok, verdict.faults[:3]
        assert verdict.volumes == Corpus.open(large).about.counts.committed == 252


def test_two_hundred_and_fifty_planted_faults_are_all_found_by_file_and_kind(
    damaged: Path, large: Path, rng: np.random.Generator
) -> None:
    """130 bits flipped in volumes, previews and quarantine files, and 50 other faults, at once."""
    rows = Corpus.open(damaged).accepted()
    quarantined = sorted(str(p.relative_to(damaged)) for p in damaged.glob("quarantine/*/*.json"))
    volumes = [volume_file(row.id) for row in rows]
    previews = [preview_file(row.id) for row in rows]
    planted = dict.fromkeys([*volumes[:80], *previews[100:140], *quarantined[:10]], "damaged")
    for file in planted:
        flip(damaged / file, rng)
    planted |= {
        "volumes/00/stray.nii.gz": "misplaced",
        f"{volumes[81]}.bak": "stray",
        f"{Path(volumes[82]).parent}/.x.nii.gz.tmp.123": "leftover",
        "volumes/notes.txt": "stray",
        "previews/ab/ab.txt": "stray",
        "receipts/7-ab.jsonl": "stray",
        "thumbs.db": "stray",
    }
    for file in list(planted)[-7:]:
        (damaged / file).write_bytes(b"?")
    for file in [*volumes[90:105], *previews[150:160]]:
        os.truncate(damaged / file, int(rng.integers((damaged / file).stat().st_size)))
        planted[file] = "truncated"
    for file in [*volumes[110:118], *previews[160:164], quarantined[20]]:
        (damaged / file).unlink()
        planted[file] = "missing"
    (damaged / volumes[120]).rename(damaged / "swap")
    (damaged / volumes[121]).rename(damaged / volumes[120])
    (damaged / "swap").rename(damaged / volumes[121])
    planted |= {volumes[120]: "swapped", volumes[121]: "swapped"}
    wrong_folder = next(f for f in volumes[122:] if not f.startswith("volumes/00"))
    (damaged / wrong_folder).rename(damaged / "volumes/00" / Path(wrong_folder).name)
    planted |= {wrong_folder: "missing", f"volumes/00/{Path(wrong_folder).name}": "misplaced"}
    rejected = next(row for row in Corpus.open(damaged).rows() if not row.accepted)
    shutil.copy(damaged / volumes[130], damaged / volume_file(rejected.id))
    planted[volume_file(rejected.id)] = "stray"
    assert len(planted) == 130 + 50
    assert found(damaged) == planted


def test_a_bit_in_what_the_others_are_checked_against_is_found_and_nothing_else_accused(
    corpus: Path, rng: np.random.Generator
) -> None:
    """70 of the 250, one at a time."""
    for file in TOPS:
        whole = (corpus / file).read_bytes()
        for _ in range(14):
            flip(corpus / file, rng)
            assert found(corpus) == {file: "damaged"}
            (corpus / file).write_bytes(whole)
        (corpus / file).unlink()
        assert found(corpus) == {file: "missing"}
        (corpus / file).write_bytes(whole)
    assert verify(corpus).ok


@pytest.mark.parametrize("top", [["manifest.parquet"], ["record.json", "manifest.parquet"]])
def test_with_a_damaged_top_volumes_are_still_checked_against_the_receipts(
    corpus: Path, rng: np.random.Generator, top: list[str]
) -> None:
    file = volume_file(Corpus.open(corpus).accepted()[3].id)
    for damaged in (*top, file):
        flip(corpus / damaged, rng)
    assert set(found(corpus)) == {*top, file}


def test_with_damaged_receipts_quarantine_files_are_doubted_only_where_they_must_be(
    corpus: Path,
) -> None:
    path = next(corpus.glob("quarantine/*/*.json"))
    path.write_text(path.read_text().replace("ends early", "ends earlx"))
    receipts = corpus / "receipts" / "folded.jsonl"
    receipts.write_text(receipts.read_text().replace('"seed": 1,', '"seed": 3,', 1))
    name = str(path.relative_to(corpus))
    assert found(corpus) == {"receipts/folded.jsonl": "damaged", name: "disagrees"}


def test_a_folder_that_was_never_finished_is_told_from_a_damaged_one(
    corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"not a finished corpus.*to its end"):
        verify(tmp_path)
    corpus.rename(tmp_path / "other.partial")
    with pytest.raises(ValueError, match=r"not finished: other\.partial is what there is"):
        verify(tmp_path / "other")


def test_pictures_of_the_card_are_checked_by_their_own_sums(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    with publish(tmp_path / "c", Record(kind="corpus", recipe={})) as workspace:
        make_folders(workspace)
        row = random_entry(workspace, 0)
        Receipts(workspace).append([row])
        finish(workspace, fold(workspace), TEST_ABOUT)
        (workspace / "README.md").write_text("![](card/sheet.png)")
        (workspace / "card").mkdir()
        shutil.copy(workspace / preview_file(row.id), workspace / "card" / "sheet.png")
    assert found(tmp_path / "c") == {}
    picture = tmp_path / "c" / "card" / "sheet.png"
    whole = picture.read_bytes()
    for _ in range(5):
        flip(picture, rng)
        assert found(tmp_path / "c") == {"card/sheet.png": "damaged"}
        picture.write_bytes(whole)
    picture.rename(picture.with_name("other.png"))
    assert found(tmp_path / "c") == {"card/sheet.png": "missing", "card/other.png": "stray"}


# ---- what was recorded wrongly -----------------------------------------------------------------


def recorded_wrongly(folder: Path, spoil: Callable[[Row, Path], Row]) -> dict[str, str]:
    """A corpus whose sums agree, though the writer of one volume slipped."""
    with publish(folder, Record(kind="corpus", recipe={})) as workspace:
        make_folders(workspace)
        entry = random_entry(workspace, 0)
        assert isinstance(entry, Row)
        path = workspace / volume_file(entry.id)
        row = spoil(entry, path)
        Receipts(workspace).append([replace(row, file_sha256=sha256_of_file(path))])
        finish(workspace, fold(workspace), TEST_ABOUT)
    faults = verify(folder).faults
    return {fault.kind: fault.detail for fault in faults}


def test_a_header_that_does_not_say_what_the_row_says_is_a_fault(tmp_path: Path) -> None:
    def in_header(name: str, value: object) -> Callable[[Row, Path], Row]:
        def spoil(row: Row, path: Path) -> Row:
            image = nib.load(path)
            image.header[name] = value
            nib.Nifti1Image(np.asarray(image.dataobj), None, image.header).to_filename(path)
            data = bytearray(gzip.decompress(path.read_bytes()))
            header = nib.Nifti1Header(bytes(data[:348]), check=False)
            header[name] = value
            path.write_bytes(gzip.compress(header.binaryblock + bytes(data[348:])))
            return row

        return spoil

    for n, (name, value, said) in enumerate(
        (
            ("scl_slope", 2.0, "slope"),
            ("scl_inter", 1.0, "intercept"),
            ("sform_code", 2, "form codes"),
            ("xyzt_units", 1, "unit is meter"),
            ("qoffset_x", 4.0, "sform and qform differ"),
            ("srow_x", (-20.0, 0, 0, 0), "LAS"),
            ("srow_y", (0, 0, 0, 0), "singular"),
            ("pixdim", (1, 21.0, 20, 20, 1, 1, 1, 1), "voxels of"),
            ("datatype", 512, "datatype is uint16"),
            ("dim", (3, 16, 8, 32, 1, 1, 1, 1), "shape is"),
            ("descrip", b"fine", ""),
        )
    ):
        kinds = recorded_wrongly(tmp_path / str(n), in_header(name, value))
        assert (said in kinds["header"]) if said else not kinds, (name, kinds)


def test_voxels_and_streams_that_are_not_the_rows_are_faults(tmp_path: Path) -> None:
    def other_voxels(row: Row, path: Path) -> Row:
        return replace(row, voxel_sha256="0" * 64)

    def two_members(row: Row, path: Path) -> Row:
        path.write_bytes(path.read_bytes() + gzip.compress(b"more"))
        return row

    def cut(row: Row, path: Path) -> Row:
        os.truncate(path, path.stat().st_size - 4)
        return row

    def crc(row: Row, path: Path) -> Row:
        data = bytearray(path.read_bytes())
        data[-8] ^= 1
        path.write_bytes(data)
        return row

    assert set(recorded_wrongly(tmp_path / "a", other_voxels)) == {"voxels"}
    for n, spoil in enumerate((two_members, cut, crc)):
        assert set(recorded_wrongly(tmp_path / str(n), spoil)) == {"gzip"}, spoil


def test_a_manifest_that_says_other_than_the_receipts_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish_with(change: Callable[[Path], None]) -> dict[str, str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        with publish(folder, Record(kind="corpus", recipe={})) as workspace:
            make_folders(workspace)
            Receipts(workspace).append([random_entry(workspace, n) for n in range(9)])
            finish(workspace, fold(workspace), TEST_ABOUT)
            change(workspace)
        return found(folder)

    def other_row(workspace: Path) -> None:
        rows = list(read_manifest(workspace))
        write_manifest(workspace, [replace(rows[0], patient="p1234"), *rows[1:]])

    def row_less(workspace: Path) -> None:
        write_manifest(workspace, list(read_manifest(workspace))[:-1])

    def other_count(workspace: Path) -> None:
        for path in (workspace / "corpus.json", workspace / "receipts" / "corpus.json"):
            path.write_text(path.read_text().replace('"committed":7', '"committed":8'))
            path.write_text(path.read_text().replace('"committed": 7', '"committed": 8'))

    assert publish_with(other_row) == {"manifest.parquet": "disagrees"}
    assert publish_with(row_less) == {"manifest.parquet": "disagrees"}
    assert publish_with(other_count) == {"corpus.json": "disagrees"}
    assert publish_with(lambda workspace: None) == {}


def test_the_command_answers_in_lines_and_json_and_fails_with_findings(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*options: str) -> int:
        arguments = ["corpus", "verify", str(corpus), "--workers", "0", *options]
        return guarded(lambda given: app(args=given, standalone_mode=False), arguments)

    assert command("--json") == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "volumes": 23, "faults": []}
    (corpus / "README.md").unlink()
    assert command("--json") == 1
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert set(fault) == {"file", "kind", "detail"}
    assert command() == 1
    assert "README.md: missing" in capsys.readouterr().out

"""From a source folder to a cohort: nothing lost, nothing twice, nothing leaked."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from synth_ct.cohort import Case, Cohort
from synth_ct.cohort.case import Findings, Found, Importer
from synth_ct.cohort.divide import eighty_ten_ten
from synth_ct.cohort.gather import ingest
from synth_ct.kit.artifact import Record, partial_of
from synth_ct.kit.durable import sha256_of_file
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import Refused, SetAside, read_report

READER = """
import hashlib, os, signal
from pathlib import Path
from synth_ct.cohort.case import Case, Found
from synth_ct.kit.quarantine import Refused

def read(item: Found, workspace: Path) -> Case:
    data = item.files[0].read_bytes()
    if data == b"poison":
        os.kill(os.getpid(), signal.SIGKILL)
    if data == b"bad":
        raise Refused("E_BAD", "it is bad", "mend it")
    return Case(id=hashlib.sha256(data).hexdigest()[:16])
"""


def read(item: Found, workspace: Path) -> Case:
    data = item.files[0].read_bytes()
    if data == b"bad":
        raise Refused("E_BAD", "it is bad", "mend it")
    (workspace / "volumes").mkdir(exist_ok=True)
    name = hashlib.sha256(item.name.encode() + data).hexdigest()[:16]
    (workspace / "volumes" / name).write_bytes(data)
    pixels = hashlib.sha256(data).hexdigest()
    return Case(id=name, file=f"volumes/{name}", pixels_sha256=pixels)


def find(source: Path) -> Findings:
    """`<patient>-<anything>.<split>` -> one candidate."""
    rows = [
        Found(
            name=p.name,
            files=(p,),
            patient=p.name.split("-")[0],
            split=p.suffix[1:] or None,  # type: ignore[arg-type]
        )
        for p in sorted(source.iterdir())
    ]
    return Findings(found=rows)


IMPORTER = Importer(
    name="toy", kind="ct", find=find, read=read, divide=eighty_ten_ten, about={"title": "toy"}
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for patient in range(10):
        for scan in range(2):
            part = "train" if scan else "test"
            (folder / f"Doe{patient}-{scan}.{part}").write_bytes(b"voxels %d %d" % (patient, scan))
    (folder / "Doe0-copy.train").write_bytes(b"voxels 0 0")
    (folder / "Doe1-bad.train").write_bytes(b"bad")
    return folder


def test_every_candidate_is_accepted_or_quarantined(source: Path, tmp_path: Path) -> None:
    summary = ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    assert (summary.total, summary.accepted, summary.quarantined) == (22, 20, 2)
    assert (summary.duplicates, summary.patients, summary.leaking_patients) == (1, 10, 10)
    assert len(Cohort.open(tmp_path / "out").cases) == 20


def test_the_report_names_file_code_cause_and_the_kept_copy(source: Path, tmp_path: Path) -> None:
    ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    bad, copy = sorted(read_report(tmp_path / "out"), key=lambda row: row.code)
    assert bad == SetAside(code="E_BAD", file="Doe1-bad.train", cause="it is bad", remedy="mend it")
    assert (copy.code, copy.file, copy.kept) == ("duplicate", "Doe0-copy.train", "Doe0-0.test")


def test_a_dropped_copy_leaves_no_volume_behind(source: Path, tmp_path: Path) -> None:
    ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    kept = {case.file for case in Cohort.open(tmp_path / "out").cases}
    assert {f"volumes/{p.name}" for p in (tmp_path / "out" / "volumes").iterdir()} == kept


def test_no_patient_stands_in_two_splits(source: Path, tmp_path: Path) -> None:
    ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    cases = Cohort.open(tmp_path / "out").cases
    assert {c.split for c in cases} == {"train", "val", "test"}
    assert len({(c.patient, c.split) for c in cases}) == len({c.patient for c in cases}) == 10


def test_no_source_name_reaches_the_index(source: Path, tmp_path: Path) -> None:
    ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    for name in ("cases.jsonl", "cohort.json", "record.json"):
        assert "Doe" not in (tmp_path / "out" / name).read_text()
    assert not (tmp_path / "out" / "receipts.jsonl").exists()


def test_a_second_run_finds_it_done(source: Path, tmp_path: Path) -> None:
    first = ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    before = (tmp_path / "out" / "record.json").stat().st_mtime_ns
    assert ingest(IMPORTER, source, tmp_path / "out", 0, Effort()) == first
    assert (tmp_path / "out" / "record.json").stat().st_mtime_ns == before


def test_another_source_under_an_old_name_is_refused(source: Path, tmp_path: Path) -> None:
    ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    (source / "Doe11-0.train").write_bytes(b"a new scan")
    with pytest.raises(ValueError, match=r"recipe\.listing"):
        ingest(IMPORTER, source, tmp_path / "out", 0, Effort())


def test_an_interrupted_import_reads_only_what_is_left(source: Path, tmp_path: Path) -> None:
    whole = ingest(IMPORTER, source, tmp_path / "whole", 0, Effort())
    seen: list[int] = []

    def stop_after_five(done: int) -> None:
        seen.append(done)
        if len(seen) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(IMPORTER, source, tmp_path / "out", 0, Effort(begin=lambda n: stop_after_five))
    journal = partial_of(tmp_path / "out") / "receipts.jsonl"
    with journal.open("a") as file:
        file.write('{"name": "torn')
    again: list[int] = []
    assert (
        ingest(IMPORTER, source, tmp_path / "out", 0, Effort(begin=lambda n: again.append)) == whole
    )
    assert again[0] == 5
    assert len(again) == 1 + 22 - 5
    same = [(tmp_path / n / "cases.jsonl").read_bytes() for n in ("whole", "out")]
    assert same[0] == same[1]


def test_a_file_that_changed_since_the_interruption_is_read_again(
    source: Path, tmp_path: Path
) -> None:
    def stop_at_the_end(done: int) -> None:
        if len(seen) == 22:
            raise KeyboardInterrupt
        seen.append(done)

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        ingest(IMPORTER, source, tmp_path / "out", 0, Effort(begin=lambda n: stop_at_the_end))
    (source / "Doe3-0.test").write_bytes(b"VOXELS 3 0")  # of the same size
    ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    kept = {path.read_bytes() for path in (tmp_path / "out" / "volumes").iterdir()}
    cases = Cohort.open(tmp_path / "out").cases
    pixels = {case.pixels_sha256 for case in cases}
    assert hashlib.sha256(b"VOXELS 3 0").hexdigest() in pixels
    assert b"VOXELS 3 0" in kept


def test_a_candidate_that_kills_its_process_is_found_and_the_rest_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lethal_reader.py").write_text(READER)
    monkeypatch.syspath_prepend(tmp_path)
    import lethal_reader  # type: ignore[import-not-found]

    (source / "Doe5-poison.train").write_bytes(b"poison")
    lethal = Importer(
        name="lethal",
        kind="ct",
        find=find,
        read=lethal_reader.read,
        divide=eighty_ten_ten,
        about={},
    )
    summary = ingest(lethal, source, tmp_path / "out", 0, Effort(workers=2))
    codes = {row.file: row.code for row in read_report(tmp_path / "out")}
    assert summary.accepted == 20
    assert codes["Doe5-poison.train"] == "E_CRASH"


def test_an_edited_index_is_refused(source: Path, tmp_path: Path) -> None:
    ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    index = tmp_path / "out" / "cases.jsonl"
    index.write_text(index.read_text().replace("train", "test"))
    with pytest.raises(ValueError, match=r"cases\.jsonl was changed"):
        Cohort.open(tmp_path / "out")


def test_a_folder_that_moves_with_its_source_still_finds_the_originals(
    source: Path, tmp_path: Path
) -> None:
    ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    rows = (tmp_path / "out" / "sources.csv").read_text().splitlines()
    assert all(row.split(",")[1].startswith("../source/") for row in rows[1:])
    assert all(p.exists() for p in Cohort.open(tmp_path / "out").source_paths().values())


def test_accounting_holds_in_the_file(source: Path, tmp_path: Path) -> None:
    ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    about = json.loads((tmp_path / "out" / "cohort.json").read_text())
    assert about["codes"] == {"E_BAD": 1, "duplicate": 1}
    assert about["summary"]["total"] == sum(
        (about["summary"][k]) for k in ("accepted", "quarantined")
    )


def test_a_folder_with_nothing_to_read_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(ValueError, match=r"nothing in .* looks like what `toy` reads"):
        ingest(IMPORTER, tmp_path / "source", tmp_path / "out", 0, Effort())


def test_a_cohort_is_never_made_inside_its_source(source: Path) -> None:
    (source / "sub").mkdir()
    for out in (source, source / "out", source / "sub" / ".." / "out"):
        with pytest.raises(ValueError, match="lies inside"):
            ingest(IMPORTER, source, out, 0, Effort())
    assert not partial_of(source / "out").exists()


def test_a_file_is_no_place_for_a_cohort(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(ValueError, match="is a file"):
        ingest(IMPORTER, source, tmp_path / "out", 0, Effort())


def test_a_slip_of_a_decoder_sets_one_input_aside(source: Path, tmp_path: Path) -> None:
    def slip(item: Found, workspace: Path) -> Case:
        if item.name == "Doe3-0.test":
            raise IndexError("list index out of range")
        return read(item, workspace)

    summary = ingest(replace(IMPORTER, read=slip), source, tmp_path / "out", 0, Effort())
    rows = {row.file: row for row in read_report(tmp_path / "out")}
    assert summary.accepted == 19
    assert rows["Doe3-0.test"].code == "E_READER"
    assert "IndexError" in rows["Doe3-0.test"].cause


def test_a_cohort_of_another_version_is_named_as_one(source: Path, tmp_path: Path) -> None:
    ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    index, record = (tmp_path / "out" / name for name in ("cohort.json", "record.json"))
    about = json.loads(index.read_text())
    about["summary"]["unheard_of"] = 1
    before = sha256_of_file(index)
    index.write_text(json.dumps(about))
    changed = json.loads(record.read_text().replace(before, sha256_of_file(index)))
    record.write_text(Record(**changed).sealed().text())
    with pytest.raises(ValueError, match=r"another version of synth-ct .*unheard_of"):
        Cohort.open(tmp_path / "out")

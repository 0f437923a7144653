"""The TCIA tree becomes a cohort: patients agreed on by header and folder, 916/102 without leak."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from synth_ct.cohort import Cohort
from synth_ct.cohort.case import Found
from synth_ct.cohort.gather import ingest
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import read_report
from synth_ct.sources.dicom import read_series
from synth_ct.sources.lidc import IMPORTER, divide, divide_exactly, find

MakeSeries = Callable[..., list[Dataset]]
WriteSeries = Callable[..., list[Path]]


def patients_with(counts: list[int]) -> dict[str, list[Found]]:
    return {
        f"LIDC-IDRI-{p:04d}": [
            Found(name=f"{p}/{k}", files=(), patient=f"LIDC-IDRI-{p:04d}") for k in range(count)
        ]
        for p, count in enumerate(counts)
    }


def scans(patients: dict[str, list[Found]], splits: dict[str, str]) -> Counter[str]:
    return Counter(splits[patient] for patient, rows in patients.items() for _ in rows)


# ---- the split -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_the_whole_collection_divides_into_916_and_102_scans(seed: int) -> None:
    patients = patients_with([2] * 8 + [1] * 1002)
    assert scans(patients, divide(patients, seed)) == {"train": 916, "test": 102}


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=60),
    st.integers(0, 100),
    st.integers(0, 2**31),
)
def test_patients_are_whole_and_the_count_is_met_where_singles_allow(
    counts: list[int], wanted: int, seed: int
) -> None:
    patients = patients_with(counts)
    splits = divide_exactly(patients, seed, wanted)
    assert splits.keys() == patients.keys()  # one part a patient: none can straddle
    reached = scans(patients, splits)["test"]
    assert reached <= wanted
    waiting = [len(rows) for p, rows in patients.items() if splits[p] == "train"]
    assert all(count > wanted - reached for count in waiting)
    assert divide_exactly(dict(reversed(patients.items())), seed, wanted) == splits


@pytest.mark.parametrize(("count", "test"), [(1, 0), (2, 1), (20, 2), (100, 10), (510, 51)])
def test_smaller_trees_keep_the_share(count: int, test: int) -> None:
    patients = patients_with([1] * count)
    assert scans(patients, divide(patients, 0))["test"] == test


def test_another_seed_draws_other_patients() -> None:
    patients = patients_with([1] * 100)
    assert divide(patients, 0) != divide(patients, 1)


# ---- the tree ------------------------------------------------------------------------------------


def of_patient(slices: list[Dataset], patient: str) -> list[Dataset]:
    for image in slices:
        image.PatientID = patient
    return slices


def test_the_tree_becomes_a_cohort_and_what_is_no_ct_is_passed_over(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    source = tmp_path / "LIDC-IDRI"
    old = write_series(
        make_series("1.2.3"), source / "LIDC-IDRI-0001" / "01-01-2000-30178" / "3000566-03192"
    )
    (old[0].parent / "069.xml").write_text("<LidcReadMessage/>")
    other = of_patient(make_series("1.2.4", spacing=1.25), "LIDC-IDRI-0002")
    write_series(other, source / "1.2.4")  # the flat layout: only the header names the patient
    blank = of_patient(make_series("1.2.5", spacing=2.0), "")
    write_series(blank, source / "LIDC-IDRI-0002" / "1.2.5")
    film = make_series("1.2.6")[:2]
    for image in film:
        image.Modality = "DX"
    write_series(film, source / "LIDC-IDRI-0001" / "films")
    broken = make_series("1.2.7")
    del broken[5]
    write_series(broken, source / "LIDC-IDRI-0001" / "broken")

    summary = ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    cohort = Cohort.open(tmp_path / "out")
    assert (summary.total, summary.accepted, summary.quarantined) == (4, 3, 1)
    assert summary.patients == 2
    about = json.loads((tmp_path / "out" / "cohort.json").read_text())
    assert about["ignored"] == {"DX": 1}
    (row,) = read_report(tmp_path / "out")
    assert (row.code, row.file) == ("E_DCM_GAP", "LIDC-IDRI-0001/broken/000.dcm")
    expected, _, sha256 = read_series(old)
    (case,) = [c for c in cohort.cases if c.id == sha256[:16]]
    kept = cohort.volume(case)
    np.testing.assert_array_equal(kept.array_XYZ, expected.array_XYZ)
    np.testing.assert_allclose(kept.affine, expected.affine, atol=1e-5)
    assert case.shape == (32, 32, 12)
    assert case.spacing_mm == (1.5, 1.25, 2.5)
    assert case.file == f"volumes/{case.id[:2]}/{case.id}.nii.gz"


def test_processes_and_a_second_copy_change_nothing(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    source = tmp_path / "source"
    for k in range(3):
        slices = of_patient(make_series(f"1.2.{k}", spacing=2 + k / 4), f"LIDC-IDRI-000{k}")
        write_series(slices, source / f"LIDC-IDRI-000{k}" / "a")
    write_series(slices, source / "LIDC-IDRI-0002" / "b")
    ingest(IMPORTER, source, tmp_path / "one", 0, Effort())
    summary = ingest(IMPORTER, source, tmp_path / "many", 0, Effort(workers=2))
    assert (summary.total, summary.accepted, summary.duplicates) == (4, 3, 1)
    for name in ("cases.jsonl", "cohort.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


@pytest.mark.parametrize(
    ("folder", "headers", "says"),
    [
        ("LIDC-IDRI-0007", ["LIDC-IDRI-0008"], "LIDC-IDRI-0007, LIDC-IDRI-0008"),
        ("somewhere", ["LIDC-IDRI-0007", "LIDC-IDRI-0008"], "LIDC-IDRI-0007, LIDC-IDRI-0008"),
        ("somewhere", [""], "neither"),
    ],
)
def test_a_series_of_doubtful_patient_is_set_aside(
    tmp_path: Path,
    make_series: MakeSeries,
    write_series: WriteSeries,
    folder: str,
    headers: list[str],
    says: str,
) -> None:
    slices = make_series()
    for k, image in enumerate(slices):
        image.PatientID = headers[k % len(headers)]
    write_series(slices, tmp_path / folder)
    findings = find(tmp_path)
    assert findings.found == []
    assert [row.code for row in findings.set_aside] == ["E_DCM_PATIENT"]
    assert says in findings.set_aside[0].cause


def test_one_patient_folder_can_be_the_source_itself(
    tmp_path: Path, make_series: MakeSeries, write_series: WriteSeries
) -> None:
    write_series(of_patient(make_series(), ""), tmp_path / "LIDC-IDRI-0009" / "a")
    (found,) = find(tmp_path / "LIDC-IDRI-0009").found
    assert found.patient == "LIDC-IDRI-0009"

"""A folder of CT as people have it: every container at once, odd names, links, lone halves."""

import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from synth_ct.cohort import Cohort
from synth_ct.cohort.gather import ingest
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import Refused, read_report
from synth_ct.sources import folder, radiographs

SHAPE = (14, 12, 10)


def scan(seed: int) -> np.ndarray:
    hu = np.random.default_rng(seed).integers(-1010, -990, SHAPE)
    hu[3:11, 3:9, :] = 40
    return hu.astype(np.int16)


def put(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(scan(seed).transpose(2, 1, 0))
    image.SetSpacing((2.0, 2.0, 2.5))
    sitk.WriteImage(image, path)
    return path


def patients(source: Path) -> dict[str, str]:
    return {item.name: item.patient for item in folder.find(source).found}


def test_all_containers_are_found_and_read(
    tmp_path: Path, make_series: Callable, write_series: Callable
) -> None:
    source = tmp_path / "in"
    for seed, name in enumerate(("a.nii", "b.nii.gz", "c.nrrd", "d.nhdr", "e.mha", "f.MHD")):
        put(source / name.lower(), seed)
    (source / "f.mhd").rename(source / "f.MHD")
    write_series(make_series(), source / "dicom")
    nib.Nifti1Pair(scan(7), np.diag([2.0, 2, 2, 1])).to_filename(source / "g.hdr")
    (source / "README.txt").write_text("how this was collected")
    ingest(folder.IMPORTER, source, tmp_path / "out", 0, Effort())
    cohort = Cohort.open(tmp_path / "out")
    assert (cohort.kind, len(cohort.cases), read_report(tmp_path / "out")) == ("ct", 8, [])
    assert {case.split for case in cohort.cases} == {"train", "val", "test"}
    np.testing.assert_array_equal(
        {case.id: cohort.volume(case) for case in cohort.cases}[
            next(i for i, path in cohort.source_paths().items() if path.name == "g.hdr")
        ].array_XYZ,
        scan(7),
    )


def test_the_same_scan_in_two_containers_is_kept_once(tmp_path: Path) -> None:
    put(tmp_path / "in/a.nii.gz", 1)
    put(tmp_path / "in/b.nrrd", 1)
    summary = ingest(folder.IMPORTER, tmp_path / "in", tmp_path / "out", 0, Effort())
    assert (summary.total, summary.accepted, summary.duplicates) == (2, 1, 1)
    assert read_report(tmp_path / "out")[0].kept == "a.nii.gz"


def test_the_cohort_is_the_same_from_one_process_and_from_two(tmp_path: Path) -> None:
    for seed in range(4):
        put(tmp_path / f"in/{seed}.nii.gz", seed)
    (tmp_path / "in/bad.nii.gz").write_bytes(b"")
    for workers in (0, 2):
        out = tmp_path / f"out{workers}"
        ingest(folder.IMPORTER, tmp_path / "in", out, 0, Effort(workers=workers))
    one, two = (Cohort.open(tmp_path / f"out{workers}") for workers in (0, 2))
    assert one.cases == two.cases
    assert one.record.fingerprint == two.record.fingerprint


def test_a_flat_folder_names_patients_by_stem(tmp_path: Path) -> None:
    put(tmp_path / "p1.nii.gz", 1)
    put(tmp_path / "p2.mha", 2)
    assert patients(tmp_path) == {"p1.nii.gz": "p1", "p2.mha": "p2"}


def test_a_folder_a_patient_names_patients_by_folder(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        put(tmp_path / f"P{number}/ct.nii.gz", number)
        put(tmp_path / f"P{number}/late.nii.gz", number + 10)
    found = patients(tmp_path)
    assert found["P1/ct.nii.gz"] == found["P1/late.nii.gz"] == "P1"
    assert len(set(found.values())) == 3


def test_a_series_belongs_to_its_patient_id(
    tmp_path: Path, make_series: Callable, write_series: Callable
) -> None:
    for series in ("1.2.3", "1.2.4"):
        write_series(make_series(series), tmp_path / series)
    assert len(set(patients(tmp_path).values())) == 1
    mixed = make_series("1.2.5")
    mixed[3].PatientID = "SOMEBODY-ELSE"
    write_series(mixed, tmp_path / "mixed")
    (row,) = folder.find(tmp_path).set_aside
    assert row.code == "E_DCM_PATIENT"


def test_a_series_named_like_volumes_is_read_as_the_series_it_is(
    tmp_path: Path, make_series: Callable, write_series: Callable
) -> None:
    for path in write_series(make_series(), tmp_path / "in"):
        path.rename(path.with_suffix(".nii"))
    summary = ingest(folder.IMPORTER, tmp_path / "in", tmp_path / "out", 0, Effort())
    assert (summary.total, summary.accepted) == (1, 1)


def test_an_unreadable_file_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a.nii.gz", 1)

    def fail(path: Path) -> bool:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("synth_ct.sources.dicom_series.is_dicom", fail)
    findings = folder.find(tmp_path)
    assert [row.code for row in findings.set_aside] == ["E_UNREADABLE"]
    assert findings.found == []


def test_pipes_are_passed_over_and_never_waited_for(tmp_path: Path) -> None:
    put(tmp_path / "a.nii.gz", 1)
    os.mkfifo(tmp_path / "pipe.nii")
    os.mkfifo(tmp_path / "pipe.png")
    assert patients(tmp_path) == {"a.nii.gz": "a"}
    names = [item.name for item in radiographs.find(tmp_path).found]
    assert names == ["a.nii.gz"]


def test_halves_without_the_other_half_are_named(tmp_path: Path) -> None:
    nib.Nifti1Pair(scan(1), np.eye(4)).to_filename(tmp_path / "a.hdr")
    nib.Nifti1Pair(scan(2), np.eye(4)).to_filename(tmp_path / "b.hdr")
    (tmp_path / "a.hdr").unlink()
    (tmp_path / "b.img").unlink()
    findings = folder.find(tmp_path)
    assert [(row.code, row.file) for row in findings.set_aside] == [("E_PAIR_MISSING", "a.img")]
    with pytest.raises(Refused, match="E_PAIR_MISSING"):
        folder.read(findings.found[0], tmp_path / "out")


def test_links_out_of_the_folder_are_set_aside_and_twins_of_macos_ignored(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside/secret.nii.gz", 1)
    put(tmp_path / "in/a.nii.gz", 2)
    (tmp_path / "in/._a.nii.gz").write_bytes(b"\0\5\x16\7")
    (tmp_path / "in/link.nii.gz").symlink_to(outside)
    (tmp_path / "in/folder").symlink_to(outside.parent)
    findings = folder.find(tmp_path / "in")
    assert [item.name for item in findings.found] == ["a.nii.gz"]
    assert [(row.code, row.file) for row in findings.set_aside] == [
        ("E_PATH_ESCAPE", "folder"),
        ("E_PATH_ESCAPE", "link.nii.gz"),
    ]


ODD_NAMES = (
    "caf\u00e9", "cafe\u0301", "new\nline", "a,b", "=cmd()", "\U0001fac1", "x" * 240, " ", "\udcff",
)  # fmt: skip


def test_odd_names_are_read_and_never_reach_the_index(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for seed, name in enumerate(ODD_NAMES):
        made = put(tmp_path / "a.nii.gz", seed).read_bytes()
        Path(os.fsdecode(os.fsencode(str(source))), f"{name}.nii.gz").write_bytes(made)
    (source / "bad\n,=\udcfe.nii.gz").write_bytes(b"")
    summary = ingest(folder.IMPORTER, source, tmp_path / "out", 0, Effort())
    assert (summary.accepted, summary.quarantined) == (len(ODD_NAMES), 1)
    assert read_report(tmp_path / "out")[0].file.isprintable()
    paths = Cohort.open(tmp_path / "out").source_paths()
    assert all(path.exists() for path in paths.values())
    assert len(set(paths.values())) == len(ODD_NAMES)


def test_one_ct_for_the_command_line(
    tmp_path: Path, make_series: Callable, write_series: Callable
) -> None:
    np.testing.assert_array_equal(
        folder.read_any_ct(put(tmp_path / "a.nii.gz", 1)).array_XYZ.shape, SHAPE
    )
    write_series(make_series(), tmp_path / "series")
    assert folder.read_any_ct(tmp_path / "series").array_XYZ.ndim == 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds 0 CT series"):
        folder.read_any_ct(tmp_path / "empty")
    (tmp_path / "bad.nii").write_bytes(b"")
    with pytest.raises(Refused, match=r"bad\.nii: not a NIfTI"):
        folder.read_any_ct(tmp_path / "bad.nii")


@pytest.mark.real_data
def test_the_real_folder_is_accepted_whole_and_upright(real_data: Path, tmp_path: Path) -> None:
    summary = ingest(folder.IMPORTER, real_data / "ct", tmp_path / "out", 0, Effort())
    assert (summary.total, summary.accepted) == (6, 6)
    cohort = Cohort.open(tmp_path / "out")
    for case in cohort.cases:
        affine = cohort.volume(case).affine
        assert nib.aff2axcodes(affine) == ("R", "A", "S")
        assert np.abs(affine[:3, 3]).max() > 1
        assert case.spacing_mm == (2.5, 2.5, 2.5)

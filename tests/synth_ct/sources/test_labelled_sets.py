"""Data sets in the layouts people have them in: what is found, set aside and written."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from synth_ct.cohort import Cohort
from synth_ct.cohort.case import Importer
from synth_ct.cohort.gather import ingest
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import read_report
from synth_ct.sources import bcv, ctspine1k, labelled, msd
from synth_ct.sources.importers import IMPORTERS

SHAPE = (20, 16, 12)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
SECRETS = ("DOE^JANE", "MRN-774411", "Dr. Sentinel")


def put_image(path: Path, seed: int) -> None:
    hu = np.random.default_rng(seed).integers(-1010, -990, SHAPE)
    hu[4:16, 3:13, :] = 40
    put(path, hu.astype(np.int16))


def put_label(path: Path, number: int = 1) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:8, 5:9, 3:8] = number
    put(path, labels)


def put(path: Path, array: np.ndarray) -> None:
    """A file whose header and gzip stream name a person."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, AFFINE)
    for field, secret in zip(("descrip", "aux_file", "db_name"), SECRETS, strict=True):
        image.header[field] = secret.encode()
    note = nib.nifti1.Nifti1Extension(6, b"comment about DOE^JANE and MRN-774411")
    image.header.extensions.append(note)
    with gzip.GzipFile(path, "wb", 1) as file:
        file.write(image.to_bytes())


def table(root: Path, **content: Any) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(content))


def decathlon(root: Path, names: Mapping[str, int], **more: Any) -> None:
    for name, seed in names.items():
        put_image(root / f"imagesTr/{name}.nii.gz", seed)
        put_label(root / f"labelsTr/{name}.nii.gz")
    listed = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
        for name in names
    ]
    content = {"labels": {"0": "background", "1": "spleen"}, "modality": {"0": "CT"}}
    table(root, **{**content, "training": listed, "numTraining": len(listed), **more})


def nnunet(root: Path, names: Mapping[str, int], **more: Any) -> None:
    for name, seed in names.items():
        put_image(root / f"imagesTr/{name}_0000.nii.gz", seed)
        put_label(root / f"labelsTr/{name}.nii.gz", 2)
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "spleen": 2}}
    table(root, **{**content, "numTraining": len(names), "file_ending": ".nii.gz", **more})


def cohort_of(importer: Importer, source: Path, tmp_path: Path) -> Cohort:
    ingest(importer, source, tmp_path / "out", 0, Effort())
    return Cohort.open(tmp_path / "out")


def codes(tmp_path: Path) -> dict[str, str]:
    return {row.file: row.code for row in read_report(tmp_path / "out")}


# ---- what is found -------------------------------------------------------------------------------


def test_the_spleen_task_is_read_by_its_list_without_macos_twins(tmp_path: Path) -> None:
    root = tmp_path / "Task09_Spleen"
    decathlon(root, {"spleen_1": 1, "spleen_2": 2})
    for twin in ("imagesTr/._spleen_1.nii.gz", "labelsTr/._spleen_1.nii.gz"):
        (root / twin).write_bytes(b"\0\5\x16\7 Mac OS X")
    put_image(root / "imagesTs/spleen_9.nii.gz", 9)
    cohort = cohort_of(msd.IMPORTER, root, tmp_path)
    assert len(cohort.cases) == len(cohort.of("train")) == 2
    assert cohort.classes == {1: "spleen"}
    assert codes(tmp_path) == {}


def test_the_folder_that_holds_the_task_will_do(tmp_path: Path) -> None:
    decathlon(tmp_path / "in/Task09_Spleen", {"a": 1})
    assert len(cohort_of(msd.IMPORTER, tmp_path / "in", tmp_path).cases) == 1


def test_another_task_is_not_taken_for_the_spleen(tmp_path: Path) -> None:
    decathlon(tmp_path / "in", {"a": 1}, labels={"0": "background", "1": "liver"})
    with pytest.raises(ValueError, match="not the spleen"):
        msd.find(tmp_path / "in")


@pytest.mark.parametrize("folders", [("img", "label"), ("imagesTr", "labelsTr"), (".", ".")])
def test_bcv_is_matched_by_number_and_its_test_images_passed_over(
    folders: tuple[str, str], tmp_path: Path
) -> None:
    root = tmp_path / "RawData"
    for number in (1, 2):
        put_image(root / f"Training/{folders[0]}/img000{number}.nii.gz", number)
        put_label(root / f"Training/{folders[1]}/label000{number}.nii.gz")
    put_image(root / "Testing/img/img0061.nii.gz", 61)
    cohort = cohort_of(bcv.IMPORTER, root, tmp_path)
    assert (len(cohort.cases), cohort.summary.patients) == (2, 2)
    assert cohort.classes[6] == "liver"
    assert len(cohort.classes) == 13
    assert codes(tmp_path) == {}


def test_bcv_is_read_by_a_decathlon_list_too(tmp_path: Path) -> None:
    decathlon(tmp_path / "in", {"img0001": 1, "img0002": 2})
    assert len(cohort_of(bcv.IMPORTER, tmp_path / "in", tmp_path).cases) == 2


def test_nnunet_raw_gives_any_classes(tmp_path: Path) -> None:
    nnunet(tmp_path / "in", {"case_a": 1, "case_b": 2})
    cohort = cohort_of(labelled.IMPORTER, tmp_path / "in", tmp_path)
    assert cohort.classes == {1: "liver", 2: "spleen"}
    assert set(np.unique(cohort.labels(cohort.cases[0]).array_XYZ)) == {0, 2}


def test_decathlon_gives_the_same_through_the_general_importer(tmp_path: Path) -> None:
    decathlon(tmp_path / "in", {"a": 1, "b": 2})
    cohort = cohort_of(labelled.IMPORTER, tmp_path / "in", tmp_path)
    assert (len(cohort.cases), cohort.classes) == (2, {1: "spleen"})


def test_spine_volumes_find_their_labels_in_any_folder(tmp_path: Path) -> None:
    root = tmp_path / "in"
    put_image(root / "volumes/liver_1.nii.gz", 1)
    put_label(root / "completed/train/liver_1_seg.nii.gz", 20)
    put_image(root / "volumes/liver_2.nii.gz", 2)
    put_label(root / "completed/lost_seg.nii.gz", 20)
    cohort = cohort_of(ctspine1k.IMPORTER, root, tmp_path)
    assert (len(cohort.cases), cohort.classes[20], cohort.classes[25]) == (1, "L1", "L6")
    assert set(codes(tmp_path).values()) == {"E_PAIR_MISSING"}


# ---- what is set aside ---------------------------------------------------------------------------


def test_every_image_and_label_without_partner_is_named_at_once(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in ("img0001", "img0002", "img0003"):
        put_image(root / f"img/{name}.nii.gz", 1)
    put_label(root / "label/label0003.nii.gz")
    put_label(root / "label/label0004.nii.gz")
    cohort = cohort_of(bcv.IMPORTER, root, tmp_path)
    assert (cohort.summary.total, cohort.summary.accepted) == (4, 1)
    assert set(codes(tmp_path)) == {
        "img/img0001.nii.gz",
        "img/img0002.nii.gz",
        "label/label0004.nii.gz",
    }


@pytest.mark.parametrize(
    "path", ["../outside.nii.gz", "/etc/passwd", "imagesTr/../../outside.nii.gz"]
)
def test_a_list_cannot_lead_out_of_its_folder(path: str, tmp_path: Path) -> None:
    put_image(tmp_path / "outside.nii.gz", 5)
    decathlon(tmp_path / "in", {"a": 1})
    content = json.loads((tmp_path / "in/dataset.json").read_text())
    content["training"].append({"image": path, "label": "labelsTr/a.nii.gz"})
    table(tmp_path / "in", **{**content, "numTraining": 2})
    cohort = cohort_of(labelled.IMPORTER, tmp_path / "in", tmp_path)
    assert len(cohort.cases) == 1
    assert codes(tmp_path) == {"dataset.json: training[1]": "E_PATH_ESCAPE"}


@pytest.mark.parametrize(
    "path", ["a\0b.nii.gz", "x" * 300 + ".nii.gz", "imagesTr/lost\n,=cmd().nii.gz", "\ud800.nii"]
)
def test_a_listed_name_that_is_none_is_set_aside_and_shown_harmless(
    path: str, tmp_path: Path
) -> None:
    decathlon(tmp_path / "in", {"a": 1})
    content = json.loads((tmp_path / "in/dataset.json").read_text())
    content["training"].append({"image": path, "label": "labelsTr/a.nii.gz"})
    table(tmp_path / "in", **{**content, "numTraining": 2})
    findings = labelled.find(tmp_path / "in")
    assert [(row.code, row.file) for row in findings.set_aside] == [
        ("E_PAIR_MISSING", "dataset.json: training[1]")
    ]
    assert findings.set_aside[0].cause.isprintable()
    assert len(findings.found) == 1


def test_links_that_lead_out_are_set_aside(tmp_path: Path) -> None:
    put_image(tmp_path / "outside.nii.gz", 5)
    nnunet(tmp_path / "in", {"a": 1})
    (tmp_path / "in/imagesTr/b_0000.nii.gz").symlink_to(tmp_path / "outside.nii.gz")
    decathlon(tmp_path / "list", {"a": 1, "b": 2})
    (tmp_path / "list/imagesTr/b.nii.gz").unlink()
    (tmp_path / "list/imagesTr/b.nii.gz").symlink_to(tmp_path / "outside.nii.gz")
    assert [row.code for row in labelled.find(tmp_path / "in").set_aside] == ["E_PATH_ESCAPE"]
    assert [row.code for row in labelled.find(tmp_path / "list").set_aside] == ["E_PATH_ESCAPE"]


def test_several_channels_are_not_guessed_at(tmp_path: Path) -> None:
    nnunet(tmp_path / "in", {"a": 1}, channel_names={"0": "CT", "1": "PET"})
    decathlon(tmp_path / "list", {"a": 1}, modality={"0": "CT", "1": "PET"})
    nnunet(tmp_path / "more", {"a": 1, "b": 2})
    put_image(tmp_path / "more/imagesTr/b_0001.nii.gz", 3)
    for name, left in (("in", 0), ("list", 0), ("more", 1)):
        findings = labelled.find(tmp_path / name)
        assert [row.code for row in findings.set_aside] == ["E_PAIR_CHANNELS"]
        assert len(findings.found) == left


def test_a_partial_download_is_noticed(tmp_path: Path) -> None:
    decathlon(tmp_path / "list", {"a": 1}, numTraining=41)
    nnunet(tmp_path / "in", {"a": 1}, numTraining=2)
    decathlon(tmp_path / "lost", {"a": 1, "b": 2})
    (tmp_path / "lost/labelsTr/b.nii.gz").unlink()
    for name in ("list", "in", "lost"):
        findings = labelled.find(tmp_path / name)
        assert [row.code for row in findings.set_aside] == ["E_PAIR_MISSING"]
        assert len(findings.found) == 1


def test_an_image_no_list_names_is_said(tmp_path: Path) -> None:
    decathlon(tmp_path / "in", {"a": 1})
    put_image(tmp_path / "in/imagesTr/extra.nii.gz", 2)
    (row,) = labelled.find(tmp_path / "in").set_aside
    assert (row.code, row.file) == ("E_PAIR_MISSING", "imagesTr/extra.nii.gz")


def test_an_entry_listed_twice_counts_once(tmp_path: Path) -> None:
    decathlon(tmp_path / "in", {"a": 1})
    content = json.loads((tmp_path / "in/dataset.json").read_text())
    table(tmp_path / "in", **{**content, "training": content["training"] * 2, "numTraining": 2})
    findings = labelled.find(tmp_path / "in")
    assert len(findings.found) == 1
    assert [row.code for row in findings.set_aside] == ["duplicate"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{", "not valid JSON"),
        ("[]", "no table"),
        ('{"labels": {}}', "training"),
        ('{"labels": {"a": [1, 2]}, "training": []}', "regions"),
        ('{"labels": {"a": 1, "b": 1}, "training": []}', "twice"),
        ('{"labels": {"a": 999}, "training": []}', "255"),
        ('{"labels": {"a": 1, "ignore": 2}, "training": []}', "ignore"),
        ('{"labels": {"a": 1}, "training": ["x"]}', "must name"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_broken_table_is_a_matter_for_the_person(content: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ValueError, match=what):
        labelled.find(tmp_path)


def test_an_archive_or_a_file_is_answered_with_what_to_do(tmp_path: Path) -> None:
    for name in ("set.zip", "set.tar", "set.tar.gz", "set.tgz", "set.7z", "SET.ZIP"):
        (tmp_path / name).write_bytes(b"PK")
        for importer in IMPORTERS.values():
            with pytest.raises(ValueError, match="unpack it"):
                importer.find(tmp_path / name)
    (tmp_path / "one.nii").write_bytes(b"")
    with pytest.raises(ValueError, match="give the folder"):
        bcv.find(tmp_path / "one.nii")
    with pytest.raises(ValueError, match="does not exist"):
        msd.find(tmp_path / "nowhere")


# ---- what is written -----------------------------------------------------------------------------


def test_no_name_from_a_header_or_a_file_reaches_the_cohort(tmp_path: Path) -> None:
    names = {"DOE_JANE_19700101": 1, "MRN-774411": 2}
    nnunet(tmp_path / "in", names)
    cohort_of(labelled.IMPORTER, tmp_path / "in", tmp_path)
    planted = [secret.encode() for secret in (*SECRETS, *names)]
    local = {"quarantine.json", "sources.csv"}
    files = [f for f in (tmp_path / "out").rglob("*") if f.is_file() and f.name not in local]
    assert len(files) >= 6
    for file in files:
        data = file.read_bytes()
        data += gzip.decompress(data) if file.suffix == ".gz" else b""
        assert not [secret for secret in planted if secret in data]
        assert not [secret for secret in names if secret in str(file.relative_to(tmp_path))]


def test_one_image_annotated_twice_keeps_the_first_whole(tmp_path: Path) -> None:
    decathlon(tmp_path / "s", {"spleen_1": 1, "spleen_2": 1})
    fewer = np.zeros(SHAPE, np.uint8)
    fewer[5:8, 5:9, 3:5] = 1
    put(tmp_path / "s/labelsTr/spleen_2.nii.gz", fewer)
    ingest(msd.IMPORTER, tmp_path / "s", tmp_path / "out", 0, Effort())
    cohort = Cohort.open(tmp_path / "out")
    (case,) = cohort.cases
    assert cohort.labels(case).array_XYZ.sum() > fewer.sum()
    assert [row.code for row in read_report(tmp_path / "out")] == ["duplicate"]

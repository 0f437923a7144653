"""Cases are brought to the network's grid once, and mapped by every fit."""

import json
import os
from dataclasses import replace
from pathlib import Path

import fits
import numpy as np
import pytest
import torch
from fits import CLASSES, FINETUNING, SHOWN, SPACING, fit_recipe, labelled_case, make_labelled

from finetune.cases import SHOWN as TOLD
from finetune.cases import cases_stage, channels_of, open_cases, places_inside
from finetune.predict import predict
from finetune.results import open_fit
from finetune.shown import Shown, as_shown
from finetune.stage import open_network, receiver_of
from synth_ct.cohort import Case, Cohort
from synth_ct.cohort.case import Found
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.axes import HuArray, LabelArray, VoxelArray
from synth_ct.kit.effort import Effort
from synth_ct.kit.recipe import changed
from synth_ct.kit.volume import LabelMap, Volume, load_labels, save

CPU = torch.device("cpu")
RECORD = Record(kind="cohorts/boxes_cases", recipe={})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return Cohort.open(make_labelled(tmp_path_factory.mktemp("cohort") / "boxes", patients=3))


@pytest.fixture
def cases(cohort: Cohort, tmp_path: Path) -> Path:
    return prepared(tmp_path / "cases", cohort)


def prepared(folder: Path, cohort: Cohort) -> Path:
    with publish(folder, RECORD) as workspace:
        cases_stage(SHOWN, workspace, {"cohorts/boxes": cohort.folder}, Effort())
    return folder


def nearest(label_XYZ: LabelArray, spacing: tuple[float, ...]) -> LabelArray:
    """The voxel in which the centre of each new voxel lies."""
    index = []
    for side, old, new in zip(label_XYZ.shape, SPACING, spacing, strict=True):
        centres = (np.arange(round(side * old / new)) + 0.5) * new
        index.append((centres / old).astype(int))
    nearest_XYZ: LabelArray = label_XYZ[np.ix_(*index)]
    return nearest_XYZ


def test_arrays_are_the_case_as_it_is_shown_and_its_nearest_labels(
    cohort: Cohort, cases: Path
) -> None:
    found = open_cases(cases, SHOWN, cohort.cases, CPU)
    for case, each in zip(cohort.cases, found, strict=True):
        image_XYZ, label_XYZ = each.image_XYZ.numpy(), each.label_XYZ.numpy()
        assert image_XYZ.dtype == np.float32
        assert label_XYZ.dtype == np.uint8
        np.testing.assert_array_equal(image_XYZ, as_shown(cohort.volume(case), SHOWN))
        own_XYZ = cohort.labels(case).array_XYZ
        np.testing.assert_array_equal(label_XYZ, nearest(own_XYZ, SHOWN.spacing_mm))
        assert {*np.unique(label_XYZ)} == {0, *CLASSES}


def test_only_the_cases_asked_for_are_opened_in_their_order(cohort: Cohort, cases: Path) -> None:
    every = open_cases(cases, SHOWN, cohort.cases, CPU)
    two = open_cases(cases, SHOWN, cohort.cases[2:0:-1], CPU)
    assert len(two) == 2
    for found, expected in zip(two, every[2:0:-1], strict=True):
        assert torch.equal(found.image_XYZ, expected.image_XYZ)


def test_images_are_mapped_and_nobody_can_change_them_for_the_others(
    cohort: Cohort, cases: Path
) -> None:
    (mine,) = open_cases(cases, SHOWN, cohort.cases[:1], CPU)
    path = cases / f"{cohort.cases[0].id}.image.npy"
    with path.open("r+b") as file:  # before anybody looked: what is read now lies in the file
        file.seek(-4, os.SEEK_END)
        file.write(np.float32(0.625).tobytes())
    assert mine.image_XYZ[-1, -1, -1] == 0.625
    mine.image_XYZ[0, 0, 0] = 7
    (others,) = open_cases(cases, SHOWN, cohort.cases[:1], CPU)
    assert others.image_XYZ[0, 0, 0] != 7


def test_places_inside_are_those_of_each_class_that_is_there() -> None:
    label_XYZ = torch.zeros(3, 4, 5, dtype=torch.uint8)
    label_XYZ[0, 1, 2] = label_XYZ[2, 3, 4] = 3
    label_XYZ[1, 0, 0] = 1
    places = {number: each.tolist() for number, each in places_inside(label_XYZ).items()}
    assert places == {1: [20], 3: [7, 59]}
    assert places_inside(torch.zeros(2, 2, 2, dtype=torch.uint8)) == {}


# ---- ids with gaps -----------------------------------------------------------------------------

GAPS = {1: 2, 2: 7}


def with_gaps(found: Found, folder: Path) -> Case:
    """The boxes, their labels called 2 and 7."""
    case = labelled_case(int(found.patient), folder)
    labels = load_labels(folder / case.label_file, case.label_sha256)
    ids = np.array([0, *GAPS.values()], np.uint8)
    sha256 = save(LabelMap(ids[labels.array_XYZ], labels.affine), folder / case.label_file)
    return replace(case, label_sha256=sha256)


def test_ids_with_gaps_become_channels_and_come_back_as_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "read_numbered", with_gaps)
    monkeypatch.setattr(fits, "CLASSES", {7: "liver", 2: "spleen"})
    inputs = fits.make_inputs(tmp_path, patients=3)
    cohort = Cohort.open(inputs["cohorts/boxes"])
    for each in open_cases(inputs["cohorts/boxes_cases"], SHOWN, cohort.cases, CPU):
        assert {*np.unique(each.label_XYZ)} == {*each.inside, 0} == {0, 1, 2}
    fit = fits.make_fit(tmp_path / "fit", inputs)
    network = open_network(receiver_of(fit_recipe(), cohort.classes), fit)
    files = json.loads((fit / "predictions.json").read_text())
    (case,) = (case for case in cohort.cases if case.id in files)
    saved = load_labels(fit / "predictions" / f"{case.id}.nii.gz", files[case.id])
    crop, how = FINETUNING.crop.sides, FINETUNING.inference
    channel = predict(network, cohort.volume(case), SHOWN, crop, how, CPU)
    np.testing.assert_array_equal(saved.array_XYZ, np.array([0, 2, 7])[channel.array_XYZ])
    assert saved.array_XYZ.max() >= 2
    assert {score.label: score.organ for score in open_fit(fit).scores} == cohort.classes


def test_channels_are_the_ids_in_order_after_the_background() -> None:
    assert channels_of({7: "liver", 2: "spleen", 13: "aorta"}).tolist() == [0, 2, 7, 13]


# ---- refusals, and a run that is stopped -------------------------------------------------------


def test_another_window_and_another_grid_are_refused(cohort: Cohort, cases: Path) -> None:
    for other in ({"window_hu": (-175.0, 250.0)}, {"spacing_mm": (5.0, 5.0, 4.0)}):
        with pytest.raises(ValueError, match="make it for these"):
            open_cases(cases, changed(SHOWN, **other), cohort.cases, CPU)


def test_cases_that_are_not_finished_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no finished cases"):
        open_cases(tmp_path, SHOWN, cohort.cases, CPU)


def test_what_was_made_is_told_with_the_classes(cohort: Cohort, cases: Path) -> None:
    told = json.loads((cases / TOLD).read_text())
    assert Shown.model_validate(told["shown"]) == SHOWN
    assert told["classes"] == {"1": "spleen", "2": "liver"}


class PowerCut(Exception):
    """Not an error of ours."""


def test_a_preparation_that_is_stopped_goes_on(
    cohort: Cohort, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Volume] = []
    saved: list[Path] = []

    def counted(volume: Volume, how: Shown) -> HuArray:
        shown.append(volume)
        return as_shown(volume, how)

    def stopping(path: Path, array_XYZ: VoxelArray) -> None:
        saved.append(path)
        if len(saved) == 4:
            raise PowerCut
        np.save(path, array_XYZ)

    monkeypatch.setattr("finetune.cases.as_shown", counted)
    with monkeypatch.context() as once:
        once.setattr("finetune.cases._save", stopping)
        with pytest.raises(PowerCut):
            prepared(tmp_path / "stopped", cohort)
    resumed = prepared(tmp_path / "stopped", cohort)
    assert len(shown) == 4  # of three cases only the one that lacked its labels came again
    for path in sorted(cases.iterdir()):
        if path.suffix != ".json" or path.name == TOLD:
            assert path.read_bytes() == (resumed / path.name).read_bytes()

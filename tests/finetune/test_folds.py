"""Folds: drawn once, by patient, for these very files; smaller shares of labels lie in larger."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.folds import FOLDS, NNUNET, Drawn, Fold, Folds, FoldsRecipe, draw, folds_stage
from synth_ct.cohort import Case, Cohort
from synth_ct.cohort.reader import Summary
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.durable import write_text
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.recipe import changed
from synth_ct.kit.seeds import numpy_random

RECORD = Record(kind="cohorts/boxes_folds", recipe={})


def cohort(patients: int, scans: int = 1) -> Cohort:
    """As it would be read; the files themselves are never asked for."""
    cases = [
        Case(
            id=f"{scan}{number:03d}",
            patient=f"p{number:03d}",
            file_sha256=f"ct {scan} {number}",
            label_sha256=f"labels {scan} {number}",
        )
        for scan in range(scans)
        for number in range(patients)
    ]
    return of_cases(cases)


def of_cases(cases: list[Case]) -> Cohort:
    count = len(cases)
    summary = Summary(
        total=count, accepted=count, quarantined=0, duplicates=0, patients=0, leaking_patients=0
    )
    return Cohort(
        folder=Path("boxes"),
        kind="labelled",
        classes={1: "spleen"},
        about={},
        summary=summary,
        cases=tuple(cases),
        record=RECORD,
    )


def opened(cases: Cohort, **recipe: object) -> Folds:
    return Folds(drawn=draw(changed(FoldsRecipe(), **recipe), cases), cohort=cases)


def patients_of(cases: tuple[Case, ...]) -> set[str]:
    return {case.patient for case in cases}


def every(folds: Folds, labels: float = 1.0) -> list[Fold]:
    return [folds.fold(number, labels) for number in range(len(folds.drawn.folds))]


# ---- drawing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patients", "sizes"), [(30, [6] * 5), (41, [9, 8, 8, 8, 8]), (5, [1] * 5)]
)
def test_every_patient_is_asked_about_in_exactly_one_fold(patients: int, sizes: list[int]) -> None:
    folds = every(opened(cohort(patients)))
    asked = [patient for fold in folds for patient in sorted(patients_of(fold.test))]
    assert sorted(asked) == sorted(patients_of(cohort(patients).cases))
    assert [len(fold.test) for fold in folds] == sizes
    for fold in folds:
        assert not patients_of(fold.train) & patients_of(fold.test)
        assert len(fold.train) + len(fold.test) == patients


def test_scans_of_one_patient_stay_together() -> None:
    for fold in every(opened(cohort(11, scans=3)), labels=0.5):
        for part in (fold.train, fold.test):
            assert len(part) == 3 * len(patients_of(part))
        assert len(fold.train) == 3 * (4 if fold.number == 0 else 5)


def test_a_case_without_a_patient_is_its_own() -> None:
    nameless = of_cases([replace(case, patient="") for case in cohort(6).cases])
    asked = [case.id for fold in every(opened(nameless)) for case in fold.test]
    assert sorted(asked) == sorted(case.id for case in nameless.cases)


def test_the_same_seed_draws_the_same_folds_whatever_the_order_of_cases() -> None:
    cases = cohort(30, scans=2)
    shuffled = list(cases.cases)
    numpy_random(0, "any").shuffle(shuffled)
    drawn, again = draw(FoldsRecipe(), cases), draw(FoldsRecipe(), of_cases(shuffled))
    assert (drawn.folds, drawn.order) == (again.folds, again.order)
    other = draw(FoldsRecipe(seed=1), cases)
    assert drawn.folds != other.folds
    assert drawn.order != other.order
    assert drawn.folds[0] != tuple(sorted({case.patient for case in cases.cases}))[0::5]


@pytest.mark.parametrize(("patients", "held_out"), [(30, 5), (41, 7)])
def test_the_papers_form_holds_patients_out_of_all_folds_and_asks_all_about_them(
    patients: int, held_out: int
) -> None:
    folds = opened(cohort(patients), protocol="paper_holdout", held_out=held_out)
    held = {*folds.drawn.held_out}
    assert len(held) == held_out
    assert [len(fold) for fold in folds.drawn.folds] == [5] * 5
    inside = {patient for fold in folds.drawn.folds for patient in fold}
    assert len(inside) == 25
    assert not inside & held
    for fold in every(folds):
        assert patients_of(fold.test) == held | {*folds.drawn.folds[fold.number]}
        assert patients_of(fold.train) == inside - patients_of(fold.test)


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(ValueError, match="has 4 patients and full_cv with 5 folds needs 5"):
        draw(FoldsRecipe(), cohort(4, scans=3))
    assert len(draw(FoldsRecipe(folds=4), cohort(4)).folds) == 4
    paper = FoldsRecipe(protocol="paper_holdout", held_out=7)
    with pytest.raises(ValueError, match="31 patients and paper_holdout with 5 folds needs 32"):
        draw(paper, cohort(31))
    assert len(draw(paper, cohort(32)).held_out) == 7


def test_there_is_no_fold_beyond_the_last_nor_before_the_first() -> None:
    folds = opened(cohort(6), folds=3)
    for number in (3, -1):
        with pytest.raises(ValueError, match=f"no fold {number}; there are 3"):
            folds.fold(number)


# ---- shares of labels --------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["full_cv", "paper_holdout"])
def test_smaller_shares_of_labels_lie_in_larger_and_are_rounded_up(protocol: str) -> None:
    folds = opened(cohort(30, scans=2), protocol=protocol)
    known = 24 if protocol == "full_cv" else 20
    shares = {0.001: 1, 0.1: -(-known // 10), 0.2: -(-known // 5), 0.5: known // 2, 1.0: known}
    for number in range(5):
        smaller: set[str] = set()
        for labels, count in shares.items():
            fold = folds.fold(number, labels)
            assert len(patients_of(fold.train)) == count
            assert smaller <= patients_of(fold.train)
            assert patients_of(fold.test) == patients_of(folds.fold(number).test)
            smaller = patients_of(fold.train)


def test_a_share_of_whole_patients_is_not_rounded_up() -> None:
    assert 0.55 * 100 > 55  # in floating point
    folds = opened(cohort(125))
    assert len(folds.fold(0, 0.55).train) == 55


def test_fewer_labels_are_not_the_first_of_the_cohort() -> None:
    folds = opened(cohort(30))
    kept = patients_of(folds.fold(0, 0.5).train)
    assert kept != {*sorted(patients_of(folds.fold(0).train))[:12]}


# ---- on disk -----------------------------------------------------------------------------------


def published(folder: Path, drawn: Drawn) -> Path:
    """With every sum in order, whatever it says."""
    with publish(folder, RECORD) as workspace:
        write_text(workspace / FOLDS, drawn.model_dump_json())
    return folder


def test_what_the_stage_draws_opens_as_nnunets_splits_and_as_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = cohort(12, scans=2)
    monkeypatch.setattr(Cohort, "open", lambda folder: cases)
    recipe = FoldsRecipe(protocol="paper_holdout", folds=3, inside=9, held_out=2)
    with publish(tmp_path / "folds", RECORD) as workspace:
        folds_stage(recipe, workspace, {"cohorts/boxes": tmp_path}, Effort())
    splits = json.loads((tmp_path / "folds" / NNUNET).read_text())
    folds = Folds.open(tmp_path / "folds", cases)
    assert folds.drawn == draw(recipe, cases)
    held = {case.id for case in cases.cases if case.patient in folds.drawn.held_out}
    assert len(splits) == 3
    for split, fold in zip(splits, every(folds), strict=True):
        assert split.keys() == {"train", "val"}
        assert split["train"] == sorted(case.id for case in fold.train)
        assert split["val"] == sorted({case.id for case in fold.test} - held)
        assert len(split["val"]) == 6


def leaking(drawn: Drawn) -> Mapping[str, Drawn]:
    """A patient of fold 0 stands elsewhere, too."""
    first, second, *rest = drawn.folds
    again = (first, (*second, first[0]), *rest)
    return {
        "fold 1": changed(drawn, folds=again),
        "the held-out part": changed(drawn, held_out=(first[0],)),
    }


@pytest.mark.parametrize("part", ["fold 1", "the held-out part"])
def test_folds_that_leak_are_refused_by_the_name_of_the_patient(tmp_path: Path, part: str) -> None:
    cases = cohort(10)
    drawn = draw(FoldsRecipe(), cases)
    leaks = leaking(drawn)[part]
    with pytest.raises(
        Refused, match=f"{drawn.folds[0][0]} stands in fold 0 and in {part}"
    ) as told:
        Folds.open(published(tmp_path / "folds", leaks), cases)
    assert told.value.code == "E_FOLDS_LEAK"


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    cases = cohort(10)
    path = published(tmp_path / "folds", draw(FoldsRecipe(), cases)) / FOLDS
    path.write_text(path.read_text().replace('"seed":0', '"seed":1'))
    with pytest.raises(Refused, match="E_FOLDS_CHANGED"):
        Folds.open(tmp_path / "folds", cases)


def test_folds_that_are_not_finished_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no finished folds"):
        Folds.open(tmp_path, cohort(10))


def test_folds_of_another_cohort_are_refused_by_the_name_of_the_case(tmp_path: Path) -> None:
    cases = cohort(10)
    folder = published(tmp_path / "folds", draw(FoldsRecipe(), cases))
    assert Folds.open(folder, cases).drawn.cases == {c.id: c.patient for c in cases.cases}
    *others, last = cases.cases
    for other in (
        [*others, replace(last, file_sha256="another scan")],
        [*others, replace(last, label_sha256="other labels")],
        [*others, replace(last, patient="p000")],
        [*others, replace(last, id="another")],
        [*others, last, replace(last, id="another")],
        others,
    ):
        with pytest.raises(Refused, match=r"E_FOLDS_OTHER_DATA.*boxes: (0009|another)"):
            Folds.open(folder, of_cases(other))

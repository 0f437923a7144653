"""Product: which patients each fold learns from and which it is asked about, drawn once.

folds.json         every patient's fold, the order in which labels are taken away
splits_final.json  the same for nnU-Net
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from pydantic import Field, ValidationError, model_validator

from synth_ct.cohort import Case, Cohort
from synth_ct.kit.artifact import read_record
from synth_ct.kit.durable import sha256_of_file, write_text
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.recipe import Recipe
from synth_ct.kit.seeds import numpy_random

FOLDS, NNUNET = "folds.json", "splits_final.json"


class FoldsRecipe(Recipe):
    """How patients are divided. Drawn once for each cohort; arms, networks and seeds share it."""

    protocol: Literal["full_cv", "paper_holdout"] = "full_cv"
    """Each patient is asked about once; or the paper's: 25 patients in folds, others held out."""
    folds: int = Field(default=5, ge=2)
    inside: int = Field(default=25, ge=2)
    """`paper_holdout`: patients that are divided."""
    held_out: int = Field(default=5, ge=1)
    """`paper_holdout`: patients that every fold is asked about (5 of BCV, 7 of MSD Spleen)."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _a_patient_in_each_fold(self) -> "FoldsRecipe":
        if self.protocol == "paper_holdout" and self.inside < self.folds:
            raise ValueError(
                f"{self.inside} patients inside cannot fill {self.folds} folds; set inside to "
                f"{self.folds} or more"
            )
        return self


class Drawn(Recipe):
    """What `folds.json` holds."""

    layout: Literal[1] = 1
    recipe: FoldsRecipe
    cases: dict[str, str]
    """Case -> its patient."""
    sha256: dict[str, tuple[str, str]]
    """Case -> digests of image and labels, so that the folds say which data they are of."""
    folds: tuple[tuple[str, ...], ...]
    """Patients that each fold is asked about, and that the others learn from."""
    held_out: tuple[str, ...] = ()
    """Patients no fold learns from."""
    order: tuple[str, ...]
    """All patients; a share of the labels keeps the first, so smaller shares lie in larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One of them."""

    number: int
    train: tuple[Case, ...]
    test: tuple[Case, ...]


def folds_stage(
    recipe: FoldsRecipe, workspace: Path, inputs: Mapping[str, Path], effort: Effort
) -> None:
    """Draw the folds of the one cohort among the inputs."""
    del effort
    (folder,) = inputs.values()
    drawn = draw(recipe, Cohort.open(folder))
    write_text(workspace / FOLDS, drawn.model_dump_json(indent=1))
    write_text(workspace / NNUNET, json.dumps(_nnunet(drawn), indent=1))


def draw(recipe: FoldsRecipe, cohort: Cohort) -> Drawn:
    """Shuffle the patients by seed, deal them out like cards."""
    patients = sorted({_patient(case) for case in cohort.cases})
    numpy_random(recipe.seed, "folds").shuffle(patients)
    dealt, held_out = patients, 0
    if recipe.protocol == "paper_holdout":
        held_out = recipe.held_out
        dealt = patients[held_out : held_out + recipe.inside]
    _demand_enough(recipe, cohort, len(patients))
    order = sorted(patients)
    numpy_random(recipe.seed, "labels").shuffle(order)
    return Drawn(
        recipe=recipe,
        cases={case.id: _patient(case) for case in cohort.cases},
        sha256={case.id: (case.file_sha256, case.label_sha256) for case in cohort.cases},
        folds=tuple(tuple(sorted(dealt[k :: recipe.folds])) for k in range(recipe.folds)),
        held_out=tuple(sorted(patients[:held_out])),
        order=tuple(order),
    )


def _demand_enough(recipe: FoldsRecipe, cohort: Cohort, patients: int) -> None:
    held = recipe.protocol == "paper_holdout"
    least = recipe.held_out + recipe.inside if held else recipe.folds
    if patients < least:
        raise ValueError(
            f"{cohort.folder} has {patients} patients and {recipe.protocol} with {recipe.folds} "
            f"folds needs {least}; bring more, or ask for fewer folds"
        )


def _patient(case: Case) -> str:
    return case.patient or case.id


def _nnunet(drawn: Drawn) -> list[dict[str, list[str]]]:
    """A list of {train, val}, as nnU-Net reads it."""

    def cases(patients: Sequence[str]) -> list[str]:
        return sorted(case for case, patient in drawn.cases.items() if patient in patients)

    every = [patient for fold in drawn.folds for patient in fold]
    return [
        {"train": cases([p for p in every if p not in fold]), "val": cases(fold)}
        for fold in drawn.folds
    ]


# ---- reading -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Folds:
    """Folds of a cohort, checked against it."""

    drawn: Drawn
    cohort: Cohort

    @classmethod
    def open(cls, folder: Path, cohort: Cohort) -> "Folds":
        """Read them, or refuse what leaks or belongs to other data."""
        record = read_record(folder)
        if record is None:
            raise ValueError(f"{folder} holds no finished folds; finish the run that draws them")
        path = folder / FOLDS
        if record.files.get(FOLDS) != sha256_of_file(path):
            _refuse(path, "E_FOLDS_CHANGED", "it was changed after it was drawn")
        try:
            drawn = Drawn.model_validate_json(path.read_text())
        except ValidationError as error:
            _refuse(path, "E_FOLDS_CHANGED", f"it cannot be read: {error}")
        demand_no_leak(drawn, path)
        _demand_same_data(drawn, cohort, path)
        return cls(drawn=drawn, cohort=cohort)

    def fold(self, number: int, labels: float = 1.0) -> Fold:
        """Who is learned from, when only a share of the labels is there, and who is asked about."""
        drawn = self.drawn
        if not 0 <= number < len(drawn.folds):
            raise ValueError(f"there is no fold {number}; there are {len(drawn.folds)}, from 0")
        asked = {*drawn.folds[number], *drawn.held_out}
        inside = {patient for fold in drawn.folds for patient in fold}
        known = [p for p in drawn.order if p in inside and p not in asked]
        kept = set(known[: math.ceil(labels * len(known) - 1e-9)])
        cases = self.cohort.cases
        return Fold(
            number=number,
            train=tuple(case for case in cases if _patient(case) in kept),
            test=tuple(case for case in cases if _patient(case) in asked),
        )


def demand_no_leak(drawn: Drawn, path: Path) -> None:
    """No patient stands in two parts: what a fold is asked about, it must never have seen."""
    parts = {f"fold {k}": fold for k, fold in enumerate(drawn.folds)}
    parts["the held-out part"] = drawn.held_out
    home: dict[str, str] = {}
    for part, patients in parts.items():
        for patient in patients:
            if patient in home:
                _refuse(
                    path,
                    "E_FOLDS_LEAK",
                    f"patient {patient} stands in {home[patient]} and in {part}",
                )
            home[patient] = part


def _demand_same_data(drawn: Drawn, cohort: Cohort, path: Path) -> None:
    now = {case.id: (case.file_sha256, case.label_sha256) for case in cohort.cases}
    whose = {case.id: _patient(case) for case in cohort.cases}
    other = sorted(
        case
        for case in now.keys() | drawn.cases.keys()
        if now.get(case) != drawn.sha256.get(case) or whose.get(case) != drawn.cases.get(case)
    )
    if other:
        _refuse(
            path,
            "E_FOLDS_OTHER_DATA",
            f"it was drawn for other data than {cohort.folder}: {', '.join(other[:5])}"
            + (f" and {len(other) - 5} more" if len(other) > 5 else ""),
        )


def _refuse(path: Path, code: str, cause: str) -> NoReturn:
    raise Refused(
        code,
        f"{path}: {cause}",
        "restore it from a copy; folds are never drawn anew for a study that has begun",
    )

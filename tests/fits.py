"""A small labelled cohort, and a fit of seconds on it."""

from pathlib import Path
from typing import Any

import numpy as np

from finetune.augment import NONE
from finetune.cases import cases_stage
from finetune.crops import CropRecipe
from finetune.folds import FoldsRecipe, folds_stage
from finetune.shown import Shown
from finetune.stage import Finetuning, FitRecipe, fit_stage
from pretrain.backbones import UNetSizes, build
from pretrain.encoder import Adaptation, Input, write_encoder
from synth_ct.cohort.case import Case, Findings, Found, Importer
from synth_ct.cohort.divide import all_train
from synth_ct.cohort.gather import gather
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.durable import sha256_of
from synth_ct.kit.effort import Effort
from synth_ct.kit.loop import Training
from synth_ct.kit.recipe import changed
from synth_ct.kit.seeds import numpy_random
from synth_ct.kit.volume import LabelMap, Volume, centred_affine, save, spacing_mm

SIDE, SPACING = 20, (4.0, 4.0, 5.0)
CLASSES = {1: "spleen", 2: "liver"}
SIZES = UNetSizes(width=2, levels=2, norm="instance")
SHOWN = Shown(spacing_mm=(5.0, 5.0, 5.0))
FINETUNING = Finetuning(
    network="unet",
    crop=CropRecipe(sides=(16, 16, 16), of_a_case=1, around_organs=1.0, organ_by="classes"),
    augmentation=NONE,
    rate=1e-2,
    training=Training(seed=0, steps=3, global_batch=2, micro_batch=2, average_decay=0.0),
)


def labelled_case(number: int, folder: Path) -> Case:
    """A bright spleen on the left and a dark liver on the right of a grey body."""
    random = numpy_random(7, "labelled", number)
    labels = np.zeros((SIDE, SIDE, SIDE), np.uint8)
    x, y, z = random.integers(2, 6, 3)
    labels[x : x + 4, y : y + 6, z : z + 6] = 1
    labels[x + 9 : x + 14, y : y + 7, z : z + 6] = 2
    hu = np.array([0, 600, -600])[labels] + random.normal(0, 20, labels.shape)
    affine = centred_affine(labels.shape, SPACING)
    name = sha256_of(b"%d" % number)[:16]
    digests = [
        save(each, folder / f"{name}.{what}.nii.gz")
        for what, each in (
            ("ct", Volume(hu.astype(np.float32), affine)),
            ("labels", LabelMap(labels, affine)),
        )
    ]
    return Case(
        id=name,
        file=f"{name}.ct.nii.gz",
        file_sha256=digests[0],
        label_file=f"{name}.labels.nii.gz",
        label_sha256=digests[1],
        pixels_sha256=digests[0],
        shape=labels.shape,
        spacing_mm=spacing_mm(affine),
    )


def read_numbered(found: Found, folder: Path) -> Case:
    return labelled_case(int(found.patient), folder)


def make_labelled(folder: Path, patients: int = 6) -> Path:
    """The cohort, through the road all cohorts take."""
    importer = Importer(
        name="boxes",
        kind="labelled",
        find=lambda _: Findings(found=()),
        read=read_numbered,
        divide=all_train,
        about={"title": "boxes", "evidence": "phantom"},
    )
    names = range(patients)
    findings = Findings(
        found=[Found(name=f"{n:03d}", files=(), patient=str(n)) for n in names], classes=CLASSES
    )
    with publish(folder, Record(kind="cohort/labelled", recipe={})) as workspace:
        gather(importer, findings, workspace, 0, Effort())
    return folder


def make_encoder(folder: Path, arm: str = "scratch", seed: int = 5) -> Path:
    """Initial weights under the name of an arm."""
    untouched = arm == "scratch"
    about = Adaptation(
        architecture=SIZES,
        transferred="all_but_head",
        input=Input(spacing_mm=SHOWN.spacing_mm, crop_XYZ=(16, 16, 16)),
        arm=arm,
        objective=None if untouched else {"kind": "mae"},
        steps=0 if untouched else 3,
        seed=0,
        evidence="plumbing",
    )
    with publish(folder, Record(kind="encoder/test", recipe={"arm": arm})) as workspace:
        write_encoder(workspace, build(SIZES, 1, seed), about)
    return folder


def make_inputs(root: Path, patients: int = 6, folds: int = 3) -> dict[str, Path]:
    """All that a fit reads, by name."""
    names = ("cohorts/boxes", "cohorts/boxes_folds", "cohorts/boxes_cases")
    cohort, drawn, cases = (root / name for name in names)
    make_labelled(cohort, patients)
    recipe = FoldsRecipe(folds=folds)
    with publish(drawn, Record(kind=names[1], recipe=recipe.model_dump(mode="json"))) as workspace:
        folds_stage(recipe, workspace, {names[0]: cohort}, Effort())
    with publish(cases, Record(kind=names[2], recipe=SHOWN.model_dump(mode="json"))) as workspace:
        cases_stage(SHOWN, workspace, {names[0]: cohort}, Effort())
    encoder = make_encoder(root / "encoder/unet-scratch-s0")
    return dict(zip(names, (cohort, drawn, cases), strict=True)) | {
        "encoder/unet-scratch-s0": encoder
    }


def fit_recipe(**fields: Any) -> FitRecipe:
    usual = FitRecipe(
        dataset="boxes",
        arch="unet",
        arm="scratch",
        fold=0,
        seed=0,
        evidence="plumbing",
        backbone=SIZES,
        finetuning=FINETUNING,
    )
    return changed(usual, **fields)


def make_fit(folder: Path, inputs: dict[str, Path], **fields: Any) -> Path:
    recipe = fit_recipe(**fields)
    record = Record(kind=f"fits/{folder.name}", recipe=recipe.model_dump(mode="json"))
    with publish(folder, record) as workspace:
        fit_stage(recipe, workspace, inputs, Effort())
    return folder

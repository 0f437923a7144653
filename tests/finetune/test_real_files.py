"""Real files go in: two labelled CTs are ingested, learned from for a few steps, and scored."""

import json
from pathlib import Path
from shutil import copyfile

import nibabel as nib
import numpy as np
import pytest
from encoders import publish_encoder
from pretrain_tiny import CROP, SWIN, UNET

from finetune.results import read_results
from pretrain.backbones import SwinSizes, UNetSizes
from pretrain.encoder import Input
from ray_jobs.cli import app
from ray_jobs.console import guarded
from synth_ct.cohort import Cohort
from synth_ct.cohort.organs import BTCV

pytestmark = pytest.mark.real_data
IMAGES = {
    "one": ("ct/LIDC-IDRI-0001", "seg/LIDC-IDRI-0001_btcv13_label"),
    "two": ("seg/TotalSegmentator_example_ct", "seg/TotalSegmentator_example_btcv13_label"),
}
COARSE = Input(spacing_mm=(8.0, 8.0, 8.0), crop_XYZ=CROP)


def synth_ct(*arguments: object) -> int:
    return guarded(lambda given: app(args=given, standalone_mode=False), [*map(str, arguments)])


@pytest.fixture(scope="module")
def cohort(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the layout of nnU-Net, through the importer that a person would use."""
    root = tmp_path_factory.mktemp("real")
    for name in ("imagesTr", "labelsTr"):
        (root / "raw" / name).mkdir(parents=True)
    for case, (image, label) in IMAGES.items():
        raw = root / "raw"
        copyfile(real_data / f"{image}.nii.gz", raw / f"imagesTr/{case}_0000.nii.gz")
        copyfile(real_data / f"{label}.nii.gz", raw / f"labelsTr/{case}.nii.gz")
    table = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0} | {name: number for number, name in BTCV.items()},
        "numTraining": len(IMAGES),
        "file_ending": ".nii.gz",
    }
    (root / "raw/dataset.json").write_text(json.dumps(table))
    assert synth_ct("ingest", "labelled", root / "raw", root / "abdomens", "--workers", 0) == 0
    return root / "abdomens"


@pytest.mark.parametrize("sizes", [UNET, SWIN], ids=lambda sizes: sizes.kind)
def test_real_labelled_ct_is_learned_from_predicted_and_scored(
    sizes: UNetSizes | SwinSizes,
    cohort: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    encoder = publish_encoder(tmp_path / "encoder", sizes, input=COARSE)
    name = "unet" if sizes is UNET else "swin"
    few = [f"--set=folds.networks.{name}.training.steps=2", "--workers=0", "--json"]
    command = ["finetune", cohort, tmp_path / "out", "--encoder", encoder, "--folds=2", *few]
    assert synth_ct(*command, "--recipe=tiny") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["evidence"] == "plumbing"  # seconds of training, whatever the data
    opened = Cohort.open(cohort)
    fits = read_results(Path(told["results"]))
    scores = [score for fit in fits for score in fit.scores]
    assert len(scores) == len(opened.cases) * len(BTCV)
    assert {score.outcome for score in scores} <= {"scored", "false_positive", "absent"}
    values = [v for s in scores if s.outcome != "absent" for v in (s.dice, s.nsd)]
    assert all(value is not None and 0 <= value <= 1 for value in values)
    assert sum(s.reference_ml == 0 for s in scores if s.organ == BTCV[4]) == 1  # one gallbladder
    for case in opened.cases:
        (path,) = (tmp_path / "out/fits").glob(f"*/predictions/{case.id}.nii.gz")
        predicted, image = (nib.nifti1.load(file) for file in (path, cohort / case.file))
        assert predicted.shape == image.shape
        np.testing.assert_allclose(predicted.affine, image.affine, atol=1e-4)
        assert {*np.unique(predicted.dataobj)} <= {0, *BTCV}

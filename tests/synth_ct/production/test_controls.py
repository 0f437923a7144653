"""Control corpora: of the training patients, through the engine, each what it says it is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from synth_ct.corpus import Corpus
from synth_ct.generator import open_generator
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.effort import Effort
from synth_ct.kit.volume import unwindow
from synth_ct.pairs.disk import open_pairs
from synth_ct.production.controls import Control, ControlRecipe, fill_control
from synth_ct.production.local import Processes
from synth_ct.production.stage import Hands

HANDS = Hands(executor=Processes(count=1), effort=Effort())


def make(control: Control, root: Path, out: Path) -> Corpus:
    model = None if control == "real" else root
    with publish(out, Record(kind="corpus", recipe={"control": control})) as workspace:
        recipe = ControlRecipe(control=control)
        fill_control(recipe, root / "cohorts/pairs", model, workspace, HANDS)
    return Corpus.open(out)


@pytest.fixture
def controls(generator_root: Path, tmp_path: Path) -> dict[Control, Corpus]:
    names: tuple[Control, ...] = ("real", "real_degraded", "drr")
    return {name: make(name, generator_root, tmp_path / name) for name in names}


def test_each_holds_every_training_patient_once_and_nobody_else(
    controls: dict[Control, Corpus], generator_root: Path
) -> None:
    pairs = open_pairs(generator_root / "cohorts/pairs")
    patients = sorted(pairs.rows[n].patient for n in pairs.of("train"))
    for corpus in controls.values():
        assert sorted(row.patient for row in corpus.accepted()) == patients
        assert corpus.about.evidence == "phantom"


def test_they_differ_in_what_was_done_to_the_ct(
    controls: dict[Control, Corpus], generator_root: Path
) -> None:
    pairs = open_pairs(generator_root / "cohorts/pairs")
    of_patient = {pairs.rows[n].patient: n for n in pairs.of("train").tolist()}
    generator = open_generator(generator_root, torch.device("cpu"))
    for row in controls["real"].accepted():
        kept = controls["real"].volume(row).array_XYZ
        assert np.array_equal(kept, pairs.volumes_NXYZ[of_patient[row.patient]])
    for row in controls["real_degraded"].accepted():
        ct_B1XYZ = pairs.ct([of_patient[row.patient]] * 2, torch.device("cpu"))
        with torch.inference_mode():
            autoencoder = generator.models.autoencoder
            made = autoencoder.decode(autoencoder.embed(ct_B1XYZ))[0, 0]
        kept = controls["real_degraded"].volume(row).array_XYZ
        assert np.abs(kept - np.clip(unwindow(made.numpy()), -1024, 3071)).max() <= 1
    assert {row.model for row in controls["drr"].rows()} == {generator.fingerprint}
    assert all(row.quality for row in controls["drr"].rows())


def test_only_what_is_synthetic_is_called_so(controls: dict[Control, Corpus]) -> None:
    said = {name: corpus.about.what.startswith("SYNTHETIC") for name, corpus in controls.items()}
    assert said == {"real": False, "real_degraded": False, "drr": True}

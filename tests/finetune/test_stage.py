"""From an encoder and a fold to scores: the same for the same recipe, resumed or not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fits import (
    CLASSES,
    FINETUNING,
    SHOWN,
    SPACING,
    fit_recipe,
    make_encoder,
    make_fit,
    make_inputs,
)
from pydantic import ValidationError

from finetune.learner import PHASE, SegmentationLearner
from finetune.predict import predict
from finetune.results import open_fit
from finetune.score import scores
from finetune.shown import Shown
from finetune.stage import Finetuning, open_network, receiver_of
from synth_ct.cohort import Cohort
from synth_ct.kit.durable import sha256_of_file
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.recipe import changed
from synth_ct.kit.volume import load_labels


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_inputs(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def fit(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    longer = changed(FINETUNING, training=changed(FINETUNING.training, steps=60))
    return make_fit(tmp_path_factory.mktemp("fits") / "boxes", inputs, finetuning=longer)


def test_it_learns_and_is_asked_about_the_patients_of_its_fold_alone(
    fit: Path, inputs: dict[str, Path]
) -> None:
    told = json.loads((fit / "fit.json").read_text())
    assert not {*told["trained_on"]} & {*told["asked_about"]}
    assert len(told["trained_on"]) == 4
    found = open_fit(fit)
    assert {score.patient for score in found.scores} == {*told["asked_about"]}
    assert {score.organ for score in found.scores} == {*CLASSES.values()}
    bright = [score.dice for score in found.scores if score.organ == "spleen"]
    assert min(dice or 0.0 for dice in bright) > 0.6


def test_saved_weights_and_saved_predictions_give_every_score_again(
    fit: Path, inputs: dict[str, Path]
) -> None:
    cohort = Cohort.open(inputs["cohorts/boxes"])
    network = open_network(receiver_of(fit_recipe(), cohort.classes), fit)
    files = json.loads((fit / "predictions.json").read_text())
    again = []
    for case in cohort.cases:
        if case.id not in files:
            continue
        saved = load_labels(fit / "predictions" / f"{case.id}.nii.gz", files[case.id])
        volume = cohort.volume(case)
        np.testing.assert_allclose(saved.affine, volume.affine)
        shape = volume.array_XYZ.shape
        assert saved.array_XYZ.shape == shape
        predicted = predict(
            network, volume, SHOWN, (16, 16, 16), FINETUNING.inference, torch.device("cpu")
        )
        np.testing.assert_array_equal(predicted.array_XYZ, saved.array_XYZ)
        again += scores(
            saved,
            cohort.labels(case),
            CLASSES,
            case=case.id,
            patient=case.patient,
            tolerance_mm=FINETUNING.tolerance_mm,
        )
    assert tuple(again) == open_fit(fit).scores


def test_the_same_recipe_gives_the_same_bytes_and_a_stopped_fit_too(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_fit(tmp_path / "whole", inputs)
    losses, calls = SegmentationLearner.losses, []

    def stopped(self: SegmentationLearner, *given: object) -> object:
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return losses(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(SegmentationLearner, "losses", stopped)
    with pytest.raises(KeyboardInterrupt):
        make_fit(tmp_path / "stopped", inputs)
    resumed = make_fit(tmp_path / "stopped", inputs)
    assert len(calls) == 4  # one step is taken again, those before it are not
    for name in ("network.safetensors", "scores.parquet", "curve.jsonl", "predictions.json"):
        assert sha256_of_file(whole / name) == sha256_of_file(resumed / name), name


def test_arms_see_the_same_crops_and_begin_with_the_same_head(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    others = {k: v for k, v in inputs.items() if not k.startswith("encoder")}
    for arm in ("scratch", "synthetic"):
        encoder = make_encoder(tmp_path / f"encoder-{arm}", arm, seed=len(arm))
        fit = make_fit(tmp_path / arm, others | {"encoder": encoder}, arm=arm)
        seen[arm] = [torch.tensor(row["rate"]) for row in curve(fit)]
    assert seen["scratch"] == seen["synthetic"]
    heads = [receiver_of(fit_recipe(arm=arm), CLASSES).out.weight for arm in seen]  # type: ignore[union-attr]
    torch.testing.assert_close(*heads, rtol=0, atol=0)


def curve(fit: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (fit / "curve.jsonl").read_text().splitlines()]


def test_another_grid_than_pretraining_had_is_recorded(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    other = changed(FINETUNING, shown=Shown(spacing_mm=SPACING, window_hu=(-175.0, 250.0)))
    with pytest.raises(ValueError, match="make it for these"):
        make_fit(tmp_path / "fit", inputs, finetuning=other)
    told = json.loads((make_fit(tmp_path / "same", inputs) / "fit.json").read_text())
    assert told["mismatch"] is None
    assert told["arrived"]["layers"]


def test_choosing_the_best_on_the_fold_that_is_reported_is_refused() -> None:
    fields = FINETUNING.model_dump() | {"checkpoint": "best"}
    with pytest.raises(ValidationError, match="checkpoint"):
        Finetuning.model_validate(fields)


def test_an_encoder_of_another_architecture_is_refused(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    wider = changed(fit_recipe().backbone, width=4)
    with pytest.raises(Refused, match="E_ENCODER_MISFIT"):
        make_fit(tmp_path / "fit", inputs, backbone=wider)


def test_layers_that_arrived_learn_at_their_own_rate() -> None:
    network = receiver_of(fit_recipe(), CLASSES)
    arrived = network.transferred("encoder")
    learner = SegmentationLearner(network, arrived, (1e-2, 1e-3), 0.0)
    new, old = learner.optimisers[PHASE].param_groups
    assert (new["lr"], old["lr"]) == (1e-2, 1e-3)
    names = {id(p): name for name, p in network.named_parameters()}
    assert {names[id(p)] for p in old["params"]} == {n for n in names.values() if n in arrived}
    assert len(new["params"]) + len(old["params"]) == len(names)

"""Fits with made-up scores, for what compares and shows them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from finetune.results import Fit
from finetune.score import Outcome, Score
from reports.comparable import fit_name
from reports.protocol import NAME, Contrast, Protocol, fingerprint
from synth_ct.kit.recipe import changed

ORGANS = {1: "spleen", 6: "liver"}
PROTOCOL = Protocol(
    arms=("scratch", "real", "synthetic", "primitives"),
    seeds=(0,),
    folds=2,
    resamples=400,
)
FINETUNING = {
    "network": "small",
    "checkpoint": "last",
    "labels": 1.0,
    "training": {"steps": 100},
}
Dice = Callable[[str, int, int, int], float]
"""(arm, seed, patient, label) -> Dice."""


def protocol_of(**fields: Any) -> Protocol:
    return changed(PROTOCOL, **fields)


def scored(case: str, patient: str, label: int, value: float | None, outcome: Outcome) -> Score:
    return Score(
        case=case, patient=patient, label=label, organ=ORGANS[label], outcome=outcome,
        dice=value, nsd=value, reference_ml=1.0, predicted_ml=1.0,
    )  # fmt: skip


def chance(arm: str, seed: int, patient: int, label: int) -> float:
    """Numbers that any order of asking leaves as they are."""
    better = {"scratch": 0.0, "real": 0.06, "synthetic": 0.05, "primitives": 0.02}[arm]
    draw = np.random.default_rng([len(arm), seed, patient, label]).normal(0, 0.02)
    return float(0.7 + better + 0.01 * (patient % 7) + draw)


def fit_by_hand(
    arm: str, fold: int, seed: int, scores: Sequence[Score], protocol: Protocol, **other: Any
) -> Fit:
    dataset, arch = other.pop("dataset", "bcv"), other.pop("arch", "unet")
    config = {
        "evidence": other.pop("evidence", "phantom"),
        "finetuning": FINETUNING,
    }
    inputs = {
        f"cohorts/{dataset}": "c0",
        f"cohorts/{dataset}_folds": "f0",
        NAME: fingerprint(protocol),
        f"encoder/small-{arm}-s{seed}": f"{arm}{seed}",
    }
    return Fit(
        dataset=dataset, arch=arch, arm=arm, fold=fold, seed=seed, steps=100,
        fingerprint=fit_name(dataset, arch, arm, fold, seed),
        config=config, inputs=inputs, scores=tuple(scores), **other,
    )  # fmt: skip


def study(
    protocol: Protocol = PROTOCOL, dice: Dice = chance, patients: int = 10, **other: Any
) -> list[Fit]:
    """Every fit of every arm on one data set with one network."""
    return [
        fit_by_hand(
            arm, fold, seed,
            [
                scored(f"case{p}", f"p{p}", label, dice(arm, seed, p, label), "scored")
                for p in range(fold, patients, protocol.folds)
                for label in ORGANS
            ],
            protocol, **other,
        )
        for arm in protocol.arms
        for seed in protocol.seeds
        for fold in range(protocol.folds)
    ]  # fmt: skip


def three_questions(**fields: Any) -> Protocol:
    """A family whose every contrast has its arm."""
    baselines = ("scratch", "real", "primitives")
    headline = tuple(Contrast(arm="synthetic", baseline=b) for b in baselines)
    return protocol_of(headline=headline, **fields)

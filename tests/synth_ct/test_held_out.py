"""Who is asked about whom: the right film, somebody else's, and what knows no film at all."""

from collections.abc import Sequence
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch

from synth_ct import held_out
from synth_ct.generate import XctDiff
from synth_ct.held_out import HeldOut, references, sampled
from synth_ct.kit.volume import Volume
from synth_ct.pairs.arrays import Pair, Pairs, working_affine

SIZE = 4
PATIENTS = ("a", "b", "c", "p", "p", "q")
"""The last three films are held out; two of them are one person's."""


def pairs() -> Pairs:
    rows = tuple(
        Pair(
            id=f"case{n}",
            patient=patient,
            split="test" if patient in "pq" else "train",
            box=(0.0, 1.0, 0.0, 1.0),
            likeness=1.0,
        )
        for n, patient in enumerate(PATIENTS)
    )
    grey = np.array([0.0, 0.1, 0.2, 0.11, 0.19, 0.01])
    films = np.broadcast_to(grey[:, None, None], (6, SIZE, SIZE)).astype(np.float32)
    hu = np.broadcast_to((1000 * grey)[:, None, None, None], (6, SIZE, SIZE, SIZE))
    return Pairs(rows, hu.astype(np.int16), films)


def held(samples: int = 1) -> HeldOut:
    known = pairs()
    return HeldOut(pairs=known, numbers=known.of("test"), samples=samples, seed=0)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A generator that paints its film's grey over the volume, and its seed's last digit."""

    def paint(models: object, film_B1UV: torch.Tensor, seeds: Sequence[int]) -> list[Volume]:
        return [
            Volume(
                np.full((SIZE,) * 3, 1000 * float(film[0, 0, 0]) + seed % 10, np.float32),
                working_affine(SIZE),
            )
            for film, seed in zip(film_B1UV, seeds, strict=True)
        ]

    monkeypatch.setattr(held_out, "generate", paint)
    stand_in = create_autospec(XctDiff, instance=True)
    stand_in.micro_batch, stand_in.device = 2, torch.device("cpu")
    return stand_in


def tick(done: int = 1, note: str = "", /) -> None:
    """Nobody watches."""


def test_the_other_film_is_another_patients() -> None:
    asked = held()
    assert [asked.other(n) for n in (3, 4, 5)] == [5, 5, 3]


def test_one_patient_alone_has_no_other() -> None:
    known = pairs()
    alone = HeldOut(pairs=known, numbers=np.array([3, 4]), samples=1, seed=0)
    with pytest.raises(ValueError, match="one patient is held out"):
        alone.other(3)


def test_references_know_the_training_part_alone() -> None:
    made = references(held())
    assert np.allclose(made["mean_volume"]["case3"], 100)
    nearest = {case: int(hu.flat[0]) for case, hu in made["nearest_case"].items()}
    assert nearest == {"case3": 100, "case4": 200, "case5": 0}


def test_each_case_is_made_from_its_own_film(models: Any) -> None:
    made = sampled(models, held(), tick).single
    assert {case: float(hu.flat[0]) for case, hu in made.items()} == pytest.approx(
        {"case3": 114, "case4": 194, "case5": 14}, abs=6
    )


def test_shuffled_cases_are_made_from_somebody_elses(models: Any) -> None:
    made = sampled(models, held(), tick, shuffled=True).single
    assert {case: float(hu.flat[0]) for case, hu in made.items()} == pytest.approx(
        {"case3": 14, "case4": 14, "case5": 114}, abs=6
    )


def test_the_mean_is_over_a_cases_own_samples(models: Any) -> None:
    asked = held(samples=3)
    made = sampled(models, asked, tick)
    for case, number in (("case3", 3), ("case5", 5)):
        grey = 1000 * float(asked.pairs.films_NUV[number, 0, 0])
        digits = [seed % 10 for seed in held_out._seeds(asked, number, False)]
        assert float(made.mean[case].flat[0]) == pytest.approx(grey + np.mean(digits), abs=0.01)
        assert float(made.single[case].flat[0]) == pytest.approx(grey + digits[0], abs=0.01)


def test_right_and_wrong_films_draw_other_noise() -> None:
    asked = held(samples=4)
    seeds = [
        seed
        for number in (3, 4, 5)
        for wrong in (False, True)
        for seed in held_out._seeds(asked, number, wrong)
    ]
    assert len(set(seeds)) == len(seeds)

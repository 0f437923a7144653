"""Figures: the right slice, the right way up, chosen by the stated rule."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synth_ct.evaluation.figures import (
    Shown,
    Triptych,
    chosen_cases,
    reconstruction_figure,
    style_figure,
    upright,
)


def test_the_reader_sees_patient_right_at_the_left_and_superior_up() -> None:
    right_front_top = np.zeros((4, 6, 8), np.int16)
    right_front_top[3, 5, 7] = 1
    assert upright(right_front_top, "axial", 0.99)[0, 0] == 1, "right, anterior"
    assert upright(right_front_top, "coronal", 0.99)[0, 0] == 1, "right, superior"
    assert upright(right_front_top, "sagittal", 0.99)[0, 0] == 1, "anterior, superior"
    shapes = [upright(right_front_top, plane).shape for plane in ("axial", "coronal", "sagittal")]
    assert shapes == [(6, 4), (8, 4), (8, 6)]


def test_a_place_outside_is_the_last_slice() -> None:
    volume = np.arange(5.0).reshape(1, 1, 5)
    assert upright(volume, "axial", 1.0)[0, 0] == 4
    assert upright(volume, "axial")[0, 0] == 2


def test_best_median_and_worst_are_shown() -> None:
    psnr = {"a": 20.0, "b": 25.0, "c": 22.0, "d": 25.0, "e": 21.0}
    assert chosen_cases(psnr) == (Shown("b", "best"), Shown("c", "median"), Shown("a", "worst"))
    assert chosen_cases({"a": 1.0, "b": 2.0}) == (Shown("b", "best"), Shown("a", "worst"))
    assert chosen_cases({"a": 1.0}) == (Shown("a", "best"),)
    with pytest.raises(ValueError, match="no case"):
        chosen_cases({})


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("L"), float)


def test_equal_arrays_give_equal_files(tmp_path: Path, rng: np.random.Generator) -> None:
    truth = {"x": rng.integers(-1000, 500, (8, 8, 8)).astype(np.int16)}
    for name in ("first", "second"):
        file = tmp_path / f"{name}.png"
        reconstruction_figure({"ours": truth}, truth, [Shown("x", "best")], "a rule", file)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_every_system_has_the_same_window(tmp_path: Path) -> None:
    truth = {"x": np.full((8, 8, 8), -250, np.int16)}
    ours = {"x": np.full((8, 8, 8), 500, np.int16)}
    file = tmp_path / "figure.png"
    reconstruction_figure({"ours": ours}, truth, [Shown("x", "best")], "a rule", file)
    picture = pixels(file)
    half = picture.shape[1] // 2
    values = {
        np.median(part[part > 60]) for part in (picture[:, : half - 9], picture[:, half + 9 :])
    }
    assert values == {128.0, 255.0}


def test_the_triptych_shows_three_films_a_patient(tmp_path: Path) -> None:
    grey = [np.full((8, 8), level, np.float32) for level in (-0.5, 0.0, 0.5)]
    style_figure([Triptych("p", *grey), Triptych("q", *grey)], tmp_path / "figure.png")
    picture = pixels(tmp_path / "figure.png")
    found = [level for level in (64, 128, 191) if np.isclose(picture, level, atol=1).mean() > 0.2]
    assert found == [64, 128, 191]

"""A protocol is a name for exactly one way to compare."""

import numpy as np
import pytest

from synth_ct.evaluation.protocols import PROTOCOLS, score, score_case
from synth_ct.evaluation.psnr import psnr, psnr_x2ct, psnr_x2ct_slices
from synth_ct.evaluation.ssim import ssim, ssim_x2ct
from synth_ct.models.perceptual import LpipsDistance


def test_each_name_stands_for_its_metrics() -> None:
    metrics = {name: (p.psnr, p.ssim) for name, p in PROTOCOLS.items()}
    assert metrics == {
        "hu1500": (psnr, ssim),
        "x2ct": (psnr_x2ct, ssim_x2ct),
        "x2ct-avg": (psnr_x2ct_slices, ssim_x2ct),
    }


def test_every_case_is_scored(made_XYZ: np.ndarray, truth_XYZ: np.ndarray) -> None:
    made = {"b": truth_XYZ, "a": made_XYZ}
    scores = score(made, dict.fromkeys("ab", truth_XYZ), PROTOCOLS["hu1500"])
    assert list(scores) == ["a", "b"]
    assert scores["a"]["psnr"] == psnr(made_XYZ, truth_XYZ)
    assert scores["b"]["ssim"] == pytest.approx(1)
    assert scores["a"]["mae_hu/lung"] > 0
    assert scores["a"]["share/lung"] == scores["b"]["share/lung"] > 0.05
    assert "lpips" not in scores["a"], "no weights were given"


def test_other_cases_or_another_grid_are_refused(truth_XYZ: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"same cases \(b\)"):
        score({"a": truth_XYZ}, {"a": truth_XYZ, "b": truth_XYZ}, PROTOCOLS["hu1500"])
    with pytest.raises(ValueError, match="resample"):
        score_case(truth_XYZ[1:], truth_XYZ, PROTOCOLS["hu1500"])


def test_lpips_belongs_to_the_protocol_that_says_so(
    made_XYZ: np.ndarray, truth_XYZ: np.ndarray, halved: LpipsDistance
) -> None:
    having = [
        name
        for name, protocol in PROTOCOLS.items()
        if "lpips" in score_case(made_XYZ, truth_XYZ, protocol, halved)
    ]
    assert having == ["hu1500"]

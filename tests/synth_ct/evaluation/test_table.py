"""Rows: a metric is an estimate over patients, or it is absent with a reason."""

import json
import math

import numpy as np
import pytest

from synth_ct.evaluation.protocols import PROTOCOLS, Scores
from synth_ct.evaluation.table import METRICS, Pairing, Row, System, compare, summarise
from synth_ct.kit.statistics import Estimate, holm

OURS = PROTOCOLS["hu1500"]
PATIENTS = {"a1": "A", "a2": "A", "b": "B", "c": "C", "d": "D"}


def scored(shift: float = 0.0) -> Scores:
    values = {"a1": 20.0, "a2": 24.0, "b": 23.0, "c": 21.0, "d": 26.0}
    return {
        case: {
            "psnr": v + shift,
            "ssim": v / 40,
            "mae_hu": 1.0,
            "mae_hu/lung": v,
            "share/lung": 0.2,
        }
        for case, v in values.items()
    }


def row(scores: Scores, name: str = "ours", protocol: str = "hu1500") -> Row:
    system = System(name=name, params=7_300_000)
    return summarise(system, PROTOCOLS[protocol], scores, PATIENTS, 0, {"lpips": "no weights"})


def test_the_unit_is_the_patient() -> None:
    found = row(scored())
    assert found.n == 4
    psnr = found.metrics["psnr"]
    of_patient = [22, 23, 21, 26]
    assert psnr.mean == pytest.approx(23)
    assert psnr.sd == pytest.approx(np.std(of_patient, ddof=1))
    assert psnr.lo is not None
    assert psnr.hi is not None
    assert psnr.lo < 23 < psnr.hi


def test_the_row_of_a_machine_names_every_metric() -> None:
    told = row(scored()).as_json()
    facts = ["system", "views", "protocol", "n", "params", "tmacs"]
    metrics = ["psnr", "ssim", "mae_hu", "lpips", "fid", "kid", "dice"]
    assert list(told)[:15] == [*facts, *metrics, "projection_error", "code_usage"]
    assert set(told["psnr"]) == {"mean", "sd", "lo", "hi"}
    assert told["lpips"] is None
    assert told["absent"]["lpips"] == "no weights"
    assert told["tissues"]["lung"]["mean"] == pytest.approx(23)
    assert told["tissues"]["lung"]["share"] == pytest.approx(0.2)
    json.dumps(told, allow_nan=False)


def test_no_metric_is_absent_without_a_reason() -> None:
    found = row(scored())
    assert found.metrics.keys() | found.absent.keys() == set(METRICS)
    assert not found.metrics.keys() & found.absent.keys()
    assert row(scored(), protocol="x2ct").absent["lpips"] == "not part of the protocol"


def test_what_belongs_to_the_whole_set_joins_later() -> None:
    found = row(scored()).with_metrics({"kid": Estimate(0.1, None, 0.05, 0.15)})
    assert found.metrics["kid"].mean == 0.1
    assert "kid" not in found.absent
    assert found.metrics.keys() | found.absent.keys() == set(METRICS)


def test_a_perfect_case_makes_psnr_absent_not_infinite() -> None:
    scores = scored()
    scores["b"]["psnr"] = math.inf
    found = row(scores)
    assert "psnr" not in found.metrics
    assert "without error" in found.absent["psnr"]
    json.dumps(found.as_json(), allow_nan=False)
    (pair,) = compare({"x": scored(), "y": scores}, OURS, PATIENTS, 0)
    assert set(pair.gaps) == {"ssim"}
    assert pair.as_json()["psnr"] is None


def test_one_patient_has_a_mean_but_no_interval_and_no_comparison() -> None:
    lone = {case: scored()[case] for case in ("a1", "a2")}
    assert row(lone).metrics["psnr"] == (22.0, None, None, None)
    assert compare({"x": lone, "y": lone}, OURS, PATIENTS, 0) == []


def test_a_row_does_not_depend_on_the_order_of_cases() -> None:
    backwards = dict(reversed(scored().items()))
    assert row(backwards) == row(scored())
    twice = [row(scored(), protocol=name).metrics["psnr"] for name in ("hu1500", "x2ct")]
    assert twice[0] == twice[1], "equal values have equal intervals"


def test_pairs_are_later_minus_earlier_on_the_same_patients() -> None:
    random = np.random.default_rng(0)
    better = scored(1.5)
    for values in better.values():
        values["psnr"] += random.normal(0, 0.1)
    pairs = compare({"base": scored(), "better": better, "same": scored()}, OURS, PATIENTS, 0)
    assert [(p.system, p.against) for p in pairs] == [
        ("better", "base"),
        ("same", "base"),
        ("same", "better"),
    ]
    gap = pairs[0].gaps["psnr"]
    assert gap.lo > 1
    assert gap.mean == pytest.approx(1.5, abs=0.2)
    assert gap.p == pytest.approx(2 / 2**4)
    assert gap.n == 4
    assert pairs[1].gaps["psnr"].mean == 0
    assert pairs[1].gaps["psnr"].p == 1


def test_p_is_corrected_over_all_pairs_and_metrics() -> None:
    pairs = compare({"x": scored(), "y": scored(2), "z": scored(-3)}, OURS, PATIENTS, 0)
    raw = [pair.gaps[m].p for pair in pairs for m in ("psnr", "ssim")]
    assert [pair.p_holm[m] for pair in pairs for m in ("psnr", "ssim")] == holm(raw)
    told = pairs[0].as_json()
    assert {"mean", "lo", "hi", "p"} <= set(told["psnr"])


def test_systems_scored_on_other_cases_are_refused() -> None:
    fewer = scored()
    del fewer["d"]
    with pytest.raises(ValueError, match="not the same"):
        compare({"x": scored(), "y": fewer}, OURS, PATIENTS, 0)


def test_a_pairing_is_frozen() -> None:
    pair = Pairing(system="x", against="y", protocol="hu1500", gaps={}, p_holm={})
    with pytest.raises(AttributeError):
        pair.system = "z"  # type: ignore[misc]

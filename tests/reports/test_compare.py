"""Gaps are paired by patient, unmoved by order, and refused where they would mislead."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fits_by_hand import (
    FINETUNING,
    ORGANS,
    PROTOCOL,
    chance,
    fit_by_hand,
    protocol_of,
    scored,
    study,
    three_questions,
)

from finetune.results import Fit
from finetune.score import Outcome
from reports.baseline import FAR_POINTS, anchor, weak_baseline
from reports.compare import Comparison, GapRow, comparison, endpoint
from reports.protocol import Contrast, Protocol
from reports.tables import FIT_KEYS, GAP_KEYS, fit_rows, gap_rows
from synth_ct.kit import statistics as s
from synth_ct.kit.quarantine import Refused


def gap(found: Comparison, arm: str, baseline: str) -> GapRow:
    (row,) = (g for g in found.gaps if (g.arm, g.baseline) == (arm, baseline))
    return row


def with_config(fit: Fit, **fields: Any) -> Fit:
    return replace(fit, config={**fit.config, **fields})


# ---- what a gap is -----------------------------------------------------------------------------


def test_a_gap_is_the_mean_over_patients_of_differences_in_points() -> None:
    row = gap(comparison(study(), PROTOCOL), "synthetic", "scratch")
    by_hand = [
        100 * np.mean([chance("synthetic", 0, p, k) - chance("scratch", 0, p, k) for k in ORGANS])
        for p in range(10)
    ]
    assert row.gap == pytest.approx(np.mean(by_hand))
    assert row.p == s.sign_flip_p(np.array(by_hand), np.random.default_rng(0))
    assert (row.n_patients, row.seeds, row.status) == (10, 1, "run")
    assert row.lo is not None
    assert row.hi is not None
    assert row.lo < np.mean(by_hand) < row.hi


def test_a_constant_added_to_one_arm_moves_the_gap_by_exactly_that() -> None:
    before = comparison(study(), PROTOCOL)
    better = study(dice=lambda arm, *rest: chance(arm, *rest) + 0.03 * (arm == "synthetic"))
    after = comparison(better, PROTOCOL)
    for name in ("gap", "lo", "hi"):
        old, new = (getattr(gap(f, "synthetic", "scratch"), name) for f in (before, after))
        assert new - old == pytest.approx(3.0)
    assert gap(after, "primitives", "scratch") == gap(before, "primitives", "scratch")


def test_swapping_the_arms_flips_the_signs() -> None:
    there = protocol_of(headline=(Contrast(arm="synthetic", baseline="real"),))
    back = protocol_of(headline=(Contrast(arm="real", baseline="synthetic"),))
    a, b = (comparison(study(p), p).gaps[0] for p in (there, back))
    assert (a.gap, a.lo, a.hi) == pytest.approx((-b.gap, -b.hi, -b.lo))  # type: ignore[operator]
    assert (a.p, a.tost_p, a.mde, a.p_false_claim) == pytest.approx(
        (b.p, b.tost_p, b.mde, b.p_false_claim)
    )


def test_the_order_in_which_fits_finished_changes_nothing() -> None:
    protocol = three_questions(seeds=(0, 1))
    fits = study(protocol)
    shuffled = [replace(fit, scores=fit.scores[::-1]) for fit in fits[::-1]]
    assert comparison(fits, protocol) == comparison(shuffled, protocol)
    assert fit_rows(fits) == fit_rows(shuffled)


def test_seeds_are_averaged_before_patients_and_widen_the_interval() -> None:
    protocol = protocol_of(seeds=(0, 1, 2))
    lucky = {0: -0.04, 1: 0.0, 2: 0.04}

    def dice(arm: str, seed: int, patient: int, label: int) -> float:
        return chance(arm, 0, patient, label) + lucky[seed] * (arm == "synthetic")

    several = gap(comparison(study(protocol, dice), protocol), "synthetic", "scratch")
    one = gap(comparison(study(), PROTOCOL), "synthetic", "scratch")
    assert several.seeds == 3
    assert several.gap == pytest.approx(one.gap)
    assert several.p == one.p, "patients' means are the same"
    assert several.hi - several.lo > 2 * (one.hi - one.lo)  # type: ignore[operator]
    assert several.mde > 2 * one.mde  # type: ignore[operator]


def test_scans_of_a_patient_and_folds_that_share_a_patient_count_once() -> None:
    rows = [scored(c, "p0", 1, v, "scored") for c, v in (("a", 0.2), ("b", 0.4))]
    rows += [scored("a", "p0", 6, 1.0, "scored"), scored("c", "p1", 1, 0.5, "scored")]
    once = fit_by_hand("real", 0, 0, rows, PROTOCOL)
    assert endpoint([once], "dice") == pytest.approx({"p0": 0.65, "p1": 0.5})
    assert endpoint([once, replace(once, fold=1)], "dice") == endpoint([once], "dice")


def test_an_absent_organ_is_left_out_and_a_false_one_is_zero() -> None:
    rows = [
        scored("a", "p0", 1, 0.8, "scored"),
        scored("a", "p0", 6, None, "absent"),
        scored("b", "p1", 1, 0.8, "scored"),
        scored("b", "p1", 6, 0.0, "false_positive"),
    ]
    fit = fit_by_hand("real", 0, 0, rows, PROTOCOL)
    assert endpoint([fit], "nsd") == pytest.approx({"p0": 0.8, "p1": 0.4})
    without = replace(fit, scores=(rows[1],))
    with pytest.raises(ValueError, match="no organ of patient p0"):
        endpoint([without], "dice")


def test_cells_count_what_was_absent_and_organs_average_the_rest() -> None:
    def patched(fit: Fit) -> Fit:
        first, *rest = fit.scores
        outcome: Outcome = "absent" if fit.arm == "real" else "false_positive"
        value = None if outcome == "absent" else 0.0
        return replace(fit, scores=(replace(first, outcome=outcome, dice=value, nsd=value), *rest))

    found = comparison([patched(fit) for fit in study()], PROTOCOL)
    assert found.absent == {"bcv": 2}
    real, scratch = ({c.arm: c for c in found.cells}[arm] for arm in ("real", "scratch"))
    assert (real.absent, real.false_positives) == (2, 0)
    assert (scratch.absent, scratch.false_positives) == (0, 2)
    organs = {(o.arm, o.label): o for o in found.organs}
    assert organs["real", 1].n_patients == 8
    assert organs["real", 1].dice == pytest.approx(
        np.mean([chance("real", 0, p, 1) for p in range(2, 10)])
    )
    assert organs["scratch", 1].n_patients == 10
    assert organs["real", 6].organ == "liver"


# ---- the family --------------------------------------------------------------------------------


def test_contrasts_without_their_arm_are_not_run_and_leave_the_family() -> None:
    found = comparison(study(), PROTOCOL)
    assert [(g.baseline, g.status) for g in found.gaps if g.headline] == [
        ("scratch", "run"), ("real", "run"), ("drr", "not run"), ("primitives", "run"),
    ]  # fmt: skip
    run = [g for g in found.gaps if g.headline and g.p is not None]
    assert [g.p_holm for g in run] == s.holm([g.p for g in run if g.p is not None])
    assert gap(found, "synthetic", "drr").gap is None


def test_the_family_spans_data_sets_and_networks() -> None:
    protocol = three_questions()
    fits = [
        fit
        for dataset in ("bcv", "spleen")
        for arch in ("swin", "unet")
        for fit in study(protocol, dataset=dataset, arch=arch)
    ]
    found = comparison(fits, protocol)
    headline = [g for g in found.gaps if g.headline]
    assert len(headline) == 12
    assert [g.p_holm for g in headline] == s.holm([g.p for g in headline if g.p is not None])
    assert [g.headline for g in found.gaps] == [True] * 12 + [False] * 8
    assert {(g.arm, g.baseline) for g in found.gaps[12:]} == {
        ("real", "scratch"), ("primitives", "scratch"),
    }  # fmt: skip
    assert all(g.p_holm is None for g in found.gaps[12:])


def test_an_unfinished_arm_is_not_compared_and_its_missing_fits_are_named() -> None:
    fits = [f for f in study() if (f.arm, f.fold) != ("real", 1)]
    found = comparison(fits, PROTOCOL)
    assert found.missing == ("fits/bcv-unet-real-f1-s0",)
    assert gap(found, "synthetic", "real").status == "not run"
    assert gap(found, "synthetic", "scratch").status == "run"
    assert "real" not in {cell.arm for cell in found.cells}


# ---- refusals ----------------------------------------------------------------------------------


def test_fits_that_differ_in_more_than_the_arm_are_refused_by_field() -> None:
    *same, last = study()
    finetuning = {**FINETUNING, "training": {"steps": 200}}
    other = replace(
        with_config(last, finetuning=finetuning),
        inputs=last.inputs | {"cohorts/bcv_folds": "redrawn"},
    )
    with pytest.raises(
        ValueError, match=r"config\.finetuning\.training\.steps, inputs\.cohorts/bcv_folds"
    ):
        comparison([*same, other], PROTOCOL)
    with pytest.raises(ValueError, match="more than the arm: steps"):
        comparison([*same, replace(last, steps=50)], PROTOCOL)


def test_what_json_made_of_a_tuple_is_no_difference() -> None:
    one, *rest = study()
    fits = [with_config(one, size=(1, 2)), *(with_config(fit, size=[1, 2]) for fit in rest)]
    assert comparison(fits, PROTOCOL).gaps


def test_a_network_chosen_on_its_test_cases_is_refused() -> None:
    fits = [with_config(f, finetuning={**FINETUNING, "checkpoint": "best"}) for f in study()]
    with pytest.raises(ValueError, match=r"f0-s0 kept another network.*finetuning\.checkpoint"):
        comparison(fits, PROTOCOL)


def test_a_protocol_changed_after_the_fits_is_refused() -> None:
    wider = protocol_of(margin_points=2.0)
    with pytest.raises(ValueError, match=r"inputs\.fits/protocol .* and 3 more is not"):
        comparison(study(), wider)


def test_a_split_that_leaks_is_refused() -> None:
    protocol = protocol_of(folds=3)

    def leaking(fit: Fit) -> Fit:
        if fit.fold != 1:
            return fit
        return replace(fit, scores=(*fit.scores, scored("case0", "p0", 1, 0.5, "scored")))

    with pytest.raises(Refused, match="E_FOLDS_LEAK: patient p0"):
        comparison([leaking(fit) for fit in study(protocol)], protocol)


def test_patients_held_out_of_all_folds_are_no_leak() -> None:
    held = [scored("h", "held", 1, 0.5, "scored")]
    fits = [replace(fit, scores=(*fit.scores, *held)) for fit in study()]
    assert gap(comparison(fits, PROTOCOL), "synthetic", "real").n_patients == 11


def test_arms_scored_on_other_patients_are_refused() -> None:
    *same, last = study()
    with pytest.raises(ValueError, match="patients p9 differ"):
        comparison([*same, replace(last, scores=last.scores[:-2])], PROTOCOL)


def test_a_fit_from_the_encoder_of_another_arm_is_refused() -> None:
    *same, last = study()
    swapped = {k: v for k, v in last.inputs.items() if not k.startswith("encoder/")}
    other = replace(last, inputs=swapped | {"encoder/small-synthetic-s0": "x"})
    with pytest.raises(ValueError, match="not from encoder/small-primitives-s0"):
        comparison([*same, other], PROTOCOL)


@pytest.mark.parametrize(("field", "value"), [("arm", "mixed"), ("fold", 7), ("seed", 9)])
def test_what_the_protocol_does_not_foresee_is_refused(field: str, value: object) -> None:
    extra = replace(study()[0], **{field: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"not in the protocol \({field}\)"):
        comparison([*study(), extra], PROTOCOL)


def test_the_same_fit_twice_and_no_fit_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="more than once"):
        comparison([*study(), study()[0]], PROTOCOL)
    with pytest.raises(ValueError, match="no fits"):
        comparison([], PROTOCOL)


def test_phantoms_and_patients_do_not_meet_in_one_study() -> None:
    both = [*study(), *study(dataset="spleen", evidence="real")]
    with pytest.raises(ValueError, match="phantom and real"):
        comparison(both, PROTOCOL)


# ---- beside what others published --------------------------------------------------------------


@pytest.mark.parametrize(("evidence", "flagged"), [("real", {"scratch"}), ("phantom", set())])
def test_only_scratch_on_real_data_stands_beside_published_numbers(
    evidence: str, flagged: set[str]
) -> None:
    found = comparison(study(evidence=evidence), PROTOCOL)
    weak = {cell.arm: cell.weak_baseline for cell in found.cells if cell.weak_baseline}
    assert set(weak) == flagged
    assert all("83.08" in text and "nnU-Net" in text for text in weak.values())


def test_a_baseline_is_weak_when_it_is_far_below_and_not_before() -> None:
    for dataset, value in (("bcv", 83.08), ("spleen", 95.76)):
        quote = anchor(dataset)
        assert quote is not None
        assert float(quote.value) == value
        assert weak_baseline(dataset, (value - FAR_POINTS - 0.1) / 100) is not None
        assert weak_baseline(dataset, (value - FAR_POINTS + 0.1) / 100) is None
    assert weak_baseline("own", 0.1) is None


# ---- the report's rows -------------------------------------------------------------------------


def test_rows_of_the_report_have_exactly_the_keys_others_rely_on() -> None:
    fits = study()
    rows = fit_rows(fits)
    assert len(rows) == len(fits)
    assert {tuple(row) for row in rows} == {FIT_KEYS}
    assert rows[0]["n_cases"] == 5
    assert 0 < rows[0]["dice"] < 1
    gaps = gap_rows(comparison(fits, PROTOCOL))
    assert {tuple(row) for row in gaps} == {GAP_KEYS}
    assert [row["gap"] for row in gaps if row["baseline"] == "drr"] == [None]


def test_equal_arms_have_no_gap_and_are_called_equivalent() -> None:
    protocol: Protocol = three_questions()
    fits = study(protocol, dice=lambda arm, *rest: chance("scratch", *rest))
    row = gap(comparison(fits, protocol), "synthetic", "real")
    assert (row.gap, row.lo, row.hi, row.p, row.mde, row.p_false_claim) == (0, 0, 0, 1, 0, 0.5)
    assert row.tost_p is not None
    assert row.tost_p <= 0.5

"""The report says what its evidence allows, with its interval, and nothing that is not known."""

import json
import re
from dataclasses import replace
from functools import cache
from html import unescape
from pathlib import Path

import fits_by_hand
import pytest
from studies import fit, gap, not_run, study, whole_study

from reports.compare import comparison
from reports.figures import BINS, limits, mean_curve, thinned, ticks
from reports.markup import Markup, element, joined
from reports.page import page, write_report
from reports.study import Aside, QualityFigure, ReportInput, chosen
from reports.wording import FIRST_READ, QUALITY, Words, estimate, measured, number, p_value
from synth_ct.quality.verdict import FIGURES

CLAIMS = r"\b(better|worse|higher|lower|equivalent|raises|lowers|negligible|not shown)\b"
POLICY = "default-src 'none'"


@cache
def whole(evidence: str) -> str:
    """The page of a study that has everything."""
    return page(whole_study(evidence))


def text_of(html: str) -> str:
    """What a reader sees, in one line."""
    shown = re.sub(r"<style>.*?</style>", "", html, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", shown)).split())


def answer_of(one: ReportInput) -> str:
    return answer_in(page(one))


def answer_in(html: str) -> str:
    section = re.search(r'<div class="answer">(.*?)</div>', html, re.S)
    assert section
    return text_of(section[1])


# ---- what is said ------------------------------------------------------------------------------


def test_a_plumbing_page_says_that_it_answers_nothing_and_claims_nothing() -> None:
    assert answer_in(whole("plumbing")) == "This run answers no scientific question."
    text = text_of(whole("plumbing"))
    assert "Trainings take seconds" in text
    results = text[: text.index("Not shown here")]
    without_links = results.replace("not shown here", "")
    assert not re.search(CLAIMS, without_links)
    assert "no statement" in text


@pytest.mark.parametrize("evidence", ["phantom", "plumbing", "real"])
def test_the_evidence_level_is_named_once(evidence: str) -> None:
    box = re.search(r'<p class="evidence.*?</p>', whole(evidence), re.S)
    assert box
    assert len(re.findall(evidence, text_of(box[0]), re.I)) == 1


@pytest.mark.parametrize("evidence", ["phantom", "plumbing"])
def test_only_a_study_of_real_data_speaks_of_real_ct(evidence: str) -> None:
    text = text_of(whole(evidence))
    assert "real ct" not in whole(evidence).lower()
    assert "source CT" in text
    assert "MSD Spleen (scratch" not in text, "a phantom twin is not its model"
    real = text_of(whole("real"))
    assert "synthetic CT against real CT" in real
    assert "source CT" not in real


def test_an_effect_is_stated_with_interval_test_and_detectable_gap() -> None:
    said = answer_of(study(gap(at=(5.0, 4.0, 6.0), p_holm=0.0004, mde=1.4)))
    assert said.startswith(
        "Pretraining on synthetic CT raises mean organ Dice above that of scratch in 1 of 1 "
        "comparison, gap +5.0 [4.0, 6.0] points (Holm-corrected p < 0.001, minimum detectable "
        "gap 1.4)."
    )
    assert "spleen, UNet: synthetic CT is better. +5.0 [4.0, 6.0] points; Holm p < 0.001" in said


def test_harm_is_told_as_plainly() -> None:
    said = answer_of(study(gap(at=(-5.0, -6.0, -4.0))))
    assert "lowers mean organ Dice below that of scratch in 1 of 1 comparison" in said
    assert "gap \N{MINUS SIGN}5.0 [\N{MINUS SIGN}6.0, \N{MINUS SIGN}4.0]" in said


def test_a_null_is_equivalent_only_by_two_one_sided_tests() -> None:
    null = gap(at=(0.1, -0.3, 0.5), p_holm=0.9, tost_p=0.02, mde=0.5)
    said = answer_of(study(null))
    assert "leaves mean organ Dice equivalent to that of scratch within ±1 point" in said
    assert "TOST p = 0.020, minimum detectable gap 0.5" in said
    said = answer_of(study(replace(null, tost_p=0.3)))
    assert "equivalent to" not in said
    assert "is not shown to change mean organ Dice in 1 of 1 comparison" in said
    assert "a gap is not shown, nor is equivalence" in said


@pytest.mark.parametrize(
    "row",
    [
        gap(p_holm=0.06),
        gap(at=(5.0, -0.1, 10.1)),
        replace(gap(), p_holm=None, p=0.0001),
        replace(gap(), mde=None),
    ],
    ids=["p above level", "interval with zero", "uncorrected p", "no detectable gap"],
)
def test_every_part_of_a_claim_is_needed(row: object) -> None:
    assert not re.search("raises|better", answer_of(study(row)))  # type: ignore[arg-type]


def test_an_effect_smaller_than_the_margin_is_called_that() -> None:
    said = answer_of(study(gap(at=(0.5, 0.3, 0.7), tost_p=0.01)))
    assert "synthetic CT is better, by less than 1 point. +0.5 [0.3, 0.7]" in said


def test_several_data_sets_are_summed_up_by_verdict() -> None:
    said = answer_of(
        study(
            gap(arch="swin", at=(2.0, 1.0, 3.0), mde=1.1, p_holm=0.02),
            gap(),
            gap(dataset="bcv", p_holm=0.5, at=(0.2, -1.0, 1.4), mde=2.3),
            not_run("scratch", dataset="bcv", arch="swin"),
        )
    )
    assert "in 2 of 3 comparisons, gap +2.0 [1.0, 3.0] to +5.0 [4.0, 6.0] points" in said
    assert "(Holm-corrected p ≤ 0.020, minimum detectable gap up to 1.4)" in said
    assert "it is not shown to change mean organ Dice in 1 of 3 comparisons" in said
    assert "1 comparison not run." in said


def test_a_lucky_training_is_thought_of() -> None:
    assert "With 1 seed an effect cannot be told" in answer_of(study(replace(gap(), seeds=1)))
    assert "lucky" not in answer_of(study(gap()))


def test_contrasts_without_their_arm_read_not_run() -> None:
    one = study(gap(), not_run("drr"))
    text = text_of(page(one))
    assert "synthetic CT against CT from DRRs Not run." in text
    assert "Not run: synthetic CT against CT from DRRs." in text
    assert answer_of(study(not_run("scratch"))).startswith("Not answered")


def test_gaps_of_other_arms_are_described_and_never_claimed() -> None:
    other = gap("real", headline=False, at=(0.1, -0.1, 0.3), tost_p=0.001)
    text = text_of(page(study(gap(p_holm=0.5), other)))
    assert "described" in text
    assert not re.search(r"\b(higher|better|equivalent)\b", text)


def test_what_a_reader_may_miss_stands_in_a_box() -> None:
    one = replace(study(gap()), not_run=("Table 2 was not made.",))
    missing = replace(one.comparison, missing=tuple(f"bcv-unet-real-f{n}-s0" for n in range(14)))
    text = text_of(page(replace(one, comparison=missing)))
    box = text[text.index("Not shown here") :]
    for said in ("age gap", "nominal", "abdomen", "One seed of the generator", "Table 2"):
        assert said in box
    assert "14 fits of the protocol missing: bcv-unet-real-f0-s0" in box
    assert "and 2 more" in box


def test_a_weak_baseline_is_called_weak() -> None:
    one = study(gap())
    weak = replace(one.comparison.cells[0], weak_baseline="Weak baseline: far below.")
    text = text_of(page(replace(one, comparison=replace(one.comparison, cells=(weak,)))))
    assert "Weak baseline: far below." in text
    assert "eak baseline" not in text_of(page(one))


def test_the_papers_numbers_stand_beside_the_figure_and_never_in_it() -> None:
    html = whole("real")
    quoted = "".join(re.findall(r'<aside class="quoted">.*?</aside>', html, re.S))
    assert "+3.1" in quoted
    assert "whether the two are networks or data sets is not said" in quoted
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, re.S))
    assert "+3.1" not in drawn


# ---- corpora -----------------------------------------------------------------------------------


def test_what_the_gate_measures_has_a_plain_name() -> None:
    assert set(QUALITY) == set(FIGURES)


def test_a_reader_sees_few_quality_figures_and_finds_the_rest_folded() -> None:
    one = whole_study()
    figures = tuple(QualityFigure(name=n, low=-1.0, median=0.0, high=1.0) for n in (*FIGURES, "x"))
    corpus = replace(one.corpora[1], figures=figures)
    html = page(replace(one, corpora=(corpus,)))
    html = html[html.index('id="corpora"') : html.index('id="quarantine"')]
    fold = re.search(r"<details>.*?</details>", html, re.S)
    assert fold
    open_, folded = text_of(html.replace(fold[0], "")), text_of(fold[0])
    for n, plain in enumerate(QUALITY.values()):
        assert plain in (open_ if n < FIRST_READ else folded)
    assert f"{len(figures) - FIRST_READ} further quality figures" in folded
    assert " x 0 [\N{MINUS SIGN}1, 1]" in folded, "one's own keeps its name"
    assert not re.search("|".join(f"{name}\\b" for name in FIGURES), open_ + folded)


def test_the_corpus_in_question_comes_first_and_the_others_are_folded() -> None:
    html = whole("phantom")
    html = html[html.index('id="corpora"') : html.index('id="quarantine"')]
    made, source = html.index("<h3>synthetic CT"), html.index("<h3>source CT")
    assert made < html.index('class="samples"') < source
    assert html.index('class="samples"', source) > html.index("<details>", source)


def test_a_digest_is_short_on_the_page_and_whole_for_machines(tmp_path: Path) -> None:
    one, digest = whole_study(), "0123456789abcdef" * 4
    write_report(replace(one, corpora=(replace(one.corpora[1], digest=digest),)), tmp_path)
    assert digest[:17] not in (html := (tmp_path / "report.html").read_text())
    assert digest[:16] in html
    said = json.loads((tmp_path / "report.json").read_text())
    assert said["provenance"]["corpora"] == {"synthetic": digest}


# ---- how it is made ----------------------------------------------------------------------------


def test_names_of_others_stay_text() -> None:
    evil = "</style><script>alert(1)</script><img src=x onerror=alert(1)>&\"'"
    one = whole_study()
    hostile = replace(
        one,
        run=evil,
        date=evil,
        comparison=replace(
            one.comparison,
            gaps=tuple(replace(row, dataset=evil, arch=evil) for row in one.comparison.gaps),
            organs=tuple(replace(cell, organ=evil, arm=evil) for cell in one.comparison.organs),
            missing=(evil,),
        ),
        fits=(replace(fit(evil, dataset=evil), fingerprint=evil, config={evil: evil}),),
        curves=tuple(replace(curve, arm=evil) for curve in one.curves),
        curve_of=evil,
        corpora=tuple(replace(c, arm=evil, digest=evil, ranked_by=evil) for c in one.corpora),
        quarantine=(Aside(where=evil, code=evil, meaning=evil, count=1),),
        provenance=replace(one.provenance, recipe=evil, code=evil, versions={evil: evil}),
        not_run=(evil,),
    )
    html = page(hostile)
    assert "<script" not in html
    assert "<img src=x" not in html
    assert html.count("</style>") == 1
    assert html.count("alert(1)") > 40, "it is shown, though"


def test_text_is_escaped_once_and_markup_not_at_all() -> None:
    inner = element("b", "a < b", title='"')
    assert inner == '<b title="&quot;">a &lt; b</b>'
    assert element("p", inner, " & ", class_="x") == f'<p class="x">{inner} &amp; </p>'
    assert joined(["<", Markup("<br>")]) == "&lt;<br>"


def test_equal_studies_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(whole_study(), tmp_path / name)
    for file in ("report.html", "report.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "report.html",
        "report.json",
    ]


def test_machines_find_the_promised_keys_and_no_others(tmp_path: Path) -> None:
    write_report(study(gap(), not_run("drr")), tmp_path)
    said = json.loads((tmp_path / "report.json").read_text())
    assert set(said) == {"evidence", "fits", "gaps", "quarantine", "cost", "provenance"}
    assert said["evidence"] == "phantom"
    keys = "dataset arch arm fold seed dice nsd n_cases steps"
    assert [set(row) for row in said["fits"]] == 2 * [set(keys.split())]
    keys = "dataset arch arm baseline n_patients seeds gap lo hi p p_holm tost_p mde"
    assert [set(row) for row in said["gaps"]] == 2 * [set(keys.split())]
    assert said["fits"][0]["dice"] == pytest.approx(0.625)
    assert (said["gaps"][0]["gap"], said["gaps"][1]["gap"]) == (5.0, None)


def test_fits_become_a_comparison_and_that_a_page() -> None:
    protocol = fits_by_hand.PROTOCOL
    fits = tuple(fits_by_hand.study(protocol))
    one = replace(study(), protocol=protocol, fits=fits, comparison=comparison(fits, protocol))
    said = answer_of(one)
    row = next(row for row in one.comparison.gaps if row.baseline == "scratch")
    assert estimate(row) in said
    assert f"minimum detectable gap {number(row.mde)}" in said
    assert "synthetic CT against CT from DRRs Not run." in text_of(page(one))


def test_every_number_has_its_recipe_and_fingerprint() -> None:
    text = text_of(page(study(gap())))
    for said in ('name = "made_up"', "b" * 16, "c" * 16, fit().fingerprint, '"labels": 1.0'):
        assert said in text
    assert '"margin_points": 1.0' in text, "the protocol"


def test_the_page_fetches_nothing_and_names_no_address() -> None:
    html = whole("real")
    assert POLICY in html
    assert "http" not in re.sub(r'http-equiv="', "", html)
    assert not re.search(r"<script|url\(|@import|javascript:| style=", html)
    sources = re.findall(r'\b(?:src|href)="([^"]{5})', html)
    assert all(source.startswith(("data:", "#")) for source in sources)


def test_every_picture_says_what_it_shows() -> None:
    html = whole("phantom")
    drawings = re.findall(r"<svg[^>]*>", html)
    assert all('aria-label="' in one or 'aria-hidden="true"' in one for one in drawings)
    assert all('alt="' in one for one in re.findall(r"<img[^>]*>", html))
    assert len(drawings) > 10


# ---- figures -----------------------------------------------------------------------------------


def test_ticks_are_round_and_few() -> None:
    assert ticks(-2.3, 5.1) == [-2, 0, 2, 4]
    assert ticks(0.0, 1.0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(0.11, 0.13) == pytest.approx([0.11, 0.115, 0.12, 0.125, 0.13])


def test_limits_are_never_empty_and_hold_zero() -> None:
    assert limits([]) == (-1.0, 1.0)
    low, high = limits([2.0, 3.0])
    assert low < 0
    assert high > 3


def test_a_long_curve_is_averaged_and_what_is_not_finite_left_out() -> None:
    line = thinned([(float(step), float(step % 2)) for step in range(6000)])
    assert len(line) == BINS
    assert {value for _, value in line} == {0.5}
    assert thinned([(0.0, float("nan")), (1.0, 2.0)]) == [(1.0, 2.0)]


def test_the_mean_curve_is_of_all_or_not_drawn() -> None:
    lines = [[(1.0, 2.0), (2.0, 4.0), (3.0, 1.0)], [(1.0, 4.0), (2.0, 0.0)]]
    assert mean_curve(lines) == [(1.0, 3.0), (2.0, 2.0)]


def test_samples_are_chosen_by_rank_and_nobody_twice() -> None:
    values = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 2.0, "e": 9.0}
    assert chosen(values) == (("b", "worst"), ("d", "median"), ("e", "best"))
    assert chosen({"a": 1.0, "b": 2.0}) == (("a", "worst"), ("b", "best"))
    assert chosen({"a": 1.0}) == (("a", "best"),)
    assert chosen({}) == ()


def test_numbers_round_honestly() -> None:
    assert (number(-0.04), number(-0.06), number(None)) == ("0.0", "\N{MINUS SIGN}0.1", "–")  # noqa: RUF001
    assert p_value(0.0499) == "= 0.050", "never rounded down to significance"
    assert (p_value(0.0501), p_value(0.0004)) == ("= 0.051", "< 0.001")


def test_hounsfield_units_are_whole_and_likenesses_are_not() -> None:
    said = (measured("lung_hu", -712.4), measured("reprojection", 0.6207), measured("x", 0.12345))
    assert said == ("\N{MINUS SIGN}712", "0.62", "0.1235")
    assert measured("reprojection_others", -0.0009) == "0.00"


def test_an_arm_of_ones_own_has_its_own_name() -> None:
    one = study(gap())
    words = Words(one.comparison, one.protocol)
    assert (words.arm("hospital"), words.arm("real")) == ("hospital", "source CT")

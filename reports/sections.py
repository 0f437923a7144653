"""The parts of the page that tell of results, in the order in which they are read."""

from collections.abc import Iterable, Sequence

from reports.compare import Cell, GapRow, OrganCell
from reports.figures import (
    COLOURED,
    Bar,
    Interval,
    Path,
    Trace,
    arm_class,
    bars,
    curves,
    forest,
    limits,
    mean_curve,
    thinned,
)
from reports.markup import Markup, element, folded, items, paragraph, table
from reports.protocol import SCRATCH
from reports.quoted import Quote
from reports.study import Curve, ReportInput
from reports.wording import EVIDENCE, NONE, Words, estimate, network, number, p_value, signed

QUESTION = ("synthetic", SCRATCH)
"""The contrast that the page's first sentence is about."""
PUBLISHED = ("BCV", "BTCV", "MSD Spleen")
"""Data sets of which published numbers are shown."""
Where = tuple[str, str]


def arms_in_order(arms: Iterable[str]) -> list[str]:
    """Each once; the known ones in their order, a run's own after them."""
    known = {arm: n for n, arm in enumerate(COLOURED)}
    return sorted(set(arms), key=lambda arm: (known.get(arm, len(known)), arm))


def places_of(rows: Iterable[Cell | GapRow | Curve | OrganCell]) -> list[Where]:
    """Data set and network, each pair once, as they come."""
    return list(dict.fromkeys((row.dataset, row.arch) for row in rows))


def section(anchor: str, title: str, *children: str) -> Markup:
    """A part of the page, under a heading."""
    return element("section", element("h2", title), *children, id=anchor)


def panel(title: str, drawing: str) -> Markup:
    """One drawing of several."""
    return element("figure", element("h3", title), drawing)


# ---- the answer --------------------------------------------------------------------------------


def answer(study: ReportInput, words: Words) -> Markup:
    """What kind of evidence this is, and what it says."""
    rows = _contrast(study, *QUESTION)
    statements = [words.statement(row) for row in rows] if words.claims else []
    evidence = paragraph(
        element("strong", f"Evidence level: {words.evidence}. "), EVIDENCE[words.evidence],
        class_=f"evidence {words.evidence}",
    )  # fmt: skip
    return element(
        "section",
        evidence,
        element(
            "div",
            paragraph(words.answer(rows), class_="lead"),
            items(statements),
            class_="answer",
        ),
        id="answer",
    )


def _contrast(study: ReportInput, arm: str, baseline: str) -> list[GapRow]:
    return [
        row
        for row in study.comparison.gaps
        if row.headline and (row.arm, row.baseline) == (arm, baseline)
    ]


# ---- contrasts ---------------------------------------------------------------------------------


def contrasts(study: ReportInput, words: Words) -> Markup:
    """The headline contrasts, each drawn and said; then the numbers, and the other arms'."""
    headline = [row for row in study.comparison.gaps if row.headline]
    others = [row for row in study.comparison.gaps if not row.headline]
    reach = [x for row in headline for x in (row.lo, row.hi) if x is not None]
    span = limits([*reach, -words.margin, words.margin])
    pairs = dict.fromkeys((row.arm, row.baseline) for row in headline)
    panels = [_contrast_panel(study, words, pair, span) for pair in pairs]
    how = (
        f"Points of mean organ Dice, paired by patient; intervals at {100 * words.level:g} %, "
        f"from a bootstrap over patients and seeds; p from sign flips, corrected by Holm over all "
        f"headline contrasts; equivalence means a gap within ±{words.margin:g} (shaded), from two "
        f"one-sided tests (TOST), each contrast by itself; the minimum detectable gap has a power "
        f"of {100 * words.power:g} %."
    )
    return section(
        "contrasts",
        "Headline contrasts",
        paragraph(how, class_="faint"),
        element("div", *panels, class_="panels"),
        folded("All numbers", _gap_table("Headline contrasts", headline, words)),
        folded(
            f"{len(others)} further gaps over scratch: described, not claimed",
            _gap_table("Gaps of every other arm over scratch", others, words),
        )
        if others
        else Markup(),
    )


def _contrast_panel(
    study: ReportInput, words: Words, pair: Where, span: tuple[float, float]
) -> Markup:
    rows = _contrast(study, *pair)
    title = words.contrast(*pair)
    if not any(row.status == "run" for row in rows):
        return element("div", element("h3", title), paragraph("Not run."))
    intervals = [Interval(words.place(r), words.note(r), r.gap, r.lo, r.hi) for r in rows]
    drawing = forest(intervals, span, words.margin, f"{title}: gaps in points of Dice, intervals")
    return panel(title, drawing)


def _gap_table(caption: str, rows: Sequence[GapRow], words: Words) -> Markup:
    head = [
        "Contrast", "Data set, network", "Verdict", "Gap", "Patients, seeds", "p", "Holm p",
        "TOST p", "Detectable", "P(false claim)",
    ]  # fmt: skip
    return table(caption, head, [_gap_cells(row, words) for row in rows], words=3)


def _gap_cells(row: GapRow, words: Words) -> list[str]:
    run = row.status == "run" and row.gap is not None
    verdict = words.verdict(row) if row.headline else "described"
    if not run:
        return [words.contrast(row.arm, row.baseline), words.place(row), "not run", *7 * [NONE]]
    return [
        words.contrast(row.arm, row.baseline),
        words.place(row),
        verdict if words.claims else "no statement",
        estimate(row),
        f"{row.n_patients}, {row.seeds}",
        *(p_value(p).removeprefix("= ") for p in (row.p, row.p_holm, row.tost_p)),
        number(row.mde),
        p_value(row.p_false_claim).removeprefix("= "),
    ]


# ---- absolute Dice, and the figure of the paper ------------------------------------------------


def scratch(study: ReportInput, words: Words) -> Markup:
    """How good the networks are without pretraining, beside what others report."""
    cells = [cell for cell in study.comparison.cells if cell.arm == SCRATCH]
    real = words.evidence == "real"
    weak = [element("strong", cell.weak_baseline) for cell in cells if cell.weak_baseline]
    return section(
        "scratch",
        "How good is scratch?",
        paragraph("A gain over a network that was trained badly says little."),
        _dice_table("Mean organ Dice of scratch in per cent, over patients", cells, words),
        items(weak),
        _quoted("Published Dice", _published(study.quotes, "dice_percent"), words, fold=not real),
    )


def _dice_table(caption: str, cells: Sequence[Cell], words: Words) -> Markup:
    head = ["Data set, network", "Arm", "Dice", "SD", "NSD", "Patients, seeds",
            "Left out / false positives"]  # fmt: skip
    rows = [
        [
            words.place(c), words.arm(c.arm),
            f"{percent(c.dice)} [{percent(c.lo)}, {percent(c.hi)}]", percent(c.sd),
            percent(c.nsd), f"{c.n_patients}, {c.seeds}", f"{c.absent} / {c.false_positives}",
        ]
        for c in cells
    ]  # fmt: skip
    return table(caption, head, rows, words=2)


def percent(share: float | None) -> str:
    """To a tenth of a point; a dash where there is none."""
    return NONE if share is None else f"{100 * share:.1f}"


def gap_figure(study: ReportInput, words: Words) -> Markup:
    """Bars of every arm's gap over scratch, and beside them, not among them, the paper's."""
    rows = [row for row in study.comparison.gaps if row.baseline == SCRATCH]
    span = limits([x for row in rows for x in (row.lo, row.hi) if x is not None])
    panels = [_bar_panel(study, words, place, span) for place in places_of(rows)]
    cells = study.comparison.cells
    meanings = [f"{words.arm(a)}: {words.meaning(a)}" for a in arms_in_order(c.arm for c in cells)]
    return section(
        "gaps",
        "Dice gap of every arm",
        paragraph("Mean organ Dice minus scratch's, in points, with intervals."),
        element("div", *panels, class_="panels"),
        _quoted("The paper's own gaps", _published(study.quotes, "dice_points"), words),
        folded("What the arms are", items(meanings)),
        folded("Dice of every arm", _dice_table("Mean organ Dice in per cent", cells, words)),
    )


def _bar_panel(study: ReportInput, words: Words, place: Where, span: tuple[float, float]) -> Markup:
    gaps = study.comparison.gaps
    rows = [row for row in gaps if row.baseline == SCRATCH and _is(row, place)]
    by_arm = {row.arm: row for row in rows}
    drawn = [
        Bar(arm, words.arm(arm), by_arm[arm].gap, by_arm[arm].lo, by_arm[arm].hi)
        for arm in arms_in_order(by_arm)
    ]
    base = [c.dice for c in study.comparison.cells if _is(c, place) and c.arm == SCRATCH]
    place_name = words.place(rows[0])
    title = f"{place_name} (scratch {percent(base[0])} %)" if base else place_name
    return panel(title, bars(drawn, span, f"{place_name}: gap of each arm over scratch in points"))


def _is(row: Cell | GapRow, place: Where) -> bool:
    return (row.dataset, row.arch) == place


def _published(quotes: Sequence[Quote], metric: str) -> list[Quote]:
    return [q for q in quotes if q.metric == metric and q.dataset.startswith(PUBLISHED)]


def _quoted(title: str, quotes: Sequence[Quote], words: Words, *, fold: bool = False) -> Markup:
    """Numbers of others, word for word; on a page about phantoms without talk of their CT."""
    rows = [[q.system, q.dataset, q.text, f"{q.source}; {_doubts(q, words)}"] for q in quotes]
    head = ["System", "Data set", "Value", "From"]
    values = table("Quoted values", head, rows, words=4)
    said = "Quoted, not measured here."
    if words.evidence != "real":
        said += " They are of patients: no yardstick for this run."
    values = folded(f"{len(rows)} values", values) if fold else values
    heading = element("h3", title)
    return element("aside", heading, paragraph(said, class_="faint"), values, class_="quoted")


def _doubts(quote: Quote, words: Words) -> str:
    doubt = quote.ambiguity
    if words.evidence != "real" and "real CT" in doubt:
        doubt = "how it compares with the paper's CT of patients: see reports/quoted.csv"
    return "; ".join(filter(None, (quote.protocol, doubt)))


# ---- organs and curves -------------------------------------------------------------------------


def organs(study: ReportInput, words: Words) -> Markup:
    """Dice of each organ and arm, dark to light, with the gap over scratch below it."""
    cells = study.comparison.organs
    return section(
        "organs",
        "Organ by organ",
        paragraph("Dice in per cent; below it, the gap over scratch in points. No test is made."),
        element("div", *(_heat(p, cells, words) for p in places_of(cells)), class_="heats"),
    )


def _heat(place: Where, cells: Sequence[OrganCell], words: Words) -> Markup:
    here = {(c.label, c.arm): c for c in cells if (c.dataset, c.arch) == place}
    arms = arms_in_order(arm for _, arm in here)
    names = {label: cell.organ for (label, _), cell in here.items()}
    title = f"{words.dataset(place[0])}, {network(place[1])}"
    head = element(
        "tr", element("th", "Organ", scope="col"),
        *(element("th", words.arm(arm).replace("_", " "), scope="col") for arm in arms),
    )  # fmt: skip
    body = [
        element(
            "tr", element("th", names[label].replace("_", " "), scope="row", class_="words"),
            *(_heat_cell(here.get((label, arm)), here.get((label, SCRATCH))) for arm in arms),
        )
        for label in sorted(names)
    ]  # fmt: skip
    grid = element(
        "table", element("caption", title), element("thead", head), element("tbody", *body),
        class_="heat",
    )  # fmt: skip
    return element("div", grid, class_="scroll", role="region", aria_label=title, tabindex="0")


def _heat_cell(cell: OrganCell | None, base: OrganCell | None) -> Markup:
    if cell is None or cell.dice is None:
        return element("td", NONE)
    shade = f"h{min(9, int(10 * cell.dice))}"
    if base is None or base.dice is None or cell.arm == SCRATCH:
        return element("td", percent(cell.dice), class_=shade)
    gap = element("small", signed(100 * (cell.dice - base.dice)))
    return element("td", percent(cell.dice), gap, class_=shade)


def learning(study: ReportInput, words: Words) -> Markup:
    """What the losses did."""
    if not study.curves:
        return section("curves", "Learning curves", paragraph("None were recorded."))
    arms = arms_in_order(curve.arm for curve in study.curves)
    keys = [
        element(
            "li",
            element(
                "svg",
                element("path", d="M0,5 34,5", class_=f"curve bold {arm_class(arm)}"),
                viewBox="0 0 34 10",
                aria_hidden="true",
            ),
            words.arm(arm),
        )
        for arm in arms
    ]
    panels = [_curve_panel(study, words, place) for place in places_of(study.curves)]
    return section(
        "curves",
        "Learning curves",
        paragraph("Thin: each fold and seed. Bold: their mean."),
        element("ul", *keys, class_="legend"),
        element("div", *panels, class_="panels"),
    )


def _curve_panel(study: ReportInput, words: Words, place: Where) -> Markup:
    here = [curve for curve in study.curves if (curve.dataset, curve.arch) == place]
    traces = []
    for arm in arms_in_order(curve.arm for curve in here):
        lines: list[Path] = [
            thinned([(float(x), y) for x, y in c.points]) for c in here if c.arm == arm
        ]
        lines = [line for line in lines if line]
        if lines:
            traces.append(Trace(arm, words.arm(arm), lines, mean_curve(lines)))
    title = f"{words.dataset(place[0])}, {network(place[1])}"
    if not traces:
        return element("div", element("h3", title), paragraph("No finite value was recorded."))
    return panel(title, curves(traces, study.curve_of, f"{title}: {study.curve_of} by step"))

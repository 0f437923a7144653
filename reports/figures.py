"""The figures of the page as SVG written by hand: text stays text, colours follow the page.

Every panel is 340 units wide, which is a phone's column, so that its letters are as large there as
the text around them; wider screens place panels side by side. Arms are told apart by Okabe and
Ito's colours, and never by colour alone.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from reports.markup import Markup, element, joined
from reports.wording import NONE, number, signed

WIDTH = 340.0
EDGE = 8.0
TICKS = 5
COLOURED = ("scratch", "real", "synthetic", "primitives", "real_degraded", "drr", "prior_only",
            "mixed")  # fmt: skip
BINS = 60
"""Points of a drawn curve at most; a long training's are averaged in bins of equal steps."""

Point = tuple[float, float]
Path = Sequence[Point]


class Span(NamedTuple):
    """A range of values on a range of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value is drawn."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


class Interval(NamedTuple):
    """A gap as it is drawn; no numbers where it was not run."""

    name: str
    note: str
    """What may be said of it."""
    gap: float | None
    lo: float | None
    hi: float | None


class Bar(NamedTuple):
    """One arm's gap over scratch."""

    arm: str
    name: str
    gap: float | None
    lo: float | None
    hi: float | None


class Trace(NamedTuple):
    """One arm's curves."""

    arm: str
    name: str
    thin: Sequence[Path]
    """One for each fold and seed."""
    bold: Path
    """Their mean."""


def arm_class(arm: str) -> str:
    """The class that colours an arm; arms of a run's own share one."""
    return f"arm-{arm}" if arm in COLOURED else "arm-own"


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, about `TICKS` of them."""
    rough = (high - low) / TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * n for n in (1, 2, 5, 10) if size * n >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def limits(values: Sequence[float], *, around: float = 0.0) -> tuple[float, float]:
    """A range that holds all values and `around` within, and is never empty."""
    low, high = min([*values, around]), max([*values, around])
    room = 0.08 * (high - low) or 1.0
    return low - room, high + room


def forest(
    rows: Sequence[Interval], span: tuple[float, float], margin: float, description: str
) -> Markup:
    """Gaps with their intervals below one another; the margin of equivalence is shaded."""
    line, top = 62.0, 2.0
    bottom = top + line * len(rows)
    across = Span(*span, EDGE, WIDTH - EDGE)
    parts: list[Markup] = []
    for n, row in enumerate(rows):
        parts += _interval(row, across, margin, top + line * n)
    parts += _axis_below(across, bottom)
    parts.append(_text(WIDTH / 2, bottom + 32, "points of Dice", "middle", "faint"))
    return _drawing(parts, bottom + 38, description)


def _interval(row: Interval, across: Span, margin: float, top: float) -> list[Markup]:
    words = [_text(EDGE, top + 13, shortened(row.name, 23))]
    if row.gap is None or row.lo is None or row.hi is None:
        return [*words, _text(WIDTH - EDGE, top + 13, "not run", "end", "faint")]
    said = f"{signed(row.gap)} [{number(row.lo)}, {number(row.hi)}]"
    y = top + 25
    return [
        *words,
        _box(across.at(-margin), top + 17, across.at(margin), top + 33, "zone"),
        _line(across.at(0.0), top + 17, across.at(0.0), top + 33, "zero"),
        _text(WIDTH - EDGE, top + 13, said, "end", "number"),
        _text(EDGE, top + 46, row.note, "start", "faint"),
        _line(across.at(row.lo), y, across.at(row.hi), y, "reach"),
        *(_line(across.at(x), y - 4, across.at(x), y + 4, "reach") for x in (row.lo, row.hi)),
        element("circle", cx=_short(across.at(row.gap)), cy=_short(y), r="5", class_="dot"),
    ]


def bars(rows: Sequence[Bar], span: tuple[float, float], description: str) -> Markup:
    """Each arm's gap over scratch as a bar, its interval on it, its size above its name."""
    left, top, floor = 40.0, 10.0, 190.0
    up = Span(*span, floor, top)
    room = (WIDTH - EDGE - left) / max(1, len(rows))
    parts = [
        joined(
            [
                _line(left, up.at(tick), WIDTH - EDGE, up.at(tick), "grid"),
                _text(left - 6, up.at(tick) + 4, _label(tick), "end", "faint"),
            ]
        )
        for tick in ticks(*span)
    ]
    for n, bar in enumerate(rows):
        parts += _bar(bar, up, left + room * (n + 0.5), min(26.0, 0.6 * room))
    parts.append(_line(left, up.at(0.0), WIDTH - EDGE, up.at(0.0), "zero"))
    return _drawing(parts, floor + 98, description)


def _bar(bar: Bar, up: Span, x: float, width: float) -> list[Markup]:
    floor = up.start
    turned = f"rotate(-38 {_short(x + 4)} {_short(floor + 30)})"
    name = element(
        "text", shortened(bar.name, 14), x=_short(x + 4), y=_short(floor + 30), transform=turned,
        class_="end",
    )  # fmt: skip
    if bar.gap is None or bar.lo is None or bar.hi is None:
        return [name, _text(x, floor + 14, NONE, "middle", "faint")]
    ends = (up.at(bar.gap), up.at(0.0))
    return [
        _box(x - width / 2, min(ends), x + width / 2, max(ends), f"bar {arm_class(bar.arm)}"),
        _line(x, up.at(bar.lo), x, up.at(bar.hi), "reach"),
        *(_line(x - 5, up.at(y), x + 5, up.at(y), "reach") for y in (bar.lo, bar.hi)),
        _text(x, floor + 14, _roughly(bar.gap), "middle", "number"),
        name,
    ]


def curves(traces: Sequence[Trace], quantity: str, description: str) -> Markup:
    """Thin lines for each fold and seed, a bold one for the mean of an arm."""
    every = [point for trace in traces for line in (*trace.thin, trace.bold) for point in line]
    left, top, floor = 46.0, 24.0, 200.0
    steps, values = [step for step, _ in every], [value for _, value in every]
    low, high = limits(values, around=min(values))
    up, across = Span(low, high, floor, top), Span(*_steps(steps), left, WIDTH - 14)
    parts = [_text(EDGE, 14.0, quantity, "start", "faint")]
    for tick in ticks(low, high):
        parts.append(_line(left, up.at(tick), WIDTH - EDGE, up.at(tick), "grid"))
        parts.append(_text(left - 5, up.at(tick) + 4, _label(tick), "end", "faint"))
    for thick, trace in [(False, t) for t in traces] + [(True, t) for t in traces]:
        parts += [
            _curve(line, across, up, f"{'bold' if thick else 'thin'} {arm_class(trace.arm)}")
            for line in ([trace.bold] if thick else trace.thin)
        ]
    parts += _axis_below(across, floor)
    parts.append(_text((left + WIDTH) / 2, floor + 32, "step", "middle", "faint"))
    return _drawing(parts, floor + 38, description)


def _steps(steps: Sequence[float]) -> tuple[float, float]:
    return min(steps), max(*steps, min(steps) + 1)


def thinned(points: Path) -> list[Point]:
    """At most `BINS` points: the means of bins of equal numbers; what is not finite is left out."""
    whole = [point for point in points if math.isfinite(point[1])]
    if len(whole) <= BINS:
        return whole
    edges = [round(n * len(whole) / BINS) for n in range(BINS + 1)]
    return [_mean(whole[a:b]) for a, b in pairwise(edges)]


def mean_curve(lines: Sequence[Path]) -> list[Point]:
    """The mean at those steps that all lines have."""
    found: Mapping[float, list[float]] = {step: [] for step, _ in lines[0]} if lines else {}
    for line in lines:
        for step, value in line:
            if step in found:
                found[step].append(value)
    return [(step, sum(v) / len(v)) for step, v in found.items() if len(v) == len(lines)]


def shortened(name: str, letters: int) -> str:
    """A name that a drawing has room for; tables have the whole one."""
    return name if len(name) <= letters else f"{name[: letters - 1]}\N{HORIZONTAL ELLIPSIS}"


def _mean(points: Path) -> Point:
    return (sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points))


# ---- strokes -----------------------------------------------------------------------------------


def _drawing(parts: Sequence[Markup], height: float, description: str) -> Markup:
    return element(
        "svg", element("title", description), *parts,
        viewBox=f"0 0 {WIDTH:g} {height:g}", role="img", aria_label=description,
    )  # fmt: skip


def _axis_below(across: Span, y: float) -> list[Markup]:
    parts = [_line(across.start, y, across.end, y, "axis")]
    for tick in ticks(across.low, across.high):
        x = across.at(tick)
        parts.append(_line(x, y, x, y + 4, "axis"))
        parts.append(_text(x, y + 17, _label(tick), "middle", "faint"))
    return parts


def _roughly(gap: float) -> str:
    """To a tenth, or to a whole point where eight labels would touch; tables have the rest."""
    whole = f"{gap:+.0f}".replace("-", "\N{MINUS SIGN}")
    return signed(gap) if abs(gap) < 9.95 else whole


def _label(tick: float) -> str:
    return f"{tick:.4g}".replace("-", "\N{MINUS SIGN}")


def _curve(line: Path, across: Span, up: Span, kind: str) -> Markup:
    places = " ".join(f"{_short(across.at(x))},{_short(up.at(y))}" for x, y in line)
    return element("path", d=f"M{places}", class_=f"curve {kind}") if line else Markup()


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return element("line", class_=kind, **{key: _short(value) for key, value in ends.items()})


def _box(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    sides = {"x": x1, "y": y1, "width": max(0.0, x2 - x1), "height": max(0.0, y2 - y1)}
    return element("rect", class_=kind, **{key: _short(value) for key, value in sides.items()})


def _text(x: float, y: float, words: str, anchor: str = "start", kind: str = "plain") -> Markup:
    return element("text", words, x=_short(x), y=_short(y), class_=f"{anchor} {kind}")


def _short(value: float) -> str:
    return f"{value:.1f}"

"""Rows as a Markdown table that also reads as plain text.

What papers report comes in from outside as text and stands in columns of its own: it was measured
on other data, often under another convention.
"""

from collections.abc import Mapping, Sequence

from synth_ct.evaluation.protocols import PROTOCOLS
from synth_ct.evaluation.table import METRICS, Row
from synth_ct.kit.statistics import Estimate

Quotes = Mapping[str, Mapping[str, str]]
"""system -> metric -> the value as printed in the paper."""

TITLES = {
    "psnr": "PSNR (dB)", "ssim": "SSIM", "mae_hu": "MAE (HU)", "lpips": "LPIPS", "fid": "FID",
    "kid": "KID", "dice": "Dice", "projection_error": "projection error", "code_usage": "code use",
}  # fmt: skip
DECIMALS = {"psnr": 2, "mae_hu": 1, "fid": 1, "kid": 4}
"""Three where nothing is said."""
FACTS = ("system", "protocol", "n", "views", "M params", "TMACs")
NOTHING = "-"
NOT_RUN = "not run"


def markdown(
    rows: Sequence[Row], metrics: Sequence[str], quotes: Quotes, notes: Sequence[str] = ()
) -> str:
    """The table: what was measured, then what is quoted, then what must be known to read it.

    A quote stands in the first row of its system; systems known only from papers come last.
    """
    quoted = [metric for metric in metrics if any(metric in quote for quote in quotes.values())]
    header = [*FACTS, *(TITLES[m] for m in metrics), *(f"{TITLES[m]}, quoted" for m in quoted)]
    lines, seen = [header], set[str]()
    for row in rows:
        name = row.system.name
        quote = {} if name in seen else quotes.get(name, {})
        lines.append([*_facts(row), *(_cell(row, m) for m in metrics), *_said(quote, quoted)])
        seen.add(name)
    cited = [name for name, quote in quotes.items() if any(m in quote for m in quoted)]
    for name in (name for name in cited if name not in seen):
        blank = [NOTHING] * (len(FACTS) - 1) + [NOT_RUN] * len(metrics)
        lines.append([name, *blank, *_said(quotes[name], quoted)])
    return "\n".join([*_aligned(lines), "", *_footnotes(rows, metrics), *notes]) + "\n"


def _facts(row: Row) -> list[str]:
    system = row.system
    return [
        system.name,
        row.protocol,
        str(row.n),
        NOTHING if system.views is None else str(system.views),
        NOTHING if system.params is None else f"{system.params / 1e6:.2f}",
        NOTHING if system.tmacs is None else f"{system.tmacs:.3f}",
    ]


def _cell(row: Row, metric: str) -> str:
    value = row.metrics.get(metric)
    return NOTHING if value is None else written(value, DECIMALS.get(metric, 3))


def written(value: Estimate, decimals: int) -> str:
    """Mean ± standard deviation [95 % interval], as much of it as there is."""
    text = f"{value.mean:.{decimals}f}"
    if value.sd is not None:
        text += f" ± {value.sd:.{decimals}f}"
    if value.lo is not None and value.hi is not None:
        text += f" [{value.lo:.{decimals}f}, {value.hi:.{decimals}f}]"
    return text


def _said(quote: Mapping[str, str], quoted: Sequence[str]) -> list[str]:
    return [quote.get(metric, NOTHING) for metric in quoted]


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return [padded[0], rule, *padded[1:]]


def _footnotes(rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """The protocols in use, and each reason for a missing metric with the systems it holds for."""
    used = dict.fromkeys(row.protocol for row in rows)
    notes = [f"* {name}: {PROTOCOLS[name].says}." for name in used if name in PROTOCOLS]
    if any(value.lo is not None for row in rows for value in row.metrics.values()):
        notes.append("* Mean ± standard deviation over patients [95 % interval of the mean].")
    missing: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        for metric in (m for m in METRICS if m in metrics and m in row.absent):
            missing.setdefault((metric, row.absent[metric]), []).append(row)
    for (metric, why), without in missing.items():
        notes.append(f"* No {TITLES[metric]}{_where(without, rows)}: {why}.")
    return notes


def _where(some: Sequence[Row], rows: Sequence[Row]) -> str:
    """Which rows these are, in the fewest words."""
    protocols = dict.fromkeys(row.protocol for row in some)
    if len(some) == len(rows):
        return ""
    if len(some) == sum(row.protocol in protocols for row in rows):
        return f" under {', '.join(protocols)}"
    return f" of {', '.join(dict.fromkeys(row.system.name for row in some))}"

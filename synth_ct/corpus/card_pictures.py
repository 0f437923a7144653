"""The two pictures of a card: how the quality figures are spread, and what volumes look like."""

import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from synth_ct.corpus.layout import preview_file
from synth_ct.corpus.row import Row
from synth_ct.corpus.tally import Figure
from synth_ct.kit.durable import write_bytes
from synth_ct.preview import Tile, contact_sheet

SHOWN = 24
"""Volumes on the sheet."""
COLUMNS = 4
BINS = (8, 40)
"""Of a histogram, at least and at most: two for each root of the number of values."""
TAILS = (0.1, 99.9)
"""Percentiles that a histogram spans; what lies beyond is counted at its ends."""
COLOURS = {"passed": "#0072b2", "failed": "#d55e00"}
"""Blue and vermilion: told apart by colour-blind readers too, and in grey."""


def evenly(volumes: int) -> set[int]:
    """Places at even distances in the order of ids. Ids are hashes: nobody chose them."""
    return {n * volumes // SHOWN for n in range(SHOWN)}


def write_sheet(path: Path, corpus: Path, rows: Iterable[Row]) -> int:
    """The previews of these rows; how many there are. None, and no file is written."""
    tiles = [
        Tile((corpus / preview_file(row.id)).read_bytes(), row.finding)
        for row in rows
        if row.preview_sha256
    ]
    if tiles:
        write_bytes(path, contact_sheet(tiles))
    return len(tiles)


def write_histograms(path: Path, figures: Mapping[str, Figure]) -> None:
    """One small plot for each figure, of volumes that passed every check and of the others."""
    from matplotlib.figure import Figure as Drawing

    rows = math.ceil(len(figures) / COLUMNS)
    drawing = Drawing(figsize=(3.0 * COLUMNS, 2.1 * rows + 0.5), dpi=100, layout="constrained")
    plots = drawing.subplots(rows, COLUMNS, squeeze=False)
    for plot in plots.flat[len(figures) :]:
        plot.set_axis_off()
    for plot, (name, figure) in zip(plots.flat, figures.items(), strict=False):
        _histogram(plot, name, figure)
    handles, labels = plots.flat[0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    file = io.BytesIO()
    drawing.savefig(file, format="png", metadata={"Software": None})
    write_bytes(path, file.getvalue())


def _histogram(plot: Any, name: str, figure: Figure) -> None:
    import numpy as np

    groups = {"passed": figure.passed, "failed": figure.failed}
    together = np.concatenate([np.asarray(sample.values) for sample in groups.values()])
    plot.set_title(name.replace("$", r"\$"), fontsize=10)
    plot.set_yticks([])
    plot.tick_params(labelsize=8)
    for side in ("left", "right", "top"):
        plot.spines[side].set_visible(False)
    low, high = np.percentile(together, TAILS) if len(together) else (0.0, 1.0)
    bins = int(np.clip(2 * math.sqrt(len(together)), *BINS))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    for group, sample in groups.items():
        label = "passed every check" if group == "passed" else "failed a check"
        height = np.histogram(np.clip(sample.values, low, high), edges)[0]
        height = height * (sample.seen / max(len(sample.values), 1))
        filled = group == "passed"
        plot.stairs(
            height, edges, fill=filled, color=COLOURS[group], lw=1.5, label=label,
            alpha=0.55 if filled else 1.0,
        )  # fmt: skip

"""The figures of an evaluation, from arrays to PNG.

Slices lie as a radiologist reads them: patient right at the viewer's left, superior or anterior
up, axial slices seen from the feet; voxels are drawn square. Every volume of a figure has the
same fixed window; which cases are shown follows a rule that is printed in the figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from synth_ct.kit.axes import FilmArray, HuArray
from synth_ct.kit.durable import write_bytes
from synth_ct.preview import PLANES, SHOWN_HU, upright

CELL_INCHES = 1.6
MARGIN_INCHES = 0.4
DOTS_PER_INCH = 120


@dataclass(frozen=True, slots=True)
class Triptych:
    """One patient: the radiograph as it is, a DRR, and the radiograph in the DRRs' style."""

    name: str
    real_UV: FilmArray
    drr_UV: FilmArray
    styled_UV: FilmArray


@dataclass(frozen=True, slots=True)
class Shown:
    """A case of a figure, and by which rule it is there."""

    case: str
    why: str


def chosen_cases(psnr: Mapping[str, float]) -> tuple[Shown, ...]:
    """Best, median and worst of one system by PSNR, nobody twice; of equals, the first name."""
    if not psnr:
        raise ValueError("no case was scored, so there is none to show")
    ranked = sorted(psnr, key=lambda case: (-psnr[case], case))
    places = {len(ranked) // 2: "median", len(ranked) - 1: "worst", 0: "best"}
    return tuple(Shown(ranked[place], places[place]) for place in sorted(places))


def style_figure(rows: Sequence[Triptych], file: Path) -> None:
    """Figure 2: a radiograph, a DRR, and the radiograph restyled, one line a patient."""
    titles = ("radiograph", "DRR", "styled")
    figure, grid = _sheet(len(rows), len(titles))
    for row, line in zip(rows, grid, strict=True):
        for film_UV, axes in zip((row.real_UV, row.drr_UV, row.styled_UV), line, strict=True):
            axes.imshow(film_UV, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        _label(line[0], row.name)
    _head(grid, titles)
    _save(figure, file)


def reconstruction_figure(
    systems: Mapping[str, Mapping[str, np.ndarray]],
    truth: Mapping[str, np.ndarray],
    shown: Sequence[Shown],
    rule: str,
    file: Path,
) -> None:
    """Figure 3: the truth and every system, each case in three planes through the middle.

    `rule` says by whose score the cases were chosen.
    """
    volumes = {"truth": truth, **systems}
    lines = [(case, plane) for case in shown for plane in PLANES]
    figure, grid = _sheet(len(lines), len(volumes))
    for (one, plane), line in zip(lines, grid, strict=True):
        for of_case, axes in zip(volumes.values(), line, strict=True):
            _slice(axes, of_case[one.case], plane)
        _label(line[0], f"{one.why}: {one.case}\n{plane}" if plane == PLANES[0] else plane)
    _head(grid, tuple(volumes))
    low, high = SHOWN_HU
    figure.supxlabel(f"{rule}; HU [{low:.0f}, {high:.0f}]", color="white", fontsize=7)
    _save(figure, file)


def _slice(axes: Axes, hu_XYZ: HuArray, plane: str) -> None:
    low, high = SHOWN_HU
    axes.imshow(upright(hu_XYZ, plane), cmap="gray", vmin=low, vmax=high, interpolation="nearest")


def _sheet(lines: int, columns: int) -> tuple[Figure, np.ndarray]:
    size = (columns * CELL_INCHES + MARGIN_INCHES, lines * CELL_INCHES + MARGIN_INCHES)
    figure = Figure(figsize=size, facecolor="black")
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.set_frame_on(False)
    return figure, grid


def _head(grid: np.ndarray, titles: Sequence[str]) -> None:
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, color="white", fontsize=9)


def _label(axes: Axes, text: str) -> None:
    axes.set_ylabel(text, color="white", fontsize=7)


def _save(figure: Figure, file: Path) -> None:
    """Equal arrays give equal bytes: no date and no version of the software in the file."""
    picture = BytesIO()
    figure.savefig(
        picture, format="png", dpi=DOTS_PER_INCH, facecolor="black", metadata={"Software": None}
    )
    write_bytes(file, picture.getvalue())

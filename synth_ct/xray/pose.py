"""Is it an upright frontal chest with white bones? Asked of a film before anything trusts it.

The film's coarse ranks are laid over the thorax picture of `frame` as they are, inverted, and
turned by 90, 180 and 270 degrees; the hypothesis that fits best tells what is wrong. Refused are
only answers that no true film gave when measured (docs/radiographs.md has the rates):

* inverted grey values without a tag that says so, and quarter or half turns.

Two defects are not refused, because no measure of this kind tells them apart. A mirrored film (or
a heart on the right) fits better than its mirror image in many children, whose hearts stand near
the middle. A lateral film fits as well as a frontal one of a sick chest. A poor fit gives the note
`unlike_frontal_chest`; a lateral is refused where a tag or a file name says it is one.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synth_ct.kit.axes import FilmArray
from synth_ct.kit.quarantine import Refused
from synth_ct.xray.decode import decode
from synth_ct.xray.frame import equalised, every, most_like
from synth_ct.xray.grey import Decoded

POOR_LIKENESS = 0.65
INVERTED_MARGIN, QUARTER_MARGIN, HALF_MARGIN = 0.1, 0.1, 0.15
"""How much better a wrong hypothesis must fit before a film is refused for it."""
SPANS = every(np.linspace(0.35, 0.65, 7), np.linspace(0.5, 1.1, 5))
"""Coarser than a framing needs, for speed; a verdict has margins."""


@dataclass(frozen=True, slots=True)
class Pose:
    """How well each reading of a film fits the thorax, as correlations."""

    upright: float
    inverted: float
    quarter_turn: float
    half_turn: float


def pose(film_UV: FilmArray) -> Pose:
    """Lay the film over the thorax in every way it may have been saved."""
    ranks = equalised(film_UV)

    def fit(ranks_UV: FilmArray) -> float:
        return most_like(ranks_UV, SPANS, SPANS)[0]

    return Pose(
        upright=fit(ranks),
        inverted=fit(1 - ranks),
        quarter_turn=max(fit(np.rot90(ranks)), fit(np.rot90(ranks, 3))),
        half_turn=fit(np.rot90(ranks, 2)),
    )


def check_pose(film_UV: FilmArray) -> tuple[str, ...]:
    """Refuse a film that is plainly inverted or turned; note one unlike a frontal chest."""
    found = pose(film_UV)
    wrong = max(found.inverted, found.quarter_turn, found.half_turn)
    if found.inverted == wrong and wrong > found.upright + INVERTED_MARGIN:
        raise Refused(
            "E_IMG_INVERTED",
            "it looks inverted (air white, bone black) and no tag says so; "
            "a model would read lungs as bone",
            "invert it if it is, or export it as DICOM with its PhotometricInterpretation",
        )
    quarter = found.quarter_turn == wrong and wrong > found.upright + QUARTER_MARGIN
    if quarter or found.half_turn > found.upright + HALF_MARGIN:
        turn = "a quarter" if quarter else "half a"
        raise Refused(
            "E_IMG_VIEW",
            f"it looks like a chest rotated by {turn} turn; the head must be up",
            "turn it upright and run again",
        )
    return ("unlike_frontal_chest",) if found.upright < POOR_LIKENESS else ()


def read_radiograph(path: Path) -> Decoded:
    """Decode a file and check its pose: the way in for every radiograph that is not our own."""
    film = decode(path)
    return film.noting(*check_pose(film.pixels_UV))

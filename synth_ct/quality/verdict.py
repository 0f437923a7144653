"""The verdict on one made volume: accepted, or the first check that it failed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from synth_ct.kit.axes import FilmArray, HuArray
from synth_ct.kit.volume import Volume, to_ras
from synth_ct.quality.look import (
    Cells,
    Figures,
    ManyCells,
    correlations,
    directions,
    distances_hu,
    film_ranks,
    look_at,
    side_of,
)
from synth_ct.quality.reference import RANGED, QualityReference, agreement, gain

REASONS: Mapping[str, str] = {
    "not_finite": "a voxel is NaN or infinite",
    "body": "the body fills an implausible share of the volume",
    "lungs": "the lungs, or the lesser one, are missing or of an implausible size",
    "lung_hu": "the median HU of the lungs is implausible",
    "flesh_hu": "the median HU of the body without lungs is implausible",
    "fat_hu": "fat is absent or at implausible HU",
    "soft_hu": "soft tissue is absent or at implausible HU",
    "bone_hu": "bone is absent or at implausible HU",
    "mirrored": "left and right are exchanged, or cannot be told apart",
    "back_to_front": "front and back are exchanged, or cannot be told apart",
    "upside_down": "head and feet are exchanged, or cannot be told apart",
    "reprojection": "projected, it is no more like its own film than like other patients'",
    "memorised": "it is a training volume, made from another patient's film",
}
"""Every code of a verdict, in the order of the checks."""
SHARED_REASONS = {"body_share": "body", "lung_share": "lungs", "lesser_lung_share": "lungs"}
"""The other figures with a range are reasons by their own names."""
DIRECTIONS = {
    "towards_right": "mirrored",
    "towards_front": "back_to_front",
    "towards_head": "upside_down",
}
"""Agreement with the training volumes on which way X, Y and Z run."""
FIGURES = (
    *RANGED,
    *DIRECTIONS,
    "reprojection",
    "reprojection_others",
    "reprojection_gain",
    "nearest_hu",
    "film_of_nearest",
)
SAME_FILM = 0.9
"""Films this alike show one patient: made from a training film, its own CT is the right answer."""


class Verdict(NamedTuple):
    """Fit or not, why not (a key of `REASONS`, or nothing), and what was measured."""

    accepted: bool
    reason: str
    figures: Figures


def judge(
    volume: Volume,
    film_UV: FilmArray,
    others: Sequence[FilmArray],
    reference: QualityReference,
) -> Verdict:
    """Hold a volume in HU against its framed film and the reference of its generator.

    `others` are films of other patients, framed alike; where there are none, the training films
    stand in. For a real film give real ones: what all of them have in common then cancels.
    """
    hu_XYZ = to_ras(volume).array_XYZ
    size = side_of(hu_XYZ)
    if size != reference.size:
        raise ValueError(
            f"a volume of {size} voxels a side was held against a reference of "
            f"{reference.size}; use the reference of the generator that made it"
        )
    if not np.isfinite(hu_XYZ).all():
        return Verdict(False, "not_finite", dict.fromkeys(FIGURES))
    figures = measured(hu_XYZ, film_UV, others, reference)
    reason = first_failed(figures, reference)
    return Verdict(not reason, reason, figures)


def measured(
    hu_XYZ: HuArray, film_UV: FilmArray, others: Sequence[FilmArray], reference: QualityReference
) -> Figures:
    """All figures of a finite volume."""
    look, film = look_at(hu_XYZ), film_ranks(film_UV)
    training, training_films = reference.cells_hu(), reference.films()
    mean_film = training_films.mean(0)
    n, distance = nearest(look.cells_XYZ, training)
    alike = correlations((film - mean_film)[None], (training_films[n] - mean_film)[None])
    control = np.stack([film_ranks(other) for other in others]) if others else training_films
    films = np.concatenate([film[None], control])
    mean_projection = reference.mean_projection_UV
    agree = agreement(look.projection_UV[None], mean_projection, films, mean_film)[0]
    own, strangers = float(agree[0]), float(agree[1:].mean())
    return {
        **look.figures,
        **dict(zip(DIRECTIONS, directions(look.cells_XYZ, training.mean(0)), strict=True)),
        "reprojection": own,
        "reprojection_others": strangers,
        "reprojection_gain": float(gain(np.array(own), np.array(strangers))),
        "nearest_hu": distance,
        "film_of_nearest": float(alike[0, 0]),
    }


def nearest(cells_XYZ: Cells, training_NXYZ: ManyCells) -> tuple[int, float]:
    """Which training volume is nearest, and how far it is."""
    distances = distances_hu(cells_XYZ, training_NXYZ)
    n = int(distances.argmin())
    return n, float(distances[n])


def first_failed(figures: Figures, reference: QualityReference) -> str:
    """The code of the first check that fails; a figure that is missing fails its check."""
    for name, (low, high) in reference.ranges.items():
        value = figures[name]
        if value is None or not low <= value <= high:
            return SHARED_REASONS.get(name, name)
    found = {name: value for name, value in figures.items() if value is not None}
    for name, least in zip(DIRECTIONS, reference.least_directions, strict=True):
        if not found[name] > least:
            return DIRECTIONS[name]
    if not found["reprojection_gain"] > reference.least_gain:
        return "reprojection"
    known = found["nearest_hu"] < reference.least_distance_hu
    return "memorised" if known and found["film_of_nearest"] < SAME_FILM else ""

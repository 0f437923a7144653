"""How well a predicted segmentation meets its reference: Dice, surface Dice, volumes, per organ.

Both are compared on the reference's own grid. An organ that neither has says nothing and is left
out, counted; one that only the prediction has scores zero, or a mean over cases would reward it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial import KDTree

from synth_ct.kit import volume
from synth_ct.kit.axes import Millimetres3
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.volume import LabelMap

Mask = Bool[np.ndarray, "x y z"]
Points = Float[np.ndarray, "_ 3"]
Box = tuple[slice, ...]
Outcome = Literal["scored", "false_positive", "absent"]
"""The reference has the organ; only the prediction has it: 0; neither has it: None."""

SAME_PLACE = 1e-3
"""Affines that differ by less are the same: NIfTI keeps them in 32 bits."""
SLACK_MM = 1e-4
"""Three voxels of 0.7 mm are within 2.1 mm, though 32 bits say otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One organ of one case."""

    case: str
    patient: str
    label: int
    organ: str
    outcome: Outcome
    dice: float | None
    nsd: float | None
    reference_ml: float
    predicted_ml: float


def dice(predicted_XYZ: Mask, reference_XYZ: Mask) -> float | None:
    """2 |P and R| / (|P| + |R|); None where both are empty."""
    voxels = int(predicted_XYZ.sum()) + int(reference_XYZ.sum())
    common = int((predicted_XYZ & reference_XYZ).sum())
    return 2 * common / voxels if voxels else None


def surface_dice(
    predicted_XYZ: Mask, reference_XYZ: Mask, spacing_mm: Millimetres3, tolerance_mm: float
) -> float | None:
    """(|dP within t of dR| + |dR within t of dP|) / (|dP| + |dR|); None where both are empty.

    Each boundary voxel is a point in millimetres, so a few strays do not make the case larger.
    """
    p_N3, r_N3 = (boundary_mm(mask, spacing_mm) for mask in (predicted_XYZ, reference_XYZ))
    voxels = len(p_N3) + len(r_N3)
    near = _near(p_N3, r_N3, tolerance_mm) + _near(r_N3, p_N3, tolerance_mm)
    return near / voxels if voxels else None


def boundary_mm(mask_XYZ: Mask, spacing_mm: Millimetres3) -> Points:
    """M minus its erosion by the six-neighbour cross; beyond the array's faces is outside."""
    (box,) = ndimage.find_objects(mask_XYZ, 1)
    if box is None:
        return np.empty((0, 3))
    inside_XYZ = ndimage.binary_erosion(mask_XYZ[box])
    voxels_N3 = np.argwhere(mask_XYZ[box] & ~inside_XYZ)
    points_N3: Points = (voxels_N3 + [side.start for side in box]) * np.array(spacing_mm)
    return points_N3


def _near(from_N3: Points, to_N3: Points, tolerance_mm: float) -> int:
    """How many p have min over q of |p - q| <= t."""
    if not len(from_N3) or not len(to_N3):
        return 0
    reach = tolerance_mm + SLACK_MM
    apart_N, _ = KDTree(to_N3, balanced_tree=False).query(from_N3, distance_upper_bound=reach)
    return int(np.isfinite(apart_N).sum())


def scores(
    predicted: LabelMap,
    reference: LabelMap,
    classes: Mapping[int, str],
    *,
    case: str,
    patient: str,
    tolerance_mm: float,
) -> list[Score]:
    """Every organ of a case, by label; maps of different grids or with unknown labels are refused.

    Volumes are in millilitres.
    """
    if 0 in classes or not tolerance_mm >= 0:
        raise ValueError(
            f"classes {sorted(classes)}, tolerance {tolerance_mm} mm: 0 is background and no "
            "organ, and no distance is negative; name organs only, and a tolerance of 0 or more"
        )
    _demand_same_grid(predicted, reference, case)
    predicted, reference = _z_fastest(predicted), _z_fastest(reference)
    boxes = _boxes(predicted, reference, classes, case)
    spacing_mm = volume.spacing_mm(reference.affine)
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    found = []
    for label in sorted(classes):
        p_XYZ, r_XYZ = (m.array_XYZ[boxes[label]] == label for m in (predicted, reference))
        found.append(
            Score(
                case=case,
                patient=patient,
                label=label,
                organ=classes[label],
                outcome=_outcome(p_XYZ, r_XYZ),
                dice=dice(p_XYZ, r_XYZ),
                nsd=surface_dice(p_XYZ, r_XYZ, spacing_mm, tolerance_mm),
                reference_ml=voxel_ml * int(r_XYZ.sum()),
                predicted_ml=voxel_ml * int(p_XYZ.sum()),
            )
        )
    return found


def _z_fastest(labels: LabelMap) -> LabelMap:
    """The same map as numpy lays arrays out: files come the other way round, three times slower."""
    return LabelMap(np.ascontiguousarray(labels.array_XYZ), labels.affine)


def _outcome(predicted_XYZ: Mask, reference_XYZ: Mask) -> Outcome:
    if reference_XYZ.any():
        return "scored"
    return "false_positive" if predicted_XYZ.any() else "absent"


def _boxes(
    predicted: LabelMap, reference: LabelMap, classes: Mapping[int, str], case: str
) -> dict[int, Box]:
    """Where in either map each class is; an empty box where in neither."""
    found = {"prediction": _boxes_of(predicted), "reference": _boxes_of(reference)}
    for whose, own in found.items():
        if unknown := sorted(own.keys() - classes.keys()):
            raise Refused(
                "E_LBL_UNKNOWN",
                f"the {whose} of {case} has labels {unknown}, which are no class of its data set",
                "predict and score with the classes of the cohort that the case is from",
            )
    nowhere = (slice(0, 0),) * 3
    both = [[own[label] for own in found.values() if label in own] for label in classes]
    return {
        label: tuple(map(_span, *boxes)) if boxes else nowhere
        for label, boxes in zip(classes, both, strict=True)
    }


def _span(*slices: slice) -> slice:
    """The shortest slice that holds all of them."""
    return slice(min(s.start for s in slices), max(s.stop for s in slices))


def _boxes_of(labels: LabelMap) -> dict[int, Box]:
    """The box of each label that occurs, in one pass over the voxels."""
    found = ndimage.find_objects(labels.array_XYZ)
    return {label: box for label, box in enumerate(found, 1) if box is not None}


def _demand_same_grid(predicted: LabelMap, reference: LabelMap, case: str) -> None:
    remedy = "save predictions on the grid of their case, and score them against that case"
    shapes = predicted.array_XYZ.shape, reference.array_XYZ.shape
    if shapes[0] != shapes[1]:
        raise Refused(
            "E_PAIR_SHAPE",
            f"the prediction of {case} has {shapes[0]} voxels, its reference {shapes[1]}",
            remedy,
        )
    apart = float(np.abs(predicted.affine - reference.affine).max())
    if not apart <= SAME_PLACE:
        raise Refused(
            "E_PAIR_AFFINE",
            f"the affines of the prediction of {case} and of its reference differ by {apart:.4g}",
            remedy,
        )

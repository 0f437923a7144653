"""A label map beside its CT: the same grid, only known whole ids, sides where a body has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import ndimage

from synth_ct.cohort.case import Case, Found
from synth_ct.kit.axes import VoxelArray
from synth_ct.kit.quarantine import Refused, printable
from synth_ct.kit.volume import LabelMap, Volume, to_ras
from synth_ct.sources.gates import RawVolume
from synth_ct.sources.volume_files import Scan, keep, read_ct, read_raw

WHOLE = 1e-3
"""Further from a whole number than a stored slope explains: the label was interpolated."""
VOXELS_APART = 0.1
"""Corners of image and label may differ by a tenth of a voxel: headers round."""
BODY_HU = -300
SIDES: Mapping[str, Literal["left", "right"]] = {"spleen": "left", "liver": "right"}


def read_labelled(found: Found, workspace: Path, classes: Mapping[int, str]) -> Case:
    """Read a CT with its labels, check one against the other, write both."""
    image, label = found.files[0], found.labels[0]
    scan = read_ct(image)
    try:
        labels, notes = read_labels(label, scan.volume, classes)
        refuse_flipped(scan.volume, labels, classes)
    except Refused as refused:
        cause = f"{refused.cause} (label {printable(label.name)}, image {printable(image.name)})"
        raise Refused(refused.code, cause, refused.remedy) from refused
    scan = Scan(volume=scan.volume, sha256=scan.sha256, notes=(*scan.notes, *notes))
    return keep(scan, workspace, labels)


def read_labels(
    path: Path, image: Volume, classes: Mapping[int, str]
) -> tuple[LabelMap, tuple[str, ...]]:
    """Read the labels of `image` (canonical, RAS+). Never resampled: another grid is refused."""
    raw = read_raw(path)
    refuse_unknown(raw, classes)
    whole = np.rint(raw.array_XYZ).astype(np.uint8)
    labels = to_ras(LabelMap(whole, raw.affine))
    refuse_other_grid(labels, image)
    if not labels.array_XYZ.any():
        raise Refused(
            "E_LBL_EMPTY",
            "no voxel is labelled, so there is nothing to learn or to score",
            "label at least one structure, or leave the case out",
        )
    there = LabelMap(labels.array_XYZ, image.affine)  # the same voxels, to the last digit
    return there, tuple(f"label_{note}" for note in raw.notes)


def refuse_unknown(raw: RawVolume, classes: Mapping[int, str]) -> None:
    """Every voxel must hold 0 or the id of a class, as a whole number."""
    ids, counts = ids_in(raw.array_XYZ)
    broken = [(v, n) for v, n in zip(ids, counts, strict=True) if abs(v - round(v)) > WHOLE]
    if broken:
        raise Refused(
            "E_LBL_NONINT",
            f"labels are not whole numbers: {_listed(broken)}; they were interpolated",
            "resample labels with nearest neighbour, from the original annotation",
        )
    known = {0, *classes}
    unknown = [(v, n) for v, n in zip(ids, counts, strict=True) if round(v) not in known]
    if unknown:
        raise Refused(
            "E_LBL_UNKNOWN",
            f"label ids that no class has: {_listed(unknown)}; known are {sorted(known)}",
            "correct the labels, or add the ids to the data set's table of labels",
        )


def ids_in(array_XYZ: VoxelArray) -> tuple[list[float], list[int]]:
    """Values and how many voxels hold each; fast where they are small whole numbers."""
    if array_XYZ.dtype == np.uint8:
        counts = np.bincount(array_XYZ.ravel(order="K"), minlength=256)
        return [float(i) for i in np.flatnonzero(counts)], counts[counts > 0].tolist()
    values, numbers = np.unique(array_XYZ, return_counts=True)
    return [float(v) for v in values], numbers.tolist()


def _listed(pairs: list[tuple[float, int]]) -> str:
    shown = ", ".join(f"{value:g} ({count} voxels)" for value, count in pairs[:8])
    return shown + (f" and {len(pairs) - 8} more" if len(pairs) > 8 else "")


def refuse_other_grid(labels: LabelMap, image: Volume) -> None:
    """Shapes must be equal and corners must meet; an equal shape elsewhere is another place."""
    shapes = labels.array_XYZ.shape, image.array_XYZ.shape
    if shapes[0] != shapes[1]:
        raise Refused(
            "E_PAIR_SHAPE",
            f"the label has shape {shapes[0]}, the image {shapes[1]} (both as RAS+)",
            "take the label that belongs to this image",
        )
    corners = np.array([[*c, 1] for c in np.ndindex(2, 2, 2)], np.float64)
    corners[:, :3] *= np.array(shapes[0]) - 1
    apart = np.linalg.norm(corners @ (labels.affine - image.affine).T, axis=1).max()
    edge = np.linalg.norm(image.affine[:3, :3], axis=0).min()
    if apart > VOXELS_APART * edge:
        raise Refused(
            "E_PAIR_AFFINE",
            f"label and image lie up to {apart:.3g} mm apart in the scanner's coordinates",
            "take the label that belongs to this image, or correct its header",
        )


def refuse_flipped(image: Volume, labels: LabelMap, classes: Mapping[int, str]) -> None:
    """The spleen is left of the body's middle and the liver right of it, or a header lies.

    Flipped data with a confident header is a known fault of public data sets, and a network that
    learns it swaps every pair of organs.
    """
    body = image.array_XYZ > BODY_HU
    if not body.any():
        return
    centre = float(ndimage.center_of_mass(body)[0])
    for number, name in classes.items():
        side = SIDES.get(name.lower())
        mask = labels.array_XYZ == number
        if side is None or not mask.any():
            continue
        organ = float(ndimage.center_of_mass(mask)[0])
        if (organ < centre) != (side == "left"):
            raise Refused(
                "E_ANAT_FLIP",
                f"the {name} lies at the patient's wrong side, {abs(organ - centre):.0f} voxels "
                f"{'right' if side == 'left' else 'left'} of the body's middle",
                "left and right are swapped in its header (or in the patient: situs inversus); "
                "correct the header from the original images",
            )

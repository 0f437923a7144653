"""Tissues of phantoms beside tissues of real CT: the table of docs/phantom.md.

    python benchmarks/phantom_tissues.py ../shared/data [--write docs/phantom.md]

Real tissues come from label maps (TotalSegmentator's and BTCV's ids) where a scan has one, and
from simple thresholds elsewhere; medians, and spreads as 1.4826 times the median deviation.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from tables import put_table

from synth_ct.kit.volume import Volume, to_ras
from synth_ct.phantom import make_phantom
from synth_ct.phantom.anatomy import draw_anatomy
from synth_ct.phantom.canvas import stroke
from synth_ct.phantom.cohort import BTCV
from synth_ct.phantom.patient import blank_canvas, patient_axes
from synth_ct.phantom.shapes import Family
from synth_ct.phantom.skeleton import rib_path
from synth_ct.phantom.trunk import surfaces

Sample = tuple[float, float]
Rows = dict[str, list[Sample]]
TOTAL = {"vertebrae": tuple(range(29, 44)), "ribs": tuple(range(92, 116)), "muscle": (86, 87)}


def robust(values: np.ndarray) -> Sample:
    """Median and 1.4826 * median |x - median|."""
    middle = float(np.median(values))
    return middle, 1.4826 * float(np.median(np.abs(values - middle)))


def open_ras(path: Path) -> np.ndarray:
    """The voxels of a file, in canonical order."""
    image = nib.nifti1.load(path)
    array = np.asarray(image.dataobj).astype(np.float32)
    return to_ras(Volume(array, image.affine.astype(np.float64))).array_XYZ


def inside(mask: np.ndarray) -> np.ndarray:
    """Without the surface, where voxels are shared; small structures stay whole."""
    core = ndimage.binary_erosion(mask)
    return core if core.sum() > 60 else mask


def body_of(hu: np.ndarray) -> np.ndarray:
    """The largest thing denser than air, filled, without its skin."""
    solid = ndimage.binary_opening(ndimage.gaussian_filter(hu, 0.7) > -300, iterations=2)
    pieces, _ = ndimage.label(solid)
    body = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    for level in range(hu.shape[2]):
        body[:, :, level] = ndimage.binary_fill_holes(body[:, :, level])
    return ndimage.binary_erosion(body, iterations=2)


def by_threshold(hu: np.ndarray) -> Iterator[tuple[str, Sample]]:
    """Tissues that need no labels."""
    body, smooth = body_of(hu), ndimage.gaussian_filter(hu, 0.7)
    ranges = {"fat": (-140, -60), "lung": (-1000, -600), "bone above 200 HU": (200, 3000)}
    for name, (low, high) in ranges.items():
        mask = body & (smooth > low) & (smooth < high)
        core = mask if name.startswith("bone") else ndimage.binary_erosion(mask)
        if core.sum() > 500:
            yield name, robust(hu[core])
    soft = ndimage.binary_erosion(body & (smooth > 0) & (smooth < 130), iterations=3)
    fine = hu - ndimage.gaussian_filter(hu, 2)
    yield "fine noise in soft tissue", (float(fine[soft].std()), np.nan)
    for axis, name in ((0, "correlation of x neighbours"), (2, "correlation of z neighbours")):
        both = soft & np.roll(soft, 1, axis)
        product = (fine * np.roll(fine, 1, axis))[both].mean()
        yield name, (float(product / (fine[soft] ** 2).mean()), np.nan)


def real_rows(folder: Path) -> Rows:
    """All real scans at hand."""
    rows: Rows = defaultdict(list)
    for path in sorted((folder / "ct").glob("*.nii.gz")):
        for name, sample in by_threshold(open_ras(path)):
            rows[name].append(sample)
    chest = open_ras(folder / "ct" / "LIDC-IDRI-0001.nii.gz")
    total = open_ras(folder / "seg" / "LIDC-IDRI-0001_totalsegmentator_label.nii.gz")
    for name, ids in TOTAL.items():
        rows[name].append(robust(chest[inside(np.isin(total, ids))]))
    example = open_ras(folder / "seg" / "TotalSegmentator_example_ct.nii.gz")
    for hu, stem in ((chest, "LIDC-IDRI-0001"), (example, "TotalSegmentator_example")):
        organs = open_ras(folder / "seg" / f"{stem}_btcv13_label.nii.gz")
        for label, name in BTCV.items():
            if (organs == label).sum() > 60:
                rows[name].append(robust(hu[inside(organs == label)]))
    return rows


def wall_masks(seed: int, family: Family) -> tuple[np.ndarray, np.ndarray]:
    """Where a chest's muscle shell and its ribs were painted."""
    anatomy = draw_anatomy(seed, family)
    canvas = blank_canvas(anatomy, patient_axes(anatomy, "chest", 128))
    around = surfaces(anatomy.figure, canvas.points)
    for number in range(12):
        for side in (-1.0, 1.0):
            stroke(canvas, rib_path(anatomy, number, side), 4.6, 0.0, 1)
    ribs = canvas.label == 1
    wall = (around.fascia < -4) & (around.cavity > 4)
    return wall & ~ndimage.binary_dilation(ribs), ribs


def phantom_rows(count: int) -> Rows:
    """Chests and abdomens of both families."""
    rows: Rows = defaultdict(list)
    for seed in range(count):
        family: Family = "A" if seed % 2 == 0 else "B"
        for kind in ("chest", "abdomen"):
            subject = make_phantom(kind, seed, 128, family)
            hu = subject.ct.array_XYZ.astype(np.float32)
            for name, sample in by_threshold(hu):
                rows[name].append(sample)
            if kind == "chest":
                wall, ribs = wall_masks(seed, family)
                rows["muscle"].append(robust(hu[wall]))
                rows["ribs"].append(robust(hu[ribs]))
        for label, name in BTCV.items():
            rows[name].append(robust(hu[inside(subject.labels.array_XYZ == label)]))
        spine = make_phantom("lumbar", seed, 128, family)
        mask = inside(spine.labels.array_XYZ > 0)
        rows["vertebrae"].append(robust(spine.ct.array_XYZ[mask].astype(np.float32)))
    return rows


def span(samples: list[Sample], pick: Callable[[Sample], float]) -> str:
    """`least to most`, or the one value."""
    values = [pick(sample) for sample in samples if not np.isnan(pick(sample))]
    if not values:
        return "-"
    digits = 2 if max(map(abs, values)) < 2 else 0
    texts = [f"{value:.{digits}f}" for value in (min(values), max(values))]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"


def main() -> None:
    """Print the table, and put it in its page where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("real", type=Path, help="the folder of real images")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    asked = parser.parse_args()
    real, made = real_rows(asked.real), phantom_rows(10)
    table = ["| tissue | real: median | real: spread | phantom: median | phantom: spread |"]
    table += ["|---|---|---|---|---|"]
    for name in [*real, *(name for name in made if name not in real)]:
        cells = [span(rows[name], lambda s, k=k: s[k]) for rows in (real, made) for k in (0, 1)]
        table.append(f"| {name} | {' | '.join(cells)} |")
    print("\n".join(table))
    if asked.write:
        put_table(asked.write, table)


if __name__ == "__main__":
    main()

"""How much of each target organ pretraining could see: chest scans against abdominal ones.

    .venv/bin/python benchmarks/field_of_view.py [--real DATA] [--write PAGE]

Millilitres of each organ in the chest phantoms that the generator learns from (family A), against
the abdomens that networks are fine-tuned on (family B); and in one real chest CT with labels.
"""

import argparse
from datetime import date
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from synth_ct.cohort.organs import BTCV
from synth_ct.kit.seeds import seed_for
from synth_ct.phantom.patient import make_phantom

PATIENTS, SIZE, SEED = 40, 64, 0
REAL_CHEST = "seg/LIDC-IDRI-0001_btcv13_label.nii.gz"
REAL_ABDOMEN = "seg/TotalSegmentator_example_btcv13_label.nii.gz"


def millilitres(labels_XYZ: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Of each organ, in the order of their ids."""
    counts_K = np.bincount(labels_XYZ.ravel().astype(int), minlength=len(BTCV) + 1)
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    return counts_K[1 : len(BTCV) + 1] * voxel_ml


def of_phantoms(kind: Literal["chest", "abdomen"], family: Literal["A", "B"]) -> np.ndarray:
    """Patients x organs, in millilitres."""
    phantoms = (
        make_phantom(kind, seed_for(SEED, f"{kind}/{family}", n), SIZE, family)
        for n in range(PATIENTS)
    )
    return np.stack([millilitres(p.labels.array_XYZ, p.labels.affine) for p in phantoms])


def of_file(path: Path) -> np.ndarray:
    """Organs of one label map, in millilitres."""
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return millilitres(np.asarray(image.dataobj), image.affine)


def page(real: Path | None) -> str:
    """The table and what it is of."""
    chest, abdomen = of_phantoms("chest", "A").mean(0), of_phantoms("abdomen", "B").mean(0)
    names = list(BTCV.values())
    heads = ["organ", "chest phantom (ml)", "abdomen phantom (ml)", "covered"]
    columns = [chest, abdomen]
    if real is not None:
        heads += ["one real chest CT (ml)", "one real abdominal CT (ml)"]
        columns += [of_file(real / REAL_CHEST), of_file(real / REAL_ABDOMEN)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for k, name in enumerate(names):
        shown = [f"{column[k]:.1f}" for column in columns]
        shown.insert(2, f"{100 * chest[k] / abdomen[k]:.0f} %" if abdomen[k] else "-")
        lines.append(f"| {' | '.join([name, *shown])} |")
    table = "\n".join(lines)
    return f"""# What of the target organs lies in pretraining's field of view

{table}

Means of {PATIENTS} phantoms of {SIZE}^3 voxels. *Covered*: chest over abdomen; families differ in
the sizes of their organs, so more than 100 % means all of it. The real columns are one patient
each, with automatic labels: they show which organs a chest CT can show at all.

Phantom chests reach down to the kidneys, so pretraining on them does see the organs it is later
asked about. Real chest CT does so less: in the one here the kidneys are cut and the gallbladder is
absent.

Recipe: the first lines of `benchmarks/field_of_view.py`, {date.today().isoformat()}, seed {SEED}.
"""


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    text = page(options.real)
    if options.write is None:
        print(text)
    else:
        options.write.write_text(text)


if __name__ == "__main__":
    main()

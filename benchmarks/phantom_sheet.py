"""Phantoms beside real CT: the contact sheet of docs/phantom.md.

python benchmarks/phantom_sheet.py ../shared/data docs/img/phantom-beside-real.png
"""

import sys
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from synth_ct.kit.volume import Volume, to_ras
from synth_ct.phantom import make_phantom

SOFT, LUNG = (-160, 260), (-1050, 250)
COLUMNS = (
    ("axial", 0.16, SOFT), ("axial", 0.36, SOFT), ("axial", 0.58, SOFT), ("axial", 0.58, LUNG),
    ("coronal", 0.52, SOFT), ("coronal", 0.52, LUNG), ("sagittal", 0.5, SOFT),
)  # fmt: skip
"""View, where in the body, window."""


def real(path: Path) -> Volume:
    """A real CT, canonical, cut to its body so that the sheet compares like with like."""
    image = nib.nifti1.load(path)
    array = np.asarray(image.dataobj).astype(np.float32)
    volume = to_ras(Volume(array, image.affine.astype(np.float64)))
    solid = np.argwhere(volume.array_XYZ[:, :, :: max(1, array.shape[2] // 16)] > -100)
    low, high = np.percentile(solid[:, :2], [0.5, 99.5], axis=0).astype(int)
    cut = volume.array_XYZ[low[0] - 8 : high[0] + 8, max(0, low[1] - 8) : high[1] + 8]
    return Volume(np.ascontiguousarray(cut), volume.affine)


def show(axes: Axes, volume: Volume, view: str, place: float, window: tuple[int, int]) -> None:
    """One slice as a radiologist sees it: patient right at the left, anterior or superior up."""
    array = volume.array_XYZ
    number = {"sagittal": 0, "coronal": 1, "axial": 2}[view]
    index = int(place * array.shape[number])
    cut = np.take(array, index, axis=number)[::-1, ::-1].T
    axes.imshow(cut, cmap="gray", vmin=window[0], vmax=window[1], interpolation="bilinear")
    axes.set_axis_off()


def main(folder: Path, out: Path) -> None:
    """Alternate real and made, chests first."""
    rows = [
        ("real chest", real(folder / "ct" / "LIDC-IDRI-0001.nii.gz")),
        ("phantom A", make_phantom("chest", 10, 128, "A").ct),
        ("phantom B", make_phantom("chest", 5, 128, "B").ct),
        ("real abdomen", real(folder / "ct" / "abdomen_ACRIN-FLT-Breast-001.nii.gz")),
        ("phantom A", make_phantom("abdomen", 0, 128, "A").ct),
        ("phantom B", make_phantom("abdomen", 4, 128, "B").ct),
    ]
    figure, grid = plt.subplots(len(rows), len(COLUMNS), figsize=(14, 12), facecolor="black")
    for (name, volume), line in zip(rows, grid, strict=True):
        for column, (view, place, window) in zip(line, COLUMNS, strict=True):
            show(column, volume, view, place, window)
        line[0].set_title(name, color="white", fontsize=10, loc="left")
    figure.tight_layout(pad=0.2)
    sheet = BytesIO()
    figure.savefig(sheet, dpi=75, facecolor="black")
    Image.open(sheet).convert("L").save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

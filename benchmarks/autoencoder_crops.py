"""Does the autoencoder compress, or memorise? Crops of one scan, several quantisers, one thread.

    .venv/bin/python benchmarks/autoencoder_crops.py FOLDER kl=15 homogeneous=8 plain=8 fsq=6 \
        homogeneous/still=4 plain/still=4 [--write docs/results/autoencoder_crops.md]

FOLDER holds LIDC-IDRI-0001.nii.gz; `kind=minutes` is processor time; `/still` restarts no dead
codes. Trains on random crops of 32^3 voxels, more than half of them body, outside a slab of the
scan; measures PSNR (range 2, the window of 2500 HU) on crops of both, and what exchanging the
codes of two crops costs.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import torch
from matplotlib import pyplot as plt
from scipy import ndimage
from tables import put_table
from torch import Tensor

from synth_ct.kit.axes import VoxelArray
from synth_ct.kit.checkpoint import Checkpoints
from synth_ct.kit.loop import Training, train
from synth_ct.kit.schedule import Rate
from synth_ct.kit.seeds import numpy_random
from synth_ct.kit.volume import Volume, to_ras, window
from synth_ct.learners.autoencoder import (
    AUTOENCODER,
    AutoencoderBatch,
    AutoencoderLearner,
    AutoencoderRecipe,
)
from synth_ct.models.autoencoder import Autoencoder, AutoencoderSizes
from synth_ct.models.quantizers import QuantiserSizes

SCAN, SIDE, SEED, CPU = "LIDC-IDRI-0001.nii.gz", 32, 0, torch.device("cpu")
HELD_OUT = (48, 80)
"""Slices kept from training: a slab of one crop's height in the middle of the chest."""
MEASURED, SHOWN = 64, 6
"""Crops of each part on which is measured, and how many of the slab are shown."""
PACED = 12
"""Steps by which the pace of a kind is known."""


@dataclass(frozen=True)
class Scan:
    """The scan in the network's range, and where the patient is."""

    voxels_XYZ: VoxelArray
    body_XYZ: VoxelArray


@dataclass(frozen=True)
class Found:
    """What one kind of quantiser reached; the names of the numbers head the table."""

    kind: str
    numbers: dict[str, float]
    curve: tuple[float, ...]
    made_N1XYZ: Tensor
    """Crops of the slab, compressed and restored."""


# ---- crops -------------------------------------------------------------------------------------


def scan_in(folder: Path) -> Scan:
    """Read the scan; the body is its largest solid part with all that lies inside."""
    image = nib.Nifti1Image.from_filename(folder / SCAN)
    hu = to_ras(Volume(np.asarray(image.dataobj, np.int16), image.affine)).array_XYZ
    solid = ndimage.binary_opening(hu > -500, iterations=2)
    parts, count = ndimage.label(solid)
    largest = 1 + int(np.argmax(ndimage.sum_labels(solid, parts, range(1, count + 1))))
    slices = [ndimage.binary_fill_holes(part) for part in np.moveaxis(parts == largest, 2, 0)]
    return Scan(window(hu), np.stack(slices, 2))


def crops(scan: Scan, held_out: bool, count: int, random: np.random.Generator) -> Tensor:
    """`count` cubes, more than half body, within the slab or clear of it."""
    found: list[VoxelArray] = []
    low, high = HELD_OUT
    while len(found) < count:
        x, y, z = (int(random.integers(0, n - SIDE + 1)) for n in scan.voxels_XYZ.shape)
        inside, clear = low <= z <= high - SIDE, z + SIDE <= low or z >= high
        part = (slice(x, x + SIDE), slice(y, y + SIDE), slice(z, z + SIDE))
        if (inside if held_out else clear) and scan.body_XYZ[part].mean() > 0.5:
            found.append(scan.voxels_XYZ[part])
    return torch.from_numpy(np.stack(found)[:, None])


# ---- training ----------------------------------------------------------------------------------


def recipe_of(name: str, steps: int) -> AutoencoderRecipe:
    """Small enough for one thread; all alike but for the quantiser. `/still`: no code restarts."""
    kind, _, still = name.partition("/")
    restart = {"restart_below": 0.0} if still else {}
    sizes = AutoencoderSizes(
        channels=(96,),
        blocks=1,
        latent_channels=32 if kind == "kl" else 8,
        bottleneck=None,
        quantiser=QuantiserSizes.model_validate({"kind": kind} | restart),
        fold=2,
        normalise_ends=False,
    )
    training = Training(
        seed=SEED,
        steps=steps,
        global_batch=2,
        micro_batch=2,
        rate=Rate(shape="cosine", warmup_steps=min(20, steps)),
        clip_norm=1.0,
        average_decay=0.99,
    )
    weight = 1e-6 if kind == "kl" else 1.0
    return AutoencoderRecipe(
        sizes=sizes,
        codebook_weight=weight,
        crop=SIDE,
        rate=7e-4,
        training=training,
    )


def found(kind: str, minutes: float, scan: Scan) -> Found:
    """Train for as many steps as the minutes allow, by the pace of the first; measure."""
    pace = run(recipe_of(kind, PACED), scan)[2] / PACED
    steps = max(PACED, int(minutes / pace))
    autoencoder, rows, spent = run(recipe_of(kind, steps), scan)
    train_N1XYZ, held_N1XYZ = measured_crops(scan)
    numbers = {"minutes": spent, "steps": float(steps)}
    numbers |= quality(autoencoder, train_N1XYZ, held_N1XYZ)
    last = rows[-1]
    for name in ("usage", "perplexity"):
        numbers[name] = last.get(f"generator/{name}", float("nan"))
    curve = tuple(row["generator/reconstruction"] for row in rows)
    return Found(kind, numbers, curve, restored(autoencoder, held_N1XYZ[:SHOWN]))


def run(recipe: AutoencoderRecipe, scan: Scan) -> tuple[Autoencoder, list[dict[str, float]], float]:
    """Averaged weights, the log, and minutes of processor time."""
    learner, rows = AutoencoderLearner(recipe, CPU), list[dict[str, float]]()

    def batches(step: int, slot: int) -> AutoencoderBatch:
        random = numpy_random(SEED, "crops", f"{step}/{slot}")
        count = recipe.training.micro_batch
        return AutoencoderBatch(crops(scan, held_out=False, count=count, random=random), step)

    def log(step: int, row: dict[str, float]) -> None:
        rows.append(row)
        if step % (1 + recipe.training.steps // 10) == 0:
            print(f"step {step}: mean absolute error {row['generator/reconstruction']:.4f}")

    began = time.process_time()
    with TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder=Path(folder), every=recipe.training.steps)
        averages = train(learner, batches, recipe.training, checkpoints, log)
    learner.autoencoder.load_state_dict(averages[AUTOENCODER])
    return learner.autoencoder.eval(), rows, (time.process_time() - began) / 60


# ---- measuring ---------------------------------------------------------------------------------


def measured_crops(scan: Scan) -> tuple[Tensor, Tensor]:
    """Crops of where was trained, and of the slab."""
    random = numpy_random(SEED, "measured")
    return crops(scan, False, MEASURED, random), crops(scan, True, MEASURED, random)


def quality(autoencoder: Autoencoder, train_N1XYZ: Tensor, held_N1XYZ: Tensor) -> dict[str, float]:
    """PSNR of both parts, and what exchanging the codes of each two crops costs."""
    made_N1XYZ = restored(autoencoder, train_N1XYZ)
    own, exchanged = psnr(made_N1XYZ, train_N1XYZ), psnr(made_N1XYZ.roll(1, 0), train_N1XYZ)
    return {
        "training crops, dB": own,
        "held-out slab, dB": psnr(restored(autoencoder, held_N1XYZ), held_N1XYZ),
        "cost of exchanged codes, dB": own - exchanged,
    }


@torch.no_grad()
def restored(autoencoder: Autoencoder, ct_N1XYZ: Tensor) -> Tensor:
    """To the latent and back, a few at a time."""
    parts = [autoencoder.decode(autoencoder.embed(part)) for part in ct_N1XYZ.split(4)]
    return torch.cat(parts)


def psnr(made: Tensor, real: Tensor) -> float:
    """10 log10(range^2 / mean squared error over all crops), the range being 2."""
    return float(10 * torch.log10(4 / (made - real).square().mean()))


# ---- the page ----------------------------------------------------------------------------------

GOALS = {
    "training crops, dB": 35.0,
    "held-out slab, dB": 28.0,
    "cost of exchanged codes, dB": 10.0,
}


def table(results: Sequence[Found]) -> list[str]:
    """One row a kind; a star where the goal is reached."""
    names = list(results[0].numbers)
    lines = [f"| quantiser | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for one in results:
        cells = [_cell(name, value) for name, value in one.numbers.items()]
        lines.append(f"| {one.kind} | {' | '.join(cells)} |")
    return lines


def _cell(name: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    text = f"{value:.0f}" if name in ("steps", "perplexity") else f"{value:.3g}"
    if name in GOALS:
        text = f"{value:.1f}" + (" *" if value >= GOALS[name] else "")
    return text


def picture(results: Sequence[Found], scan: Scan, path: Path) -> None:
    """Curves of the mean absolute error, and the middle slices of crops of the slab."""
    real_N1XYZ = measured_crops(scan)[1][:SHOWN]
    shown = {"CT": real_N1XYZ} | {one.kind: one.made_N1XYZ for one in results}
    figure = plt.figure(figsize=(2 * SHOWN, 3.2 + 2 * len(shown)), layout="constrained")
    grid = figure.add_gridspec(len(shown) + 1, SHOWN, height_ratios=[1.6] + [1] * len(shown))
    axis = figure.add_subplot(grid[0, :])
    for one in results:
        window_of = max(1, len(one.curve) // 50)
        smooth = np.convolve(one.curve, np.ones(window_of) / window_of, "valid")
        axis.semilogy(np.arange(len(smooth)) + window_of, smooth, label=one.kind)
    axis.set(xlabel="step", ylabel="mean absolute error")
    axis.legend()
    for row, (name, crops_N1XYZ) in enumerate(shown.items(), 1):
        for column, crop_1XYZ in enumerate(crops_N1XYZ):
            place = figure.add_subplot(grid[row, column], xticks=[], yticks=[])
            coronal_ZX = crop_1XYZ[0, :, SIDE // 2, :].T.flip(0)
            place.imshow(coronal_ZX, cmap="gray", vmin=-1, vmax=0.2)
            place.set_ylabel(name if column == 0 else "")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main() -> None:
    """Each kind in turn; the table is printed, and written where asked."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("kinds", nargs="+", metavar="kind=minutes")
    parser.add_argument("--write", type=Path, help="the page whose table to replace")
    asked = parser.parse_args()
    scan = scan_in(asked.folder)
    results = []
    for kind, _, minutes in (text.partition("=") for text in asked.kinds):
        results.append(found(kind, float(minutes), scan))
        print("\n".join(table(results)), flush=True)
    if asked.write:
        picture(results, scan, asked.write.with_suffix(".png"))
        put_table(asked.write, table(results))


if __name__ == "__main__":
    main()

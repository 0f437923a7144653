"""How much windows must overlap: time and Dice of prediction against Gaussian overlap 0.5.

    .venv/bin/python benchmarks/predict_overlap.py [--steps 500] [--cases 6]
        [--write docs/results/predict_overlap.md]

Trains a small U-Net on phantom abdomens for two minutes, then predicts others with each overlap
in turn. Processor time of one thread; about four minutes in all.
"""

import argparse
import os
import time
from collections.abc import Sequence
from datetime import date
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tables import put_table
from torch import Tensor, nn
from torch.nn import functional

from finetune.predict import Inference, predict
from finetune.score import dice
from finetune.shown import Shown, as_shown
from pretrain.backbones import UNetSizes, build
from synth_ct.cohort.organs import BTCV
from synth_ct.kit.axes import Grid
from synth_ct.kit.schedule import Rate, rate_factor
from synth_ct.kit.seeds import numpy_random, seed_for
from synth_ct.kit.volume import LabelMap, Volume
from synth_ct.phantom.patient import make_phantom

SEED, SIDE, TRAINING_CASES, BATCH = 0, 64, 12, 4
SPACING = 320 / SIDE
SHOWN = Shown(spacing_mm=(SPACING, SPACING, SPACING), window_hu=(-175, 250))
CROP: Grid = (24, 24, 24)
ORGANS = (1, 2, 3, 6)
"""The solid ones, which are learnt in minutes."""
UNET = UNetSizes(width=6, levels=4, norm="batch")
LEARNING_RATE = 1e-2
REFERENCE = 0.5
OVERLAPS = (REFERENCE, 0.375, 0.25, 0.125, 0.0)
GOAL_TIMES, GOAL_DICE = 2.0, 0.002
REAL_CROP: Grid = (96, 96, 96)
REAL_GRIDS: dict[str, Grid] = {
    "280 x 280 x 280 mm": (187, 187, 187),
    "360 x 360 x 300 mm": (240, 240, 200),
    "400 x 400 x 450 mm": (267, 267, 300),
    "500 x 500 x 650 mm": (333, 333, 433),
}
"""At 1.5 mm; the first and the last are the ends of BTCV's range."""


class Labelled(NamedTuple):
    """A phantom with the organs as classes 1, 2, ..."""

    ct: Volume
    labels: LabelMap


def phantoms(purpose: str, count: int) -> list[Labelled]:
    """Patients of their own for each purpose."""
    classes = np.zeros(len(BTCV) + 1, np.uint8)
    classes[list(ORGANS)] = range(1, len(ORGANS) + 1)
    found = []
    for number in range(count):
        made = make_phantom("abdomen", seed_for(SEED, f"overlap/{purpose}", number), SIDE)
        labels = LabelMap(classes[made.labels.array_XYZ], made.labels.affine)
        found.append(Labelled(made.ct, labels))
    return found


# ---- a network ---------------------------------------------------------------------------------


def trained(cases: Sequence[Labelled], steps: int) -> nn.Module:
    """Random crops, half of them around an organ's voxel; Dice and cross-entropy."""
    network = build(UNET, len(ORGANS) + 1, SEED)
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    rate = Rate(shape="cosine", warmup_steps=10)
    shown = [as_shown(case.ct, SHOWN) for case in cases]
    foregrounds = [np.argwhere(case.labels.array_XYZ) for case in cases]
    random = numpy_random(SEED, "overlap/crops")
    for step in range(steps):
        cts, labels = [], []
        for k in range(BATCH):
            n = int(random.integers(len(cases)))
            centre = random.choice(foregrounds[n]) if k % 2 else random.integers(0, SIDE, 3)
            start = np.clip(centre - np.array(CROP) // 2, 0, SIDE - np.array(CROP))
            box = tuple(slice(a, a + s) for a, s in zip(start, CROP, strict=True))
            cts.append(torch.from_numpy(shown[n][box])[None])
            labels.append(torch.from_numpy(cases[n].labels.array_XYZ[box]).long())
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * rate_factor(rate, step, steps)
        loss = dice_and_entropy(network(torch.stack(cts)), torch.stack(labels))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


def dice_and_entropy(logits_BCXYZ: Tensor, class_BXYZ: Tensor) -> Tensor:
    """CE + 1 - mean_c 2 |p y| / (|p| + |y|)"""
    entropy = functional.cross_entropy(logits_BCXYZ, class_BXYZ)
    true_BCXYZ = functional.one_hot(class_BXYZ, logits_BCXYZ.shape[1]).movedim(-1, 1)
    p_BCXYZ, axes = logits_BCXYZ.softmax(1), (0, 2, 3, 4)
    both_C = (p_BCXYZ * true_BCXYZ).sum(axes)
    sizes_C = p_BCXYZ.sum(axes) + true_BCXYZ.sum(axes)
    return entropy + 1 - ((2 * both_C + 1) / (sizes_C + 1))[1:].mean()


# ---- the race ----------------------------------------------------------------------------------


class Run(NamedTuple):
    """One case with one overlap."""

    seconds: float
    windows: int
    dices: list[float]
    labels: LabelMap


class Counted(nn.Module):
    """The network, and how many windows it saw."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.windows = network, 0

    def forward(self, ct_B1XYZ: Tensor) -> Tensor:
        """Count, and answer."""
        repeated = len(ct_B1XYZ) == 2 and torch.equal(ct_B1XYZ[0], ct_B1XYZ[1])
        self.windows += 1 if repeated else len(ct_B1XYZ)
        answer_BCXYZ: Tensor = self.network(ct_B1XYZ)
        return answer_BCXYZ


def run(network: nn.Module, case: Labelled, overlap: float) -> Run:
    """Predict and score."""
    counted, begun = Counted(network), time.process_time()
    found = predict(counted, case.ct, SHOWN, CROP, Inference(overlap=overlap), torch.device("cpu"))
    seconds = time.process_time() - begun
    assert counted.windows == windows(case.ct.array_XYZ.shape, CROP, overlap)
    dices = [
        dice(found.array_XYZ == label, case.labels.array_XYZ == label)
        for label in range(1, len(ORGANS) + 1)
    ]
    return Run(seconds, counted.windows, [d for d in dices if d is not None], found)


def race(network: nn.Module, cases: Sequence[Labelled]) -> list[dict[float, Run]]:
    """Case by case, every overlap in turn, so that all meet the same moments of the machine."""
    run(network, cases[0], 0.0)  # warms up
    return [{overlap: run(network, case, overlap) for overlap in OVERLAPS} for case in cases]


def windows(grid: Grid, crop: Grid, overlap: float) -> int:
    """prod_axes ceil((n - c) / floor(c (1 - overlap))) + 1, one where the crop holds the axis."""
    count = 1
    for n, c in zip(grid, crop, strict=True):
        count *= ceil(max(0, n - c) / int(c * (1 - overlap))) + 1
    return count


# ---- the report --------------------------------------------------------------------------------


def race_table(runs: Sequence[dict[float, Run]]) -> list[str]:
    """One line an overlap."""
    rows = [
        "| overlap | windows | times faster, of windows | of seconds | Dice | minus 0.5's "
        "| most in a case | most in an organ | voxels labelled otherwise | goal |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    references = [each[REFERENCE] for each in runs]
    for overlap in OVERLAPS:
        here = [each[overlap] for each in runs]
        times = float(
            np.median([r.seconds / h.seconds for h, r in zip(here, references, strict=True)])
        )
        dices = np.array([h.dices for h in here])
        away = dices - np.array([r.dices for r in references])
        other = np.mean(
            [
                (h.labels.array_XYZ != r.labels.array_XYZ).mean()
                for h, r in zip(here, references, strict=True)
            ]
        )
        met = times >= GOAL_TIMES and abs(away.mean()) <= GOAL_DICE
        rows.append(
            f"| {overlap:g} | {here[0].windows} | {references[0].windows / here[0].windows:.2f} "
            f"| {times:.2f} | {dices.mean():.4f} | {away.mean():+.4f} "
            f"| {np.abs(away.mean(1)).max():.4f} | {np.abs(away).max():.4f} | {100 * other:.2f} % "
            f"| {'reference' if overlap == REFERENCE else 'met' if met else 'not met'} |"
        )
    return rows


def counts_table() -> list[str]:
    """Windows of real fields of view, counted."""
    head = " | ".join(f"{overlap:g}" for overlap in OVERLAPS)
    rows = [f"| field of view | {head} |", "|---" * (1 + len(OVERLAPS)) + "|"]
    for name, grid in REAL_GRIDS.items():
        counts = [windows(grid, REAL_CROP, overlap) for overlap in OVERLAPS]
        cells = " | ".join(f"{n} ({counts[0] / n:.1f} x)" for n in counts)
        rows.append(f"| {name} | {cells} |")
    return rows


def main() -> None:
    """Train, race, print, and write into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.monotonic()
    network = trained(phantoms("train", TRAINING_CASES), asked.steps)
    print(f"trained after {time.monotonic() - begun:.0f} s", flush=True)
    tables = [race_table(race(network, phantoms("test", asked.cases))), counts_table()]
    for lines in tables:
        print("\n".join(lines))
        if asked.write:
            put_table(asked.write, lines)
    print(f"{date.today()}, {os.cpu_count()} cores, seed {SEED}, {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()

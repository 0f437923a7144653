"""Steps a second of fine-tuning, and time of validation: ours against a plain MONAI loop.

    .venv/bin/python benchmarks/finetune_speed.py [--rounds 5] [--steps 2]
        [--write docs/results/finetune_speed.md]

Phantom abdomens of 64^3, brought to 4 mm. Loops take turns, round by round. On a CPU the networks
are those that recipes train there, and processor time of one thread is counted; on a GPU they are
those of `small`, and it is time by the clock. About three minutes on a CPU.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from math import ceil, prod
from pathlib import Path

import numpy as np
import torch
from finetune_loops import (
    ALONE,
    OURS,
    PLAIN,
    SEED,
    SHOWN,
    Arena,
    Contest,
    Seconds,
    clock,
    contests,
    make_arena,
    network_of,
    race,
)
from monai.inferers.utils import sliding_window_inference
from tables import put_table
from torch import Tensor, nn

from finetune.predict import Inference, even_overlaps, predict
from synth_ct.kit.axes import Grid

VALIDATED = 2
REFERENCE_OVERLAP = 0.5


# ---- validation --------------------------------------------------------------------------------


class Counted(nn.Module):
    """The network, and how many windows it saw."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.windows = network, 0

    def forward(self, ct_B1XYZ: Tensor) -> Tensor:
        """Count, and answer."""
        self.windows += len(ct_B1XYZ)
        answer_BKXYZ: Tensor = self.network(ct_B1XYZ)
        return answer_BKXYZ


def windows(grid: Sequence[int], crop: Grid, overlaps: Sequence[float]) -> int:
    """prod_axes ceil((n - c) / floor(c (1 - overlap))) + 1."""
    return prod(
        ceil(max(0, n - c) / int(c * (1 - overlap))) + 1
        for n, c, overlap in zip(grid, crop, overlaps, strict=True)
    )


@torch.inference_mode()
def plain_validation(network: nn.Module, contest: Contest, arena: Arena, number: int) -> None:
    """Of a case that lies in the cache; its labels stay on the network's grid."""
    ct_1XYZ = arena.cached[number]["image"].as_tensor().to(arena.device)
    kind = arena.device.type
    with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
        logits = sliding_window_inference(
            ct_1XYZ[None], contest.crop, 4, network, overlap=REFERENCE_OVERLAP, mode="gaussian"
        )
    assert isinstance(logits, Tensor)
    logits.argmax(1).cpu()


def our_validation(network: nn.Module, contest: Contest, arena: Arena, number: int) -> None:
    """From the file to labels on the case's own grid."""
    volume = arena.cohort.volume(arena.cohort.cases[number])
    found = predict(network, volume, SHOWN, contest.crop, Inference(), arena.device)
    assert found.array_XYZ.shape == volume.array_XYZ.shape


def validation(contest: Contest, arena: Arena) -> dict[str, list[tuple[float, int]]]:
    """Seconds and windows of each case."""
    grid = arena.cached[0]["image"].shape[1:]
    least = Inference().overlap
    ways = {
        PLAIN: (plain_validation, (REFERENCE_OVERLAP,) * 3),
        OURS: (our_validation, even_overlaps(tuple(grid), contest.crop, least)),
    }
    network = network_of(contest, arena).eval()
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
    for number in range(VALIDATED + 1):
        for name, (way, overlaps) in ways.items():
            counted = Counted(network)
            begun = clock(arena.device)
            way(counted, contest, arena, number)
            found[name].append((clock(arena.device) - begun, counted.windows))
            assert counted.windows == windows(grid, contest.crop, overlaps)
    return {name: each[1:] for name, each in found.items()}  # the first case warms up


# ---- the report --------------------------------------------------------------------------------


def steps_table(found: dict[str, Seconds]) -> list[str]:
    """Medians over the rounds of each round's ratio."""
    rows = [
        "| network | loop | steps/s | synth-ct is faster | least and most in a round "
        "| not the network |",
        "|---|---|---|---|---|---|",
    ]
    for kind, loops in found.items():
        for name, seconds in loops.items():
            times = seconds / loops[OURS]
            besides = float(np.median(1 - loops[ALONE] / seconds))
            rows.append(
                f"| {kind} | {name} | {1 / np.median(seconds):.2f} | {np.median(times):.2f} "
                f"| {times.min():.2f} to {times.max():.2f} | {100 * besides:.0f} % |"
            )
    return rows


def validation_table(found: dict[str, dict[str, list[tuple[float, int]]]]) -> list[str]:
    """Medians over the cases."""
    rows = [
        "| network | validation | windows a case | seconds a case | synth-ct is faster |",
        "|---|---|---|---|---|",
    ]
    for kind, ways in found.items():
        ours = np.array([seconds for seconds, _ in ways[OURS]])
        for name, runs in ways.items():
            seconds = np.array([each for each, _ in runs])
            rows.append(
                f"| {kind} | {name} | {runs[0][1]} | {np.median(seconds):.2f} "
                f"| {np.median(seconds / ours):.2f} |"
            )
    return rows


def preparation_table(found: dict[str, float]) -> list[str]:
    """Seconds a case."""
    rows = ["| preparation | seconds a case |", "|---|---|"]
    return rows + [f"| {name} | {seconds:.3f} |" for name, seconds in found.items()]


def main() -> None:
    """Race, print, and write into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as temporary:
        arena, prepared = make_arena(Path(temporary), torch.device(asked.device))
        every = contests(arena.device)
        tables = [preparation_table(prepared)]
        loops = {name: race(each, arena, asked.rounds, asked.steps) for name, each in every.items()}
        tables.append(steps_table(loops))
        validated = {name: validation(each, arena) for name, each in every.items()}
        tables.append(validation_table(validated))
    for lines in tables:
        print("\n".join(lines), end="\n\n")
        if asked.write:
            put_table(asked.write, lines)
    seconds = time.process_time() - begun
    print(f"{date.today()}, {os.cpu_count()} cores, {asked.device}, seed {SEED}, {seconds:.0f} s")


if __name__ == "__main__":
    main()

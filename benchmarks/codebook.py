"""Nearest of 8192 codes for the 32^3 vectors of a latent: ours against all distances at once.

    .venv/bin/python benchmarks/codebook.py [--rounds 10] [--write docs/results/codebook.md]

The usual way, written here from its formula, makes the full matrix |z|^2 + |c|^2 - 2 z.c and takes
its argmin; `torch.cdist` is a third. All look up the same vectors on one thread, in turns.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from synth_ct.models.codebook import nearest_code, z_score

VECTORS, CODES, CHANNELS, SEED = 32**3, 8192, 8, 7
OURS, FULL, CDIST = "synth-ct nearest_code", "full distance matrix", "torch.cdist"
MEGABYTE = 2**20


@dataclass
class Row:
    """One method: its codes, the most memory it held, and its times over the rounds."""

    indices_N: Tensor
    peak_bytes: int
    ms: list[float] = field(default_factory=list)


# ---- the three ways ----------------------------------------------------------------------------


def full_distances(z_NC: Tensor, codes_KC: Tensor) -> Tensor:
    """argmin_k (|z|^2 + |c_k|^2 - 2 z.c_k), of one matrix."""
    lengths_N1 = z_NC.square().sum(1, keepdim=True)
    lengths_K = codes_KC.square().sum(1)
    distances_NK = lengths_N1 + lengths_K - 2 * z_NC @ codes_KC.T
    return distances_NK.argmin(1)


def cdist(z_NC: Tensor, codes_KC: Tensor) -> Tensor:
    """The argmin of torch's own distances."""
    return torch.cdist(z_NC, codes_KC).argmin(1)


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    OURS: nearest_code,
    FULL: full_distances,
    CDIST: cdist,
}


# ---- the race ----------------------------------------------------------------------------------


def draw() -> tuple[Tensor, Tensor]:
    """Vectors and codes, both normalised as the homogeneous codebook does."""
    random = torch.Generator().manual_seed(SEED)
    z_NC = torch.randn(VECTORS, CHANNELS, generator=random)
    return z_score(z_NC, 1), z_score(torch.randn(CODES, CHANNELS, generator=random), 1)


def peak_bytes(run: Callable[[], object]) -> int:
    """The most memory that torch's allocator gave out beyond what was there before."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as recorded:
        run()
    assert recorded.profiler is not None
    events = recorded.profiler.kineto_results.events()
    moves = [event.nbytes() for event in events if event.name() == "[memory]"]
    return int(max(accumulate(moves)))


def race(rounds: int) -> dict[str, Row]:
    """Alternate the ways; the first, unmeasured round warms up and keeps the codes found."""
    z_NC, codes_KC = draw()
    rows = {}
    for name, way in WAYS.items():
        rows[name] = Row(way(z_NC, codes_KC), peak_bytes(partial(way, z_NC, codes_KC)))
    for turn in range(rounds):
        for name, way in WAYS.items():
            begun = time.process_time()  # of this process, whatever else the machine does
            way(z_NC, codes_KC)
            rows[name].ms.append(1e3 * (time.process_time() - begun))
        print(f"round {turn + 1}:", *(f"{n} {row.ms[-1]:.0f} ms" for n, row in rows.items()))
    return rows


# ---- the report --------------------------------------------------------------------------------


def ratio(rows: dict[str, Row], name: str) -> float:
    """How many times as long as ours it takes: the median over rounds."""
    return float(np.median(np.array(rows[name].ms) / np.array(rows[OURS].ms)))


def different(rows: dict[str, Row], name: str) -> int:
    """Vectors for which it chooses another code than ours."""
    return int((rows[name].indices_N != rows[OURS].indices_N).sum())


def table_row(rows: dict[str, Row], name: str) -> str:
    """Times, memory and agreement."""
    row = rows[name]
    times = f"{min(row.ms):.0f} | {np.median(row.ms):.0f} | {ratio(rows, name):.1f}"
    return f"| {name} | {times} | {row.peak_bytes / MEGABYTE:.1f} | {different(rows, name)} |"


def report(rows: dict[str, Row]) -> str:
    """The table, the goals, and how to make them again."""
    return TEMPLATE.format(
        vectors=VECTORS,
        codes=CODES,
        channels=CHANNELS,
        rounds=len(rows[OURS].ms),
        table="\n".join(table_row(rows, name) for name in rows),
        speed=f"{ratio(rows, FULL):.1f} times",
        memory=f"{rows[OURS].peak_bytes / MEGABYTE:.1f} MiB",
        differences=different(rows, FULL),
        today=date.today(),
        cores=os.cpu_count(),
        seed=SEED,
        torch=torch.__version__,
    )


TEMPLATE = """# Codebook: the nearest code

The nearest of {codes} codes for each of {vectors} vectors of {channels} channels: one latent of
32^3 voxels. Vectors and codes are normal deviates under the homogeneous codebook's N. Processor
time of one thread; {rounds} measured rounds after one to warm up, in each of which every way runs
once, so that all meet the same moments of the machine. `full distance matrix` is the usual way,
written from its formula |z|^2 + |c|^2 - 2 z.c. Ratios are medians over rounds.

| way | ms, min | ms, median | times the first | memory, MiB | other codes than the first |
|---|---|---|---|---|---|
{table}

Memory is the most that torch's allocator held at once beyond the inputs, the answer included.

| goal | found |
|---|---|
| at least 4 times as fast as the full distance matrix | {speed} |
| at most 32 MB | {memory} |
| the same codes | {differences} differ |

Recipe: `.venv/bin/python benchmarks/codebook.py --write docs/results/codebook.md`, {today}, a
machine of {cores} cores, CPU only; seed {seed}. torch {torch}.
"""


def main() -> None:
    """Race, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        text = report(race(asked.rounds))
    print(text)
    if asked.write:
        asked.write.write_text(text)


if __name__ == "__main__":
    main()

"""Crops a second and steps a second of pretraining: ours against plain MONAI.

    .venv/bin/python benchmarks/pretrain_reading.py [--volumes 24] [--epochs 3] [--steps 8]
        [--write docs/results/pretrain_speed.md]

Volumes of 128^3 in a corpus, and MONAI's transforms over the very same .nii.gz files. Processor
time of one thread. Switches take turns; ways of reading and loops come one after another.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.networks.nets import SwinUNETR
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    RandCoarseDropoutd,
    RandSpatialCropd,
    ScaleIntensityRanged,
)
from tables import put_table
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pretrain.backbones import SwinSizes, UNetSizes, build
from pretrain.crops import Ahead, of_volumes
from pretrain.learner import PretrainLearner
from pretrain.objectives.mae import Mae, MaeRecipe
from synth_ct.adopt import adopt
from synth_ct.corpus import Cache, Corpus, Volumes, split_of
from synth_ct.corpus.layout import volume_file
from synth_ct.kit.axes import Grid
from synth_ct.kit.checkpoint import Checkpoints
from synth_ct.kit.effort import Effort
from synth_ct.kit.loop import Training, train
from synth_ct.kit.seeds import numpy_random
from synth_ct.kit.volume import WINDOW_HU, Volume, save, to_int16
from synth_ct.phantom.patient import make_phantom

SIDE, CROP, SEED, PHANTOMS = 128, 96, 0, 4
OURS_LOOP = "synth-ct"
PLAIN_CROPS, OURS = "MONAI Dataset, no cache", "synth-ct: corpus cache, read ahead"
SWIN = SwinSizes(feature_size=12, depths=(1, 1, 1, 1), heads=(1, 2, 4, 8), window=4)
UNET = UNetSizes(width=8, levels=4, norm="instance")
SMALL: dict[str, Grid] = {"swin": (32, 32, 64), "unet": (32, 32, 32)}
BATCH = 4


# ---- volumes -----------------------------------------------------------------------------------


def make_corpus(folder: Path, count: int) -> Corpus:
    """A few phantoms, rolled and with noise of their own, adopted as anybody's volumes are."""
    source = folder / "source"
    source.mkdir()
    phantoms = [make_phantom("chest", seed, SIDE).ct for seed in range(PHANTOMS)]
    for number in range(count):
        ct, random = phantoms[number % PHANTOMS], numpy_random(SEED, "volume", number)
        rolled_XYZ = np.roll(ct.array_XYZ, random.integers(-8, 9, 3).tolist(), (0, 1, 2))
        noisy_XYZ = to_int16(rolled_XYZ + random.normal(0, 5, rolled_XYZ.shape))
        save(Volume(noisy_XYZ, ct.affine), source / f"{number}.nii.gz")
    adopt(source, folder / "corpus", "phantoms", "Apache-2.0", Effort())
    return Corpus.open(folder / "corpus")


def training_files(corpus: Corpus) -> list[dict[str, str]]:
    """What MONAI is given: the same volumes that ours reads."""
    rows = [row for row in corpus.accepted() if split_of(row.patient) == "train"]
    return [{"ct": str(corpus.folder / volume_file(row.id))} for row in rows]


# ---- reading -----------------------------------------------------------------------------------


def transforms(crop_XYZ: Grid, *masked: Any) -> Compose:
    """Decoded, windowed to [-1, 1], cut at random."""
    low, high = WINDOW_HU
    window = ScaleIntensityRanged("ct", low, high, -1, 1, clip=True)
    crop = RandSpatialCropd("ct", crop_XYZ, random_size=False)
    return Compose([LoadImaged("ct"), EnsureChannelFirstd("ct"), window, crop, *masked])


class Paces(NamedTuple):
    """Crops a second, cache filled on the way, and later."""

    first: float
    later: float


def paces(begin: Callable[[], Callable[[int], object]], count: int, epochs: int) -> Paces:
    """`begin` makes a way ready, which counts as its first epoch."""
    seconds = []
    begun = time.process_time()
    read = begin()
    for epoch in range(epochs + 1):
        for k in range(count):
            read(epoch * count + k)
        seconds.append(time.process_time() - begun)
        begun = time.process_time()
    return Paces(count / seconds[0], count / float(np.median(seconds[1:])))


def reading(corpus: Corpus, folder: Path, epochs: int) -> dict[str, Paces]:
    """Every way, one crop of each volume an epoch."""
    files, crop = training_files(corpus), (CROP, CROP, CROP)
    count = len(files)
    plan = transforms(crop)

    def monai(make: Callable[[], Any]) -> Callable[[], Callable[[int], object]]:
        def begin() -> Callable[[int], object]:
            dataset = make()
            return lambda k: dataset[k % count]["ct"]

        return begin

    def cached(share: float) -> Callable[[], Any]:
        return lambda: CacheDataset(files, plan, cache_rate=share, num_workers=1, progress=False)

    ways = {
        PLAIN_CROPS: monai(lambda: Dataset(files, plan)),
        "MONAI CacheDataset, a quarter fits": monai(cached(0.25)),
        "MONAI CacheDataset, all in memory": monai(cached(1.0)),
        "MONAI PersistentDataset": monai(lambda: PersistentDataset(files, plan, folder / "monai")),
        OURS: lambda: ours_of(corpus, folder, count * (epochs + 2)),
    }
    return {name: paces(begin, count, epochs) for name, begin in ways.items()}


def ours_of(corpus: Corpus, folder: Path, count: int) -> Callable[[int], object]:
    """As the stage reads; micro-batches of one, as the others give single crops."""
    volumes = Volumes(corpus, "train", cache=Cache(folder=folder / "ours"))
    training = Training(seed=SEED, steps=count, global_batch=1, micro_batch=1)
    read = of_volumes(volumes, (CROP, CROP, CROP), SEED, count)
    batches = Ahead(read, training, range(1), torch.device("cpu"))
    return lambda k: batches(k, 0)


# ---- steps -------------------------------------------------------------------------------------


def plain_steps(kind: str, files: Sequence[Any], steps: int, share: float) -> list[float]:
    """What a tutorial does: CacheDataset, DataLoader, coarse dropout, AdamW."""
    crop = SMALL[kind]
    holes = RandCoarseDropoutd("ct", 6, (8, 8, 8), max_holes=24, fill_value=0, prob=1)
    plan = transforms(crop)
    dataset = CacheDataset(files, plan, cache_rate=share, num_workers=1, progress=False)
    loader = DataLoader(dataset, BATCH, shuffle=True, drop_last=True)
    network = plain_network(kind)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4)
    seconds: list[float] = []
    begun = time.process_time()
    while len(seconds) < steps:
        for batch in loader:
            whole_B1XYZ = batch["ct"].as_tensor()
            seen = [torch.as_tensor(holes({"ct": ct.clone()})["ct"]) for ct in whole_B1XYZ]
            optimiser.zero_grad()
            loss = (network(torch.stack(seen)) - whole_B1XYZ).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            loss.item()
            seconds.append(time.process_time() - begun)
            begun = time.process_time()
    return seconds[1:steps]


def plain_network(kind: str) -> nn.Module:
    """MONAI's own, and for the U-Net ours, since MONAI has no such one."""
    if kind == "unet":
        return build(UNET, 1, SEED)
    return SwinUNETR(
        in_channels=1,
        out_channels=1,
        feature_size=SWIN.feature_size,
        depths=SWIN.depths,
        num_heads=SWIN.heads,
        window_size=SWIN.window,
    )


def our_steps(kind: str, corpus: Corpus, folder: Path, steps: int) -> list[float]:
    """The loop of the product, with its checks, averages and curve."""
    crop = SMALL[kind]
    backbone = build(SWIN if kind == "swin" else UNET, 1, SEED)
    heads = Mae(MaeRecipe(block=8), backbone, crop)
    training = Training(
        seed=SEED, steps=steps, global_batch=BATCH, micro_batch=BATCH, clip_norm=1.0
    )
    volumes = Volumes(corpus, "train", cache=Cache(folder=folder / "ours"))
    read = of_volumes(volumes, crop, SEED, (steps + 1) * BATCH)
    batches = Ahead(read, training, range(1), torch.device("cpu"))
    stamps = [time.process_time()]
    train(
        PretrainLearner(backbone, heads, 1e-4, 1e-5),
        batches,
        training,
        Checkpoints(folder=folder / f"checkpoints-{kind}", every=10 * steps),
        lambda step, row: stamps.append(time.process_time()),
    )
    batches.close()
    return [after - before for before, after in pairwise(stamps)][1:]


def loops_of(kind: str, corpus: Corpus, folder: Path, steps: int) -> dict[str, float]:
    """Seconds a step, median."""
    files = training_files(corpus)
    seconds = {
        "plain, a quarter in memory": plain_steps(kind, files, steps, 0.25),
        "plain, all in memory": plain_steps(kind, files, steps, 1.0),
        OURS_LOOP: our_steps(kind, corpus, folder, steps),
    }
    return {name: float(np.median(each)) for name, each in seconds.items()}


# ---- switches ----------------------------------------------------------------------------------


def switched(kind: str, rounds: int) -> dict[str, float]:
    """Seconds of forward and backward, median; the first round warms up, and compiles."""
    sizes = SWIN if kind == "swin" else UNET
    as_is, last = build(sizes, 1, SEED), build(sizes, 1, SEED)
    networks: dict[str, nn.Module] = {"as built": as_is}
    if kind == "swin":
        networks["fused windows"] = build(sizes, 1, SEED, fused_windows=True)
    networks["channels_last_3d"] = last.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    networks["torch.compile"] = torch.compile(build(sizes, 1, SEED))  # type: ignore[assignment]
    ct_B1XYZ = torch.rand(BATCH, 1, *SMALL[kind], generator=torch.Generator().manual_seed(SEED))
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds + 1):
        for name, network in networks.items():
            seconds[name].append(pass_of(network, ct_B1XYZ, last_axis=network is last))
    return {name: float(np.median(each[1:])) for name, each in seconds.items()}


def pass_of(network: nn.Module, ct_B1XYZ: Tensor, *, last_axis: bool) -> float:
    """Forward and backward once."""
    if last_axis:
        ct_B1XYZ = ct_B1XYZ.contiguous(memory_format=torch.channels_last_3d)
    begun = time.process_time()
    network(ct_B1XYZ).square().mean().backward()
    return time.process_time() - begun


# ---- the report --------------------------------------------------------------------------------


def reading_table(found: dict[str, Paces]) -> list[str]:
    """Crops a second, and ratios."""
    rows = [
        "| way of reading | crops/s, first epoch | later | ours is faster, first | later |",
        "|---|---|---|---|---|",
    ]
    ours = found[OURS]
    for name, pace in found.items():
        ratios = f"{ours.first / pace.first:.1f} | {ours.later / pace.later:.1f}"
        rows.append(f"| {name} | {pace.first:.1f} | {pace.later:.1f} | {ratios} |")
    return rows


def steps_table(found: dict[str, dict[str, float]]) -> list[str]:
    """Steps a second of each loop."""
    rows = ["| network | loop | steps/s | ours is faster |", "|---|---|---|---|"]
    return rows + [
        f"| {kind} | {name} | {1 / each:.2f} | {each / loops[OURS_LOOP]:.2f} |"
        for kind, loops in found.items()
        for name, each in loops.items()
    ]


def switch_table(found: dict[str, dict[str, float]]) -> list[str]:
    """Each switch alone."""
    rows = ["| network | switch | ms, forward and backward | times as built |", "|---|---|---|---|"]
    return rows + [
        f"| {kind} | {name} | {1e3 * each:.0f} | {each / ways['as built']:.2f} |"
        for kind, ways in found.items()
        for name, each in ways.items()
    ]


def main() -> None:
    """Race, print, and write into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus = make_corpus(folder, asked.volumes)
        tables = [reading_table(reading(corpus, folder, asked.epochs))]
        print("\n".join(tables[0]), flush=True)
        loops = {kind: loops_of(kind, corpus, folder, asked.steps) for kind in SMALL}
    tables.append(steps_table(loops))
    print("\n".join(tables[1]), flush=True)
    tables.append(switch_table({kind: switched(kind, asked.steps) for kind in SMALL}))
    print("\n".join(tables[2]))
    print(f"{date.today()}, {os.cpu_count()} cores, seed {SEED}")
    if asked.write:
        for lines in tables:
            put_table(asked.write, lines)


if __name__ == "__main__":
    main()

"""What races in finetune_speed.py: a plain MONAI loop, ours, the network alone."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.losses import DiceCELoss
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandRotate90d,
    RandScaleIntensityd,
    RandShiftIntensityd,
    ScaleIntensityRanged,
    Spacingd,
    Transform,
)
from torch import Tensor, nn

from finetune.augment import Augmentation
from finetune.cases import Prepared, cases_stage, open_cases
from finetune.crops import AIR, CropRecipe, Crops
from finetune.learner import SegmentationLearner
from finetune.shown import Shown
from pretrain.backbones import Backbone, SwinSizes, UNetSizes, build
from ray_jobs.pretraining import small_pretraining, study_pretraining, tiny_pretraining
from synth_ct.cohort import Cohort
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.axes import Grid
from synth_ct.kit.checkpoint import Checkpoints
from synth_ct.kit.effort import Effort
from synth_ct.kit.loop import Training, train
from synth_ct.phantom.recipe import PhantomCohort, make_phantom_cohort

SEED, SIDE, CASES, BATCH = 0, 64, 8, 4
SHOWN = Shown(spacing_mm=(4.0, 4.0, 4.0), window_hu=(-175.0, 250.0))
AUGMENTATION = Augmentation()
RATE, DECAY = 1e-4, 1e-5
KEYS = ("image", "label")
LOADERS = 8
"""Processes that read for the plain loop beside a GPU."""
PLAIN, BARE, OURS, LAST, ALONE = (
    "plain MONAI",
    "plain MONAI, metadata dropped before the network",
    "synth-ct",
    "synth-ct, channels_last_3d",
    "network, loss and optimiser alone, one batch",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """What all loops share."""

    cohort: Cohort
    prepared: Sequence[Prepared]
    cached: CacheDataset
    """Whole cases, as the plain loop validates them."""
    device: torch.device
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """A network and what it is shown at once."""

    sizes: UNetSizes | SwinSizes
    crop: Grid


def contests(device: torch.device) -> dict[str, Contest]:
    """Of the recipes that train on such a machine."""
    if device.type == "cuda":
        small = small_pretraining().networks
        return {name: Contest(sizes=each.backbone, crop=each.crop) for name, each in small.items()}
    return {
        "unet": Contest(sizes=study_pretraining().networks["unet"].backbone, crop=(32, 32, 32)),
        "swin": Contest(sizes=tiny_pretraining().networks["swin"].backbone, crop=(32, 32, 64)),
    }


def clock(device: torch.device) -> float:
    """Processor time here; of a GPU, time by the clock once it has done its work."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


# ---- data --------------------------------------------------------------------------------------


def make_arena(folder: Path, device: torch.device) -> tuple[Arena, dict[str, float]]:
    """And the seconds a case that each way of preparing took."""
    with publish(folder / "cohort", Record(kind="cohort/labelled", recipe={})) as workspace:
        recipe = PhantomCohort(kind="abdomen", count=CASES, size=SIDE, seed=SEED)
        make_phantom_cohort(recipe, workspace, Effort())
    cohort = Cohort.open(folder / "cohort")
    stamps = [time.process_time()]
    with publish(folder / "cases", Record(kind="cohorts/cases", recipe={})) as workspace:
        cases_stage(SHOWN, workspace, {"cohort": cohort.folder}, Effort())
    stamps.append(time.process_time())
    opened = open_cases(folder / "cases", SHOWN, cohort.cases, device)
    stamps.append(time.process_time())
    cached = CacheDataset(files_of(cohort), before_drawing(), progress=False, num_workers=1)
    stamps.append(time.process_time())
    arena = Arena(cohort=cohort, prepared=opened, cached=cached, device=device, folder=folder)
    names = ("synth-ct, once for a cohort", "synth-ct, each fit", "plain MONAI, each fit")
    return arena, {
        name: (after - before) / CASES
        for name, (before, after) in zip(names, pairwise(stamps), strict=True)
    }


def files_of(cohort: Cohort) -> list[dict[str, str]]:
    """What MONAI is given: the very same files."""
    return [
        {"image": str(cohort.folder / case.file), "label": str(cohort.folder / case.label_file)}
        for case in cohort.cases
    ]


def before_drawing() -> Compose:
    """Read, upright, resampled, windowed to [-1, 1]."""
    low, high = SHOWN.window_hu
    return Compose(
        [
            LoadImaged(KEYS),
            EnsureChannelFirstd(KEYS),
            Orientationd(KEYS, axcodes="RAS", labels=None),
            Spacingd(KEYS, pixdim=SHOWN.spacing_mm, mode=("bilinear", "nearest")),
            ScaleIntensityRanged("image", low, high, -1, 1, clip=True),
        ]
    )


def drawing(crop: Grid) -> list[Transform]:
    """Crops of one case, half of them around an organ, augmented with the same shares as ours."""
    ours = AUGMENTATION
    around = RandCropByPosNegLabeld(
        KEYS, "label", crop, num_samples=BATCH, image_key="image", image_threshold=AIR
    )
    flips = [RandFlipd(KEYS, prob=ours.flip, spatial_axis=axis) for axis in range(3)]
    return [
        around,
        *flips,
        RandRotate90d(KEYS, prob=ours.turn, max_k=3),
        RandScaleIntensityd("image", factors=ours.scale_by, prob=ours.scale),
        RandShiftIntensityd("image", offsets=ours.shift_by, prob=ours.shift),
    ]


# ---- loops -------------------------------------------------------------------------------------

Seconds = dict[str, np.ndarray]
"""Of each loop, round by round."""
Loop = Callable[[int], list[float]]
"""Steps to take -> seconds of each."""


def network_of(contest: Contest, arena: Arena) -> Backbone:
    """The same initial weights in every loop."""
    return build(contest.sizes, len(arena.cohort.classes) + 1, SEED).to(arena.device)


def plain_step(network: nn.Module, optimiser: torch.optim.Optimizer) -> Callable[..., float]:
    """What a tutorial does with a batch."""
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)

    def step(ct_B1XYZ: Tensor, label_B1XYZ: Tensor) -> float:
        optimiser.zero_grad()
        with torch.autocast(
            ct_B1XYZ.device.type, torch.bfloat16, enabled=ct_B1XYZ.device.type == "cuda"
        ):
            loss = loss_of(network(ct_B1XYZ), label_B1XYZ)
        loss.backward()
        optimiser.step()
        return float(loss.item())

    return step


def stepping(contest: Contest, arena: Arena) -> Callable[..., float]:
    """A network of its own."""
    network = network_of(contest, arena)
    network.train()
    return plain_step(network, torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY))


def plain_loop(contest: Contest, arena: Arena, *, metadata: bool) -> Loop:
    """CacheDataset, DataLoader, DiceCELoss, AdamW."""
    workers = LOADERS if arena.device.type == "cuda" else 0
    plan = Compose([*before_drawing().transforms, *drawing(contest.crop)])
    dataset = CacheDataset(files_of(arena.cohort), plan, progress=False, num_workers=1)
    loader = DataLoader(
        dataset, batch_size=1, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    batches = (batch for _ in count() for batch in loader)
    step = stepping(contest, arena)

    def loop(steps: int) -> list[float]:
        stamps = [clock(arena.device)]
        for _ in range(steps):
            batch = next(batches)
            ct, label = (batch[key].to(arena.device) for key in KEYS)
            if not metadata:
                ct, label = ct.as_tensor(), label.as_tensor()
            assert tuple(ct.shape) == (BATCH, 1, *contest.crop)
            step(ct, label)
            stamps.append(clock(arena.device))
        return between(stamps)

    return loop


def our_crops(contest: Contest, arena: Arena, steps: int) -> Crops:
    """As a fit reads them."""
    training = training_of(steps, arena.device)
    recipe = CropRecipe(sides=contest.crop, of_a_case=BATCH)
    return Crops(arena.prepared, recipe, AUGMENTATION, training, arena.device)


def training_of(steps: int, device: torch.device) -> Training:
    """Precision as the plain loop has it."""
    return Training(
        seed=SEED,
        steps=steps,
        global_batch=BATCH,
        micro_batch=BATCH,
        precision="bfloat16" if device.type == "cuda" else "float32",
    )


def our_loop(contest: Contest, arena: Arena, layout: torch.memory_format) -> Loop:
    """The product's, with its checks and its running average; begun anew each round."""
    network = network_of(contest, arena).to(memory_format=layout)  # type: ignore[call-overload]
    folders = (arena.folder / f"{contest.sizes.kind}-{layout}-{n}" for n in count())

    def loop(steps: int) -> list[float]:
        learner = SegmentationLearner(network, [], (RATE, RATE), DECAY)
        checkpoints = Checkpoints(folder=next(folders), every=2 * steps)
        stamps = [clock(arena.device)]
        train(
            learner,
            our_crops(contest, arena, steps),
            training_of(steps, arena.device),
            checkpoints,
            lambda step, row: stamps.append(clock(arena.device)),
        )
        return between(stamps)

    return loop


def alone_loop(contest: Contest, arena: Arena) -> Loop:
    """The least any loop can take."""
    ct_B1XYZ, label_BXYZ = our_crops(contest, arena, 1)(0, 0)
    step = stepping(contest, arena)

    def loop(steps: int) -> list[float]:
        stamps = [clock(arena.device)]
        for _ in range(steps):
            step(ct_B1XYZ, label_BXYZ[:, None])
            stamps.append(clock(arena.device))
        return between(stamps)

    return loop


def between(stamps: Sequence[float]) -> list[float]:
    """Seconds of each step."""
    return [after - before for before, after in pairwise(stamps)]


def race(contest: Contest, arena: Arena, rounds: int, steps: int) -> Seconds:
    """Median seconds a step of each loop in each round; a round's first step warms up."""
    loops: dict[str, Loop] = {
        PLAIN: plain_loop(contest, arena, metadata=True),
        BARE: plain_loop(contest, arena, metadata=False),
        OURS: our_loop(contest, arena, torch.contiguous_format),
        LAST: our_loop(contest, arena, torch.channels_last_3d),
        ALONE: alone_loop(contest, arena),
    }
    found: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            seconds = loop(steps + 1)
            assert len(seconds) == steps + 1
            found[name].append(float(np.median(seconds[1:])))
    return {name: np.array(each) for name, each in found.items()}

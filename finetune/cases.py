"""Labelled cases as the network sees them: made once for a cohort, read by every fit.

    <case>.image.npy   float32 XYZ in [-1, 1] on the network's grid
    <case>.label.npy   uint8 XYZ on the same grid; channels of the network, not ids of the cohort
    shown.json         grid and window, and the classes

Arrays are mapped, not read: fits that run beside one another share the pages.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from finetune.shown import Shown, as_shown
from synth_ct.cohort import Case, Cohort
from synth_ct.kit.artifact import read_record
from synth_ct.kit.durable import write_text
from synth_ct.kit.effort import Effort
from synth_ct.kit.volume import resample

SHOWN = "shown.json"
MOST_ON_DEVICE = 0.5
"""Of a GPU's free memory; more cases than fit stay with the CPU."""


def cases_stage(recipe: Shown, workspace: Path, inputs: Mapping[str, Path], effort: Effort) -> None:
    """Bring every case of the one cohort among the inputs to the grid and window."""
    (folder,) = inputs.values()
    cohort = Cohort.open(folder)
    channels = channels_of(cohort.classes)
    tick = effort.begin(len(cohort.cases))
    for case in cohort.cases:
        if not (workspace / _file(case, "label")).exists():  # else an earlier run came so far
            image_XYZ = as_shown(cohort.volume(case), recipe)
            label_XYZ = resample(cohort.labels(case), recipe.spacing_mm).array_XYZ
            label_XYZ = np.searchsorted(channels, label_XYZ)
            assert image_XYZ.shape == label_XYZ.shape
            _save(workspace / _file(case, "image"), np.ascontiguousarray(image_XYZ, np.float32))
            _save(workspace / _file(case, "label"), np.ascontiguousarray(label_XYZ, np.uint8))
        tick()
    classes = {str(number): name for number, name in sorted(cohort.classes.items())}
    told = {"shown": recipe.model_dump(mode="json"), "classes": classes}
    write_text(workspace / SHOWN, json.dumps(told, indent=1))


def channels_of(classes: Mapping[int, str]) -> np.ndarray:
    """The label that each channel of a network stands for: 0, then the classes by their ids."""
    return np.array([0, *sorted(classes)], np.uint8)


def _save(path: Path, array_XYZ: np.ndarray) -> None:
    """Whole or absent."""
    temporary = path.with_suffix(".tmp.npy")
    np.save(temporary, array_XYZ, allow_pickle=False)
    temporary.replace(path)


def _file(case: Case, what: Literal["image", "label"]) -> str:
    return f"{case.id}.{what}.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One case on the network's grid, on some device."""

    image_XYZ: Tensor
    label_XYZ: Tensor
    inside: Mapping[int, Tensor]
    """Channel -> flat places of its voxels, on the CPU; those the case lacks are absent."""


def open_cases(
    folder: Path, shown: Shown, cases: Sequence[Case], device: torch.device
) -> list[Prepared]:
    """Map some of the cases; on a GPU they are brought there, as long as they fit."""
    if read_record(folder) is None:
        raise ValueError(f"{folder} holds no finished cases; finish the run that makes them")
    was = Shown.model_validate(json.loads((folder / SHOWN).read_text())["shown"])
    if was != shown:
        raise ValueError(
            f"{folder} was made for {was.spacing_mm} mm and {was.window_hu} HU, and the network is "
            f"to be shown {shown.spacing_mm} mm and {shown.window_hu} HU; make it for these"
        )
    arrays = [_mapped(folder, case) for case in cases]
    home = _home(arrays, device)
    return [
        Prepared(image_XYZ=image.to(home), label_XYZ=label.to(home), inside=places_inside(label))
        for image, label in arrays
    ]


def places_inside(label_XYZ: Tensor) -> dict[int, Tensor]:
    """Channel -> flat places of its voxels."""
    flat_V = label_XYZ.numpy().ravel()
    places_N = np.flatnonzero(flat_V)
    classes_N = flat_V[places_N]
    return {
        int(number): torch.from_numpy(places_N[classes_N == number])
        for number in np.unique(classes_N)
    }


def _mapped(folder: Path, case: Case) -> tuple[Tensor, Tensor]:
    # Copy-on-write, because torch warns of memory it must not write to.
    image, label = (
        np.load(folder / name, mmap_mode="c", allow_pickle=False)
        for name in (_file(case, "image"), _file(case, "label"))
    )
    return torch.from_numpy(image), torch.from_numpy(label)


def _home(arrays: Sequence[tuple[Tensor, Tensor]], device: torch.device) -> torch.device:
    if device.type != "cuda":
        return device
    free, _ = torch.cuda.mem_get_info(device)
    needed = sum(t.numel() * t.element_size() for pair in arrays for t in pair)
    return device if needed < MOST_ON_DEVICE * free else torch.device("cpu")

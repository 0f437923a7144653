"""CT volumes and their framed films as arrays, and which of them a micro-batch sees.

Needs numpy and torch alone, so that training runs wherever these do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from synth_ct.kit.axes import Affine, CtBatch, FilmBatch
from synth_ct.kit.seeds import numpy_random
from synth_ct.kit.volume import centred_affine, window

Part = Literal["train", "val", "test"]

FIELD_MM = 320.0
"""Nominal width of every working volume: 2.5 mm at 128 voxels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Whose CT this is, and how its film was framed."""

    id: str
    patient: str
    split: Part
    box: tuple[float, float, float, float]
    """Top, bottom, left and right of the window in the film, in fractions of its sides."""
    likeness: float
    """Correlation of the framed film with the thorax it was laid over."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pairs:
    """N CT and N films; volume n shows what film n shows, as many voxels a side as pixels."""

    rows: tuple[Pair, ...]
    volumes_NXYZ: np.ndarray
    """int16 HU."""
    films_NUV: np.ndarray
    """float32 in [-1, 1], as `xray.frame` makes them."""

    def __post_init__(self) -> None:
        count, size = len(self.rows), self.volumes_NXYZ.shape[-1]
        shapes = (self.volumes_NXYZ.shape, self.films_NUV.shape)
        if shapes != ((count, size, size, size), (count, size, size)):
            raise ValueError(
                f"{count} pairs cannot have volumes and films of shapes {shapes}; "
                "volumes are cubes and films their faces"
            )

    @property
    def size(self) -> int:
        """Voxels, and pixels, a side."""
        return int(self.volumes_NXYZ.shape[-1])

    def of(self, split: Part) -> np.ndarray:
        """The numbers of the pairs in one part."""
        return np.array([n for n, row in enumerate(self.rows) if row.split == split], np.int64)

    def ct(self, numbers: Sequence[int] | np.ndarray, device: torch.device) -> CtBatch:
        """Volumes in the network's range."""
        chosen = np.stack([window(self.volumes_NXYZ[n]) for n in numbers])
        return _moved(torch.from_numpy(chosen)[:, None], device)

    def film(self, numbers: Sequence[int] | np.ndarray, device: torch.device) -> FilmBatch:
        """The films of these volumes."""
        chosen = np.ascontiguousarray(self.films_NUV[np.asarray(numbers)])
        return _moved(torch.from_numpy(chosen)[:, None], device)


def in_parts(numbers: np.ndarray, most: int) -> list[np.ndarray]:
    """The numbers in order, as evenly as possible, at most so many together."""
    return np.array_split(numbers, max(1, -(-len(numbers) // most)))


def working_affine(size: int) -> Affine:
    """The nominal grid of every working volume."""
    return centred_affine((size, size, size), (FIELD_MM / size,) * 3)


def drawn(
    seed: int, purpose: str, step: int, slot: int, count: int, population: np.ndarray
) -> np.ndarray:
    """The members of a micro-batch, without repeats: they depend on these arguments alone."""
    if count > len(population):
        raise ValueError(
            f"a micro-batch of {count} cannot be drawn from {len(population)} {purpose}; "
            "use more of them or a smaller micro_batch"
        )
    random = numpy_random(seed, f"batch/{purpose}", f"{step}/{slot}")
    return random.choice(population, count, replace=False)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)

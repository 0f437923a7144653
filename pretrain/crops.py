"""What a backbone is pretrained on: crop k of a source, a function of the seed and k alone."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pretrain.primitives import primitive_volume
from synth_ct.corpus import Crops, Volumes
from synth_ct.kit.axes import Grid
from synth_ct.kit.loop import Training
from synth_ct.kit.seeds import numpy_random
from synth_ct.kit.volume import WINDOW_HU, window

Read = Callable[[int], Tensor]
"""crop k, 1XYZ in [-1, 1]."""


@runtime_checkable
class Batches(Protocol):
    """(step, slot) -> a micro-batch on the device; pure."""

    def __call__(self, step: int, slot: int) -> Tensor:
        """B1XYZ in [-1, 1]."""


def of_volumes(volumes: Volumes, crop_XYZ: Grid, seed: int, count: int) -> Read:
    """Random crops of volumes that take turns."""
    crops = Crops(volumes, crop_XYZ, seed=seed, count=count)
    return lambda k: crops[k].ct_1XYZ


def of_primitives(
    crop_XYZ: Grid, seed: int, volumes: int, window_hu: tuple[float, float] = WINDOW_HU
) -> Read:
    """As many random bodies as another arm has volumes; each crop is one of them, whole."""

    def read(k: int) -> Tensor:
        random = numpy_random(seed, "primitives", k % volumes)
        return torch.from_numpy(window(primitive_volume(random, crop_XYZ), window_hu))[None]

    return read


class Ahead:
    """Batches whose crops are read while the one before is worked on."""

    def __init__(self, read: Read, training: Training, own: range, device: torch.device) -> None:
        """`own`: the slots of each step that this process will ask for, in this order."""
        self._read, self._size = read, training.micro_batch
        self._slots = training.global_batch // training.micro_batch
        self._own = own
        self._device = device
        self._hands = ThreadPoolExecutor(1)
        self._coming: tuple[int, Future[Tensor]] | None = None

    def __call__(self, step: int, slot: int) -> Tensor:
        """The micro-batch of a slot; the next of ours is begun."""
        number = step * self._slots + slot
        coming = self._coming
        ready = coming[1] if coming and coming[0] == number else self._begin(number)
        batch_B1XYZ = ready.result()
        following = self._after(step, slot)
        self._coming = (following, self._begin(following))
        return batch_B1XYZ.to(self._device, non_blocking=True)

    def close(self) -> None:
        """Drop what was begun."""
        self._hands.shutdown(wait=True, cancel_futures=True)

    def _after(self, step: int, slot: int) -> int:
        """The number of our next micro-batch: the slots between are other processes'."""
        if slot + 1 in self._own:
            return step * self._slots + slot + 1
        return (step + 1) * self._slots + self._own.start

    def _begin(self, number: int) -> Future[Tensor]:
        return self._hands.submit(self._batch, number)

    def _batch(self, number: int) -> Tensor:
        first = number * self._size
        crops = torch.stack([self._read(k) for k in range(first, first + self._size)])
        return crops.pin_memory() if self._device.type == "cuda" else crops

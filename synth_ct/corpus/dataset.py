"""What a network is trained on: the volumes of one split, whole or in random crops.

Map-style datasets for a torch `DataLoader`. They hold no open file, and of the manifest only what
reading needs, in arrays: a forked worker copies nothing.
"""

from itertools import compress
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from synth_ct.cohort import Split
from synth_ct.corpus.cache import Cache, Key
from synth_ct.corpus.layout import volume_file
from synth_ct.corpus.manifest import read_columns
from synth_ct.corpus.reader import Corpus
from synth_ct.corpus.row import voxel_sha256
from synth_ct.corpus.split import split_of
from synth_ct.kit.axes import Grid, HuArray
from synth_ct.kit.seeds import numpy_random
from synth_ct.kit.volume import AIR_HU, WINDOW_HU, load, window

TYPES = {
    "id": np.bytes_,
    "file_sha256": np.bytes_,
    "voxel_sha256": np.bytes_,
    "shape": np.int32,
}


class Item(NamedTuple):
    """One volume or crop, and the id of its volume. Loaders collate it field by field."""

    ct_1XYZ: torch.Tensor
    id: str


class Volumes(Dataset[Item]):
    """The whole volumes of a split, sorted by id."""

    def __init__(
        self,
        corpus: Corpus,
        split: Split,
        *,
        cache: Cache | None,
        seed: int = 0,
        window_hu: tuple[float, float] | None = WINDOW_HU,
        most: int | None = None,
    ) -> None:
        """`cache` None decodes each time; without a window it is HU. The seed is that of the split.

        `most` keeps the first so many by id, which is a hash: any of them.
        """
        self.cache = cache
        self.window_hu = window_hu
        self._folder = corpus.folder
        self._kept = {n: column[:most] for n, column in _kept(corpus, split, seed).items()}
        if not len(self):
            raise ValueError(
                f"{corpus.folder} has no volume in split {split!r} of seed {seed}; one patient in "
                "ten is in val and in test each: take another seed, or a corpus of more patients"
            )

    def __len__(self) -> int:
        return len(self._kept["id"])

    def __getitem__(self, number: int) -> Item:
        shape = self.shape(number)
        return self.item(number, self.read(number, (0, 0, 0), shape))

    def shape(self, number: int) -> Grid:
        """The grid of a volume."""
        x, y, z = self._kept["shape"][number].tolist()
        return (x, y, z)

    def read(self, number: int, corner: Grid, size: Grid) -> HuArray:
        """HU of a part of a volume."""
        key = Key(self._text("voxel_sha256", number), self.shape(number))
        if self.cache is not None:
            return self.cache.crop(key, corner, size, lambda: self._decode(number))
        box = tuple(slice(a, a + n) for a, n in zip(corner, size, strict=True))
        return self._decode(number)[box].copy()

    def item(self, number: int, hu_XYZ: HuArray) -> Item:
        """As a network takes it."""
        array_XYZ = hu_XYZ if self.window_hu is None else window(hu_XYZ, self.window_hu)
        return Item(torch.from_numpy(array_XYZ)[None], self._text("id", number))

    def _text(self, column: str, number: int) -> str:
        value: bytes = self._kept[column][number]
        return value.decode()

    def _decode(self, number: int) -> HuArray:
        path = self._folder / volume_file(self._text("id", number))
        array_XYZ = load(path, self._text("file_sha256", number)).array_XYZ
        if voxel_sha256(array_XYZ) != self._text("voxel_sha256", number):
            raise ValueError(
                f"{path} holds other voxels than the manifest says; "
                f"see what else differs with `synth-ct corpus verify {self._folder}`"
            )
        return array_XYZ


class Crops(Dataset[Item]):
    """Random crops: number k is drawn from (seed, k) alone, and all volumes take turns.

    The order is random already: read it in sequence, and continue a stopped training at its k.
    """

    def __init__(
        self, volumes: Volumes, crop_XYZ: Grid, *, seed: int = 0, count: int | None = None
    ) -> None:
        """`count` crops; by default as many as there are volumes, which is one epoch."""
        self.volumes = volumes
        self.crop_XYZ = crop_XYZ
        self.seed = seed
        self.count = len(volumes) if count is None else count
        self._turn = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, k: int) -> Item:
        if not 0 <= k < self.count:
            raise IndexError(k)
        number = self._volume_of(k)
        slack = np.subtract(self.volumes.shape(number), self.crop_XYZ)
        x, y, z = numpy_random(self.seed, "crop", k).integers(0, np.maximum(slack, 0) + 1).tolist()
        sx, sy, sz = np.minimum(self.volumes.shape(number), self.crop_XYZ).tolist()
        hu_XYZ = self.volumes.read(number, (x, y, z), (sx, sy, sz))
        return self.volumes.item(number, _padded(hu_XYZ, self.crop_XYZ))

    def _volume_of(self, k: int) -> int:
        """Every volume once in each turn, in another order each time."""
        turn, place = divmod(k, len(self.volumes))
        if self._turn[0] != turn:
            order = numpy_random(self.seed, "crop order", turn).permutation(len(self.volumes))
            self._turn = (turn, order)
        return int(self._turn[1][place])


def _kept(corpus: Corpus, split: Split, seed: int) -> dict[str, np.ndarray]:
    """What reading needs of the volumes of a split, column by column.

    Arrays, since a list of strings would be copied to each worker, touch by touch.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in TYPES}
    for batch in read_columns(corpus.folder, [*TYPES, "patient", "accepted"]):
        pairs = zip(batch["patient"], batch["accepted"], strict=True)
        ours = [accepted and split_of(patient, seed) == split for patient, accepted in pairs]
        if any(ours):
            for name, dtype in TYPES.items():
                parts[name].append(np.array(list(compress(batch[name], ours)), dtype))
    return {name: np.concatenate(some) if some else np.empty(0) for name, some in parts.items()}


def _padded(hu_XYZ: HuArray, shape: Grid) -> np.ndarray:
    """Air around a volume that is smaller than the crop."""
    if hu_XYZ.shape == shape:
        return hu_XYZ
    before = np.subtract(shape, hu_XYZ.shape) // 2
    after = np.subtract(shape, hu_XYZ.shape) - before
    return np.pad(hu_XYZ, list(zip(before, after, strict=True)), constant_values=AIR_HU)

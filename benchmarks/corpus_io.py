"""Writing a 128^3 volume, and cutting 96^3 crops out of it: ours against nibabel and others.

    .venv/bin/python benchmarks/corpus_io.py [--real DIR] [--rounds 10]
        [--write docs/results/corpus_io.md]

Volumes are phantom chests, the same as smooth as a generator makes them, and with `--real` (a
folder of CT as .nii.gz) measured ones on the working grid. All ways take turns on one thread.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import nibabel as nib
import numpy as np
from nibabel.openers import Opener
from scipy import ndimage
from tables import put_table

from synth_ct.corpus.cache import Cache, Key
from synth_ct.corpus.row import voxel_sha256
from synth_ct.kit.seeds import numpy_random
from synth_ct.kit.volume import Volume, crop_or_pad, resample, save, to_int16, to_ras
from synth_ct.phantom.patient import make_phantom

SIDE, CROP, SEED = 128, 96, 0
MEBIBYTE = 2**20
OURS_WRITE, DEFAULT, LEVEL_6 = "synth-ct save", "nibabel, its default level", "nibabel, level 6"
OURS_READ, NIBABEL, MEMMAP = "synth-ct cache", "nibabel, .nii.gz", "numpy memmap, .npy"
CODECS = {"LZ4": (blosc2.Codec.LZ4, 5), "Zstd": (blosc2.Codec.ZSTD, 1)}
Slices = tuple[slice, slice, slice]


@dataclass
class Way:
    """What it does to a volume; milliseconds of the processor and, from the disk, of the clock."""

    run: Callable[[int], Any]
    size: Callable[[int], int]
    ms: list[list[float]] = field(default_factory=list)
    cold_ms: list[list[float]] = field(default_factory=list)


# ---- volumes -----------------------------------------------------------------------------------


def smooth(volume: Volume, seed: int) -> Volume:
    """As a decoder gives it: no noise of single voxels, a little uneven everywhere."""
    random = numpy_random(SEED, "texture", seed)
    texture = ndimage.gaussian_filter(random.normal(size=(SIDE,) * 3), 2.0)
    hu = ndimage.gaussian_filter(volume.array_XYZ.astype(np.float32), 1.0)
    return Volume(to_int16(hu + 8 * texture / texture.std()), volume.affine)


def measured_ct(path: Path) -> Volume:
    """A CT on the working grid: 128^3 of 2.5 mm."""
    image = nib.load(path)
    array = np.asarray(image.dataobj).astype(np.float32)
    volume = resample(to_ras(Volume(array, image.affine.astype(np.float64))), (2.5, 2.5, 2.5))
    volume = crop_or_pad(volume, (SIDE, SIDE, SIDE))
    return Volume(to_int16(volume.array_XYZ), volume.affine)


def volumes(real: Path | None) -> dict[str, list[Volume]]:
    """Three of each kind."""
    phantoms = [make_phantom("chest", seed, SIDE).ct for seed in range(3)]
    made = {"phantom": phantoms, "smooth": [smooth(v, n) for n, v in enumerate(phantoms)]}
    if real is not None:
        made["real CT"] = [measured_ct(path) for path in sorted(real.glob("*.nii.gz"))[:3]]
    return made


# ---- writing -----------------------------------------------------------------------------------


@contextmanager
def compressing(level: int) -> Iterator[None]:
    """nibabel at another level than its own."""
    before = Opener.default_compresslevel
    Opener.default_compresslevel = level
    try:
        yield
    finally:
        Opener.default_compresslevel = before


def nibabel_save(volume: Volume, path: Path, level: int) -> None:
    """What one would write without us."""
    with compressing(level):
        nib.save(nib.Nifti1Image(volume.array_XYZ, volume.affine), path)


def writers(some: list[Volume], folder: Path) -> dict[str, Way]:
    """Ours hashes the file and waits for the disk; the others do neither."""

    def way(name: str, write: Callable[[Volume, Path], object]) -> Way:
        def path(number: int) -> Path:
            return folder / f"{name}-{number}.nii.gz".replace(" ", "-")

        return Way(lambda n: write(some[n], path(n)), lambda n: path(n).stat().st_size)

    default = Opener.default_compresslevel
    return {
        OURS_WRITE: way(OURS_WRITE, save),
        DEFAULT: way(DEFAULT, partial(nibabel_save, level=default)),
        LEVEL_6: way(LEVEL_6, partial(nibabel_save, level=6)),
    }


# ---- reading -----------------------------------------------------------------------------------


def corner_of(number: int) -> tuple[int, int, int]:
    """A seeded place."""
    x, y, z = numpy_random(SEED, "corner", number).integers(0, SIDE - CROP + 1, 3).tolist()
    return (x, y, z)


def box_of(number: int) -> Slices:
    """The crop at that place."""
    x, y, z = (slice(a, a + CROP) for a in corner_of(number))
    return (x, y, z)


def readers(some: list[Volume], folder: Path) -> dict[str, Way]:
    """The same crop from each store; all checked to be equal."""
    cache = Cache(folder=folder / "cache")
    keys = [Key(voxel_sha256(v.array_XYZ), (SIDE, SIDE, SIDE)) for v in some]

    def cached(n: int) -> np.ndarray:
        return cache.crop(keys[n], corner_of(n), (CROP,) * 3, lambda: some[n].array_XYZ)

    ways = {
        NIBABEL: way_of(folder, "v.nii.gz", lambda p, n: nib.load(p).dataobj[box_of(n)]),
        OURS_READ: Way(cached, lambda n: cache._path(keys[n]).stat().st_size),
        MEMMAP: way_of(folder, "v.npy", lambda p, n: np.load(p, mmap_mode="r")[box_of(n)].copy()),
    }
    for n, volume in enumerate(some):
        save(volume, folder / f"{n}v.nii.gz")
        np.save(folder / f"{n}v.npy", volume.array_XYZ)
    for name, (codec, level) in CODECS.items():
        for chunk in (32, 64):
            for n, volume in enumerate(some):
                parameters = {"codec": codec, "clevel": level, "nthreads": 1}
                path = folder / f"{n}{name}{chunk}.b2nd"
                shape = {"chunks": (chunk,) * 3, "blocks": (min(chunk, 16),) * 3}
                blosc2.asarray(volume.array_XYZ, urlpath=str(path), cparams=parameters, **shape)
            title = f"blosc2, {name}, chunks of {chunk}"
            ways[title] = way_of(folder, f"{name}{chunk}.b2nd", blosc2_crop)
    for n in range(len(some)):
        for way in ways.values():
            np.testing.assert_array_equal(way.run(n), some[n].array_XYZ[box_of(n)])
    return ways


def way_of(folder: Path, ending: str, crop: Callable[[Path, int], Any]) -> Way:
    """A way to read crop n of a file."""

    def path(n: int) -> Path:
        return folder / f"{n}{ending}"

    return Way(lambda n: crop(path(n), n), lambda n: path(n).stat().st_size)


def blosc2_crop(path: Path, n: int) -> np.ndarray:
    """Only the chunks that the crop touches are decompressed."""
    array = blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1})
    return np.asarray(array[box_of(n)])


def forget(folder: Path) -> None:
    """Ask the kernel to drop what it keeps of the files: the next read comes from the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# ---- the race ----------------------------------------------------------------------------------


def race(ways: dict[str, Way], count: int, rounds: int) -> None:
    """All ways in turns, so that all meet the same moments of the machine; one round warms up."""
    for turn in range(rounds + 1):
        for way in ways.values():
            row = []
            for n in range(count):
                begun = time.process_time()
                way.run(n)
                row.append(1e3 * (time.process_time() - begun))
            if turn:
                way.ms.append(row)


def race_from_disk(ways: dict[str, Way], count: int, folder: Path) -> None:
    """One more round, in which nothing has been read before; by the clock."""
    for way in ways.values():
        row = []
        for n in range(count):
            forget(folder)
            begun = time.perf_counter()
            way.run(n)
            row.append(1e3 * (time.perf_counter() - begun))
        way.cold_ms.append(row)


def ratio(way: Way, ours: Way, name: str = "ms") -> float:
    """How many times as long as ours: the median over rounds of sums over volumes."""
    theirs, mine = (np.array(getattr(each, name)).sum(1) for each in (way, ours))
    return float(np.median(theirs / mine))


def sizes(way: Way, count: int) -> float:
    """MiB a volume."""
    return sum(way.size(n) for n in range(count)) / count / MEBIBYTE


# ---- the report --------------------------------------------------------------------------------


def written_table(races: dict[str, tuple[dict[str, Way], int]]) -> list[str]:
    """Writing, kind by kind."""
    head = "| volumes | way of writing | ms, median | times ours | MiB | size, times the default |"
    rows = [head, "|---|---|---|---|---|---|"]
    for kind, (ways, count) in races.items():
        base = sizes(ways[DEFAULT], count)
        for name, way in ways.items():
            times = f"{np.median(way.ms):.1f} | {ratio(way, ways[OURS_WRITE]):.1f}"
            size = sizes(way, count)
            rows.append(f"| {kind} | {name} | {times} | {size:.2f} | {size / base:.3f} |")
    return rows


def read_table(ways: dict[str, Way], count: int) -> list[str]:
    """Reading, of all volumes together."""
    head = "| way of reading | ms, median | nibabel takes, times | from disk, ms | MiB |"
    rows = [head, "|---|---|---|---|---|"]
    for name, way in ways.items():
        times = f"{np.median(way.ms):.2f} | {ratio(ways[NIBABEL], way):.1f}"
        rows.append(
            f"| {name} | {times} | {np.median(way.cold_ms):.2f} | {sizes(way, count):.2f} |"
        )
    return rows


def goals(races: dict[str, tuple[dict[str, Way], int]], reading: dict[str, Way]) -> list[str]:
    """The worst kind counts."""
    worst = {name: min(ratio(w[name], w[OURS_WRITE]) for w, _ in races.values()) for name in
             (DEFAULT, LEVEL_6)}  # fmt: skip
    size = max(sizes(w[OURS_WRITE], n) / sizes(w[DEFAULT], n) for w, n in races.values())
    return [
        "| goal, for every kind of volume | found |",
        "|---|---|",
        f"| write at least 3 times as fast as nibabel's default | {worst[DEFAULT]:.1f} times |",
        f"| write at least 10 times as fast as its level 6 | {worst[LEVEL_6]:.1f} times |",
        f"| files at most 1.02 times its default's | {size:.3f} times |",
        "| a crop through the cache at least 20 times as fast as nibabel | "
        f"{ratio(reading[NIBABEL], reading[OURS_READ]):.0f} times |",
    ]


def main() -> None:
    """Race, print, and write into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    blosc2.set_nthreads(1)
    made = volumes(asked.real)
    races = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for kind, some in made.items():
            (folder / kind).mkdir()
            races[kind] = (writers(some, folder / kind), len(some))
            race(races[kind][0], len(some), asked.rounds)
        every = [volume for some in made.values() for volume in some]
        reading = readers(every, folder)
        race(reading, len(every), asked.rounds)
        race_from_disk(reading, len(every), folder)
        tables = [
            written_table(races),
            read_table(reading, len(every)),
            goals(races, reading),
        ]
    for lines in tables:
        print("\n".join(lines), end="\n\n")
    print(f"{date.today()}, {os.cpu_count()} cores, seed {SEED}")
    if asked.write:
        for lines in tables:
            put_table(asked.write, lines)


if __name__ == "__main__":
    main()

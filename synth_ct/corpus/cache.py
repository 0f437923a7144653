"""Decoded volumes on the disk of this node, so that a crop costs a read instead of a gunzip.

An entry is the int16 voxels in C order and then one CRC-32 for each X plane; what is read is
checked, every time. It is named after its content, so corpora can share it, and whatever is
damaged or missing is made again. Locks are the kernel's: a killed process leaves none behind.
"""

import fcntl
import logging
import math
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from isal import isal_zlib

from synth_ct.kit.axes import Grid, HuArray

logger = logging.getLogger(__name__)

LAYOUT = "hu1"
"""Changes with the layout of an entry: another layout has other entries."""
ENTRY, TEMPORARY, LOCK, LEDGER = ".i2", ".tmp", ".lock", "bytes"
VOXEL, CHECK = np.dtype("<i2"), np.dtype("<u4")
KEEP = 0.9
"""What stays after old entries had to go: evicting reads the whole folder, so not each time."""


class Key(NamedTuple):
    """Which voxels are meant, whatever corpus they lie in."""

    voxel_sha256: str
    shape: Grid

    @property
    def entry_bytes(self) -> int:
        """What it takes on disk."""
        return math.prod(self.shape) * VOXEL.itemsize + self.shape[0] * CHECK.itemsize


def default_folder() -> Path:
    """`synth-ct` below $XDG_CACHE_HOME, or below ~/.cache."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    return base / "synth-ct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """At most `limit_bytes` of entries; the least recently used go first, none while it is read."""

    folder: Path = field(default_factory=default_folder)
    limit_bytes: int = 64 * 2**30

    def crop(self, key: Key, corner: Grid, size: Grid, decode: Callable[[], HuArray]) -> HuArray:
        """Cut voxels out; `decode` gives the whole volume where there is no good entry yet."""
        path = self._path(key)
        found = _read(path, key.shape, corner, size)
        if found is not None:
            return found
        self._refuse_too_large(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent / LOCK):  # one builder a node; the others wait here
            found = _read(path, key.shape, corner, size)
            if found is not None:
                return found
            array_XYZ = decode()
            assert array_XYZ.shape == key.shape
            self._keep(path, array_XYZ)
        return array_XYZ[_box(corner, size)].copy()

    def _path(self, key: Key) -> Path:
        grid = "x".join(map(str, key.shape))
        return self.folder / LAYOUT / key.voxel_sha256[:2] / f"{key.voxel_sha256}-{grid}{ENTRY}"

    def _refuse_too_large(self, key: Key) -> None:
        if key.entry_bytes > self.limit_bytes:
            raise ValueError(
                f"the cache {self.folder} may hold {self.limit_bytes} bytes, and one volume of "
                f"{key.shape} takes {key.entry_bytes}; raise limit_bytes, or read without a cache"
            )

    def _keep(self, path: Path, array_XYZ: HuArray) -> None:
        """Write the entry, whole or not at all. Not synced: a torn one would be noticed."""
        voxels_XYZ = np.ascontiguousarray(array_XYZ, VOXEL)
        data = voxels_XYZ.tobytes() + _checks(voxels_XYZ)
        temporary = path.with_suffix(TEMPORARY)
        if not self._reserve(temporary, len(data)):
            return  # all the others are being read this moment: this once, uncached
        try:
            temporary.write_bytes(data)
        except OSError as error:
            temporary.unlink()
            remedy = "lower limit_bytes, or put the cache on a larger disk"
            raise OSError(error.errno, f"{error.strerror}; {remedy}", str(path)) from error
        temporary.replace(path)

    def _reserve(self, temporary: Path, wanted: int) -> bool:
        """Make the file in its full size, which others then count; False if there is no room."""
        ledger = self.folder / LAYOUT / LEDGER
        with _locked(ledger) as descriptor:
            text = os.pread(descriptor, 32, 0)
            held = int(text) if text.isdigit() else self._evict(self.limit_bytes)
            if held + wanted > self.limit_bytes:
                held = self._evict(max(0, int(KEEP * self.limit_bytes) - wanted))
            if held + wanted > self.limit_bytes:
                return False
            os.pwrite(descriptor, b"%020d" % (held + wanted), 0)
            temporary.touch()
            os.truncate(temporary, wanted)
        return True

    def _evict(self, most: int) -> int:
        """Remove the least recently used entries until `most` bytes are left; what is left."""
        held = self._sweep()
        files = []
        for path in (self.folder / LAYOUT).glob(f"*/*{ENTRY}"):
            status = path.stat()
            files.append((status.st_mtime_ns, status.st_size, path))
        held += sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if held <= most:
                break
            if _remove_unread(path):
                held -= size
        return held

    def _sweep(self) -> int:
        """Remove what killed builders left behind; bytes of those that are at work."""
        held = 0
        for path in (self.folder / LAYOUT).glob(f"*/*{TEMPORARY}"):
            try:
                with _locked(path.parent / LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    path.unlink(missing_ok=True)
            except BlockingIOError:
                with suppress(FileNotFoundError):  # finished this moment: an entry now
                    held += path.stat().st_size
        return held


# ---- one entry ---------------------------------------------------------------------------------


def _box(corner: Grid, size: Grid) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(corner, size, strict=True))


def _checks(planes_XYZ: HuArray) -> bytes:
    """The CRC-32 of each X plane."""
    return np.array([isal_zlib.crc32(plane_YZ) for plane_YZ in planes_XYZ], CHECK).tobytes()


def _read(path: Path, shape: Grid, corner: Grid, size: Grid) -> HuArray | None:
    """The voxels asked for; None where there is no entry, or a damaged one."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        fcntl.flock(file, fcntl.LOCK_SH)
        os.utime(file.fileno())  # the order of eviction
        plane = shape[1] * shape[2] * VOXEL.itemsize
        file.seek(corner[0] * plane)
        data = file.read(size[0] * plane)
        file.seek(shape[0] * plane + corner[0] * CHECK.itemsize)
        checks = file.read(size[0] * CHECK.itemsize)
    if len(data) == size[0] * plane:
        planes_XYZ = np.frombuffer(data, VOXEL).reshape(size[0], *shape[1:])
        if _checks(planes_XYZ) == checks:
            return planes_XYZ[_box((0, *corner[1:]), size)].copy()
    logger.warning("%s is damaged; its volume is decoded again", path)
    return None


def _remove_unread(path: Path) -> bool:
    """Remove an entry, unless somebody on this node is reading it."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


@contextmanager
def _locked(path: Path, how: int = fcntl.LOCK_EX) -> Generator[int, None, None]:
    """Hold the lock on a file, made if need be; the kernel lets go of it when a holder dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)

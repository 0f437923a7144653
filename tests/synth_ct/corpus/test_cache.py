"""The cache gives the voxels that were put in, within its bounds, whoever dies or damages it."""

import fcntl
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from synth_ct.corpus.cache import LAYOUT, Cache, Key, _locked, _remove_unread, default_folder
from synth_ct.corpus.row import voxel_sha256
from synth_ct.kit.axes import Grid, HuArray

SHAPE: Grid = (8, 6, 4)
ENTRY_BYTES = 8 * 6 * 4 * 2 + 8 * 4


class Made:
    """A random volume that counts how often it was decoded."""

    def __init__(self, seed: int, shape: Grid = SHAPE) -> None:
        random = np.random.default_rng(seed)
        self.array_XYZ: HuArray = random.integers(-1024, 3071, shape, dtype=np.int16)
        self.key = Key(voxel_sha256(self.array_XYZ), shape)
        self.decoded = 0

    def decode(self) -> HuArray:
        self.decoded += 1
        return self.array_XYZ

    def whole(self, cache: Cache) -> HuArray:
        return cache.crop(self.key, (0, 0, 0), self.key.shape, self.decode)


def entries(cache: Cache) -> list[Path]:
    return sorted(cache.folder.rglob("*.i2"))


def held(cache: Cache) -> int:
    return sum(path.stat().st_size for path in entries(cache))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(folder=tmp_path / "cache", limit_bytes=4 * ENTRY_BYTES)


def test_any_crop_is_that_of_the_volume_and_the_volume_is_decoded_once(cache: Cache) -> None:
    made = Made(0)
    for corner, size in [((0, 0, 0), SHAPE), ((1, 2, 3), (5, 3, 1)), ((7, 0, 0), (1, 6, 4))]:
        x, y, z = corner
        wanted = made.array_XYZ[x : x + size[0], y : y + size[1], z : z + size[2]]
        found = cache.crop(made.key, corner, size, made.decode)
        np.testing.assert_array_equal(found, wanted)
        assert found.flags.writeable
        assert found.dtype == np.int16
    assert made.decoded == 1


def test_the_same_bytes_on_another_grid_are_another_volume(cache: Cache) -> None:
    one = Made(0)
    other = Made(0)
    other.array_XYZ = one.array_XYZ.reshape(4, 6, 8)
    other.key = Key(voxel_sha256(other.array_XYZ), (4, 6, 8))
    assert other.key.voxel_sha256 == one.key.voxel_sha256
    for made in (one, other, one, other):
        np.testing.assert_array_equal(made.whole(cache), made.array_XYZ)
    assert (one.decoded, other.decoded) == (1, 1)


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: flip(data, 100),
        lambda data: flip(data, ENTRY_BYTES - 1),
        lambda data: data[:200],
        lambda data: data[:-2],
        lambda data: b"",
        lambda data: bytes(len(data)),
    ],
    ids=["a voxel", "a check", "truncated", "torn at the end", "empty", "zeros"],
)
def test_a_damaged_entry_is_noticed_and_made_again(
    cache: Cache, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    made = Made(0)
    made.whole(cache)
    (path,) = entries(cache)
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_array_equal(made.whole(cache), made.array_XYZ)
    assert made.decoded == 2
    assert "is damaged" in caplog.text
    made.whole(cache)
    assert made.decoded == 2


def test_the_least_recently_used_go_first_and_the_limit_holds(cache: Cache) -> None:
    mades = [Made(seed) for seed in range(5)]
    for made in mades[:4]:
        made.whole(cache)
    mades[0].whole(cache)
    mades[4].whole(cache)
    assert held(cache) <= cache.limit_bytes
    for made in (mades[0], mades[4]):
        made.whole(cache)
        assert made.decoded == 1
    mades[1].whole(cache)
    assert mades[1].decoded == 2
    for seed in range(5, 40):
        Made(seed).whole(cache)
        assert held(cache) <= cache.limit_bytes


def test_a_limit_below_one_volume_is_refused_before_decoding(tmp_path: Path) -> None:
    made = Made(0)
    cache = Cache(folder=tmp_path, limit_bytes=ENTRY_BYTES - 1)
    with pytest.raises(ValueError, match=f"takes {ENTRY_BYTES}; raise limit_bytes"):
        made.whole(cache)
    assert made.decoded == 0
    made.whole(Cache(folder=tmp_path, limit_bytes=ENTRY_BYTES))
    assert made.decoded == 1


def test_what_is_being_read_is_not_removed_and_the_other_is_read_uncached(tmp_path: Path) -> None:
    cache = Cache(folder=tmp_path, limit_bytes=ENTRY_BYTES)
    first, second = Made(0), Made(1)
    first.whole(cache)
    (path,) = entries(cache)
    with path.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)  # as a crop does for as long as it reads
        np.testing.assert_array_equal(second.whole(cache), second.array_XYZ)
        assert entries(cache) == [path]
    second.whole(cache)
    assert entries(cache) != [path]
    assert len(entries(cache)) == 1


def test_a_crop_is_safe_from_eviction_for_as_long_as_it_reads(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, removed = Made(0), []
    made.whole(cache)
    (path,) = entries(cache)
    monkeypatch.setattr(os, "utime", lambda descriptor: removed.append(_remove_unread(path)))
    made.whole(cache)
    assert removed == [False]
    assert _remove_unread(path)


def test_nothing_is_left_open(cache: Cache) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for seed in range(9):
        Made(seed).whole(cache)
    assert len(os.listdir("/proc/self/fd")) == before


def test_of_many_at_once_one_decodes_and_the_others_wait(cache: Cache) -> None:
    made = Made(0)
    started = threading.Barrier(6)
    found: list[bool] = []

    def read() -> None:
        started.wait()
        found.append(bool((made.whole(cache) == made.array_XYZ).all()))

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 6
    assert made.decoded == 1


def _die_while_writing(cache: Cache, made: Made, die: Callable[[Path], None]) -> None:
    Path.replace = lambda path, target: die(path)  # type: ignore[assignment, method-assign]
    made.whole(cache)


def _tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_builder_leaves_no_entry_and_no_lock_and_its_remains_are_swept(
    cache: Cache,
) -> None:
    made = Made(0)
    process = multiprocessing.get_context("fork").Process(
        target=_die_while_writing, args=(cache, made, _tear)
    )
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert entries(cache) == []
    (left,) = cache.folder.rglob("*.tmp")
    for seed in range(1, 6):  # until the limit asks for room
        Made(seed).whole(cache)
    assert not left.exists()
    np.testing.assert_array_equal(made.whole(cache), made.array_XYZ)
    assert held(cache) <= cache.limit_bytes


def test_what_others_are_writing_counts(cache: Cache) -> None:
    other = cache.folder / LAYOUT / "zz"
    other.mkdir(parents=True)
    with _locked(other / ".lock"):
        (other / "x.tmp").write_bytes(bytes(3 * ENTRY_BYTES))
        for seed in range(3):
            Made(seed).whole(cache)
        assert held(cache) <= ENTRY_BYTES
        assert (other / "x.tmp").exists()


def test_a_removed_cache_or_a_damaged_count_is_made_anew(cache: Cache) -> None:
    for seed in range(4):
        Made(seed).whole(cache)
    (ledger,) = cache.folder.rglob("bytes")
    assert int(ledger.read_text()) == held(cache)
    ledger.write_text("\0\0")
    Made(9).whole(cache)
    assert int(ledger.read_text()) == held(cache) <= cache.limit_bytes


def test_a_full_disk_says_what_to_do_and_leaves_nothing(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    made = Made(0)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="lower limit_bytes"):
            made.whole(cache)
    assert not list(cache.folder.rglob("*.tmp"))
    np.testing.assert_array_equal(made.whole(cache), made.array_XYZ)


def test_the_default_place_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == Cache().folder == tmp_path / "synth-ct"
    for unusable in ("", "below/here"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert default_folder() == tmp_path / ".cache" / "synth-ct"

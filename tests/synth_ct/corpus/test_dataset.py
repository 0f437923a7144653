"""What a network is given: the right patients, crops that depend on their number alone."""

from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from corpora import SIDE, make_corpus
from torch.utils.data import DataLoader

from synth_ct import corpus as product
from synth_ct.cohort import Split
from synth_ct.corpus import Cache, Corpus, Crops, Volumes, split_of
from synth_ct.corpus.layout import volume_file
from synth_ct.kit.volume import AIR_HU, window

SPLITS: tuple[Split, ...] = get_args(Split)
CROP = (6, 8, 11)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """46 volumes of five patients, of whom all train with seed 0. To be read, not written."""
    folder = tmp_path_factory.mktemp("corpora") / "corpus"
    make_corpus(folder, range(60))
    return folder


@pytest.fixture
def corpus(folder: Path) -> Corpus:
    return Corpus.open(folder)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(folder=tmp_path / "cache")


def test_open_is_where_one_looks_for_it_and_shadows_nothing(folder: Path) -> None:
    assert product.open(folder) == Corpus.open(folder)
    assert "open" not in product.__all__


def test_every_volume_is_in_the_split_of_its_patient_and_in_no_other(corpus: Corpus) -> None:
    patients = {row.id: row.patient for row in corpus.accepted()}
    found: Counter[str] = Counter()
    for seed in range(3):
        for split in SPLITS:
            wanted = sorted(
                i for i, patient in patients.items() if split_of(patient, seed) == split
            )
            if wanted:
                ids = [item.id for item in Volumes(corpus, split, cache=None, seed=seed)]
                assert ids == wanted
                found.update(ids)
            else:
                with pytest.raises(ValueError, match=f"no volume in split '{split}'"):
                    Volumes(corpus, split, cache=None, seed=seed)
    assert found == dict.fromkeys(patients, 3)


def test_a_volume_is_that_of_the_corpus_in_the_network_s_range(
    corpus: Corpus, cache: Cache
) -> None:
    hu = Volumes(corpus, "train", cache=cache, window_hu=None)
    windowed = Volumes(corpus, "train", cache=cache)
    for number, row in enumerate(corpus.accepted()):
        array_XYZ = corpus.volume(row).array_XYZ
        assert hu[number].id == windowed[number].id == row.id
        np.testing.assert_array_equal(hu[number].ct_1XYZ[0].numpy(), array_XYZ)
        np.testing.assert_array_equal(windowed[number].ct_1XYZ[0].numpy(), window(array_XYZ))


def test_crop_k_depends_on_the_seed_and_k_alone(corpus: Corpus, cache: Cache) -> None:
    volumes = Volumes(corpus, "train", cache=cache)
    uncached = Volumes(corpus, "train", cache=None)
    forth = list(Crops(volumes, CROP, seed=3, count=100))
    again = Crops(uncached, CROP, seed=3, count=200)
    for k in reversed(range(100)):
        assert again[k].id == forth[k].id
        assert torch.equal(again[k].ct_1XYZ, forth[k].ct_1XYZ)
    other = Crops(volumes, CROP, seed=4, count=100)
    same = sum(torch.equal(other[k].ct_1XYZ, forth[k].ct_1XYZ) for k in range(100))
    assert same <= 2


def test_all_volumes_take_turns_and_every_place_is_drawn(corpus: Corpus, cache: Cache) -> None:
    volumes = Volumes(corpus, "train", cache=cache, window_hu=None)
    size = len(volumes)
    crops = Crops(volumes, CROP, count=size * 20)
    ids = []
    corners: Counter[tuple[int, ...]] = Counter()
    arrays = {item.id: item.ct_1XYZ[0].numpy() for item in volumes}
    for item in crops:
        ids.append(item.id)
        crop_XYZ = item.ct_1XYZ[0].numpy()
        assert crop_XYZ.shape == CROP
        windows = np.lib.stride_tricks.sliding_window_view(arrays[item.id], (2, 2, 2))
        found = (windows == crop_XYZ[:2, :2, :2]).all((-1, -2, -3))
        (corner,) = np.argwhere(found).tolist()  # voxels are random: no other place is like it
        x, y, z = corner
        wanted = arrays[item.id][x : x + CROP[0], y : y + CROP[1], z : z + CROP[2]]
        np.testing.assert_array_equal(crop_XYZ, wanted)
        corners.update(enumerate(corner))
    turns = [ids[n : n + size] for n in range(0, len(ids), size)]
    assert all(sorted(turn) == sorted(arrays) for turn in turns)
    assert turns[0] != turns[1]
    everywhere = {(axis, a) for axis, n in enumerate(CROP) for a in range(SIDE - n + 1)}
    assert set(corners) == everywhere


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one core, it warns of two
def test_workers_give_the_same_crops_in_the_same_order(corpus: Corpus, cache: Cache) -> None:
    crops = Crops(Volumes(corpus, "train", cache=cache), CROP, count=60)
    alone = list(DataLoader(crops, batch_size=8))
    shared = list(DataLoader(crops, batch_size=8, num_workers=2))
    assert [batch.id for batch in shared] == [batch.id for batch in alone]
    assert all(torch.equal(a.ct_1XYZ, b.ct_1XYZ) for a, b in zip(alone, shared, strict=True))
    assert alone[0].ct_1XYZ.shape == (8, 1, *CROP)


def test_a_crop_beyond_the_count_is_the_end(corpus: Corpus) -> None:
    crops = Crops(Volumes(corpus, "train", cache=None), CROP, count=3)
    assert len(crops) == 3
    for k in (-1, 3):
        with pytest.raises(IndexError):
            crops[k]


def test_a_volume_smaller_than_the_crop_stands_in_air(corpus: Corpus) -> None:
    volumes = Volumes(corpus, "train", cache=None, window_hu=None)
    (item,) = Crops(volumes, (SIDE + 4, SIDE + 1, SIDE), count=1)
    whole = {each.id: each.ct_1XYZ for each in volumes}[item.id]
    assert torch.equal(item.ct_1XYZ[:, 2:-2, :-1], whole)
    assert (item.ct_1XYZ[:, :2] == AIR_HU).all()
    assert (item.ct_1XYZ[:, -2:] == AIR_HU).all()
    assert (item.ct_1XYZ[:, :, -1:] == AIR_HU).all()


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_corpus_that_cannot_be_written_is_read_and_left_as_it_is(
    tmp_path: Path, cache: Cache
) -> None:
    make_corpus(tmp_path / "corpus", range(12))
    before = everything(tmp_path / "corpus")
    folders = [p for p in (tmp_path / "corpus").rglob("*") if p.is_dir()]
    for path in [*folders, tmp_path / "corpus"]:
        path.chmod(0o555)
    try:
        volumes = Volumes(product.open(tmp_path / "corpus"), "train", cache=cache)
        assert len(list(Crops(volumes, CROP, count=30))) == 30
    finally:
        for path in [tmp_path / "corpus", *folders]:
            path.chmod(0o755)
    assert everything(tmp_path / "corpus") == before


def test_a_damaged_volume_is_refused_and_does_not_enter_the_cache(
    tmp_path: Path, cache: Cache
) -> None:
    make_corpus(tmp_path / "corpus", range(3))
    corpus = product.open(tmp_path / "corpus")
    row = corpus.accepted()[0]
    path = corpus.folder / volume_file(row.id)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    volumes = Volumes(corpus, "train", cache=cache)
    with pytest.raises(ValueError, match="is damaged"):
        volumes[0]
    assert not list(cache.folder.rglob("*.i2"))


def test_voxels_that_are_not_the_recorded_ones_do_not_enter_the_cache(
    corpus: Corpus, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = Volumes(corpus, "train", cache=cache)
    monkeypatch.setattr("synth_ct.corpus.dataset.voxel_sha256", lambda array_XYZ: "0" * 64)
    with pytest.raises(ValueError, match="other voxels than the manifest says"):
        volumes[0]
    assert not list(cache.folder.rglob("*.i2"))


def test_two_corpora_share_what_they_have_in_common(
    corpus: Corpus, cache: Cache, tmp_path: Path
) -> None:
    make_corpus(tmp_path / "some", range(7))
    list(Volumes(corpus, "train", cache=cache))
    before = sorted(cache.folder.rglob("*.i2"))
    list(Volumes(product.open(tmp_path / "some"), "train", cache=cache))
    assert sorted(cache.folder.rglob("*.i2")) == before


def test_fewer_volumes_can_be_asked_for(corpus: Corpus) -> None:
    every, few = (Volumes(corpus, "train", cache=None, most=most) for most in (None, 5))
    assert len(few) == 5
    assert [few[n].id for n in range(5)] == [every[n].id for n in range(5)]

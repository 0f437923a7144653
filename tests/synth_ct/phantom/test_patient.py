"""What a phantom must be, said of several patients at once."""

import hashlib
import os
import subprocess
import sys
import time
from functools import cache

import numpy as np
import pytest
import torch
from scipy import ndimage

from synth_ct.kit.volume import spacing_mm
from synth_ct.phantom import Kind, Phantom, make_phantom
from synth_ct.phantom.anatomy import draw_anatomy
from synth_ct.phantom.cohort import CLASSES
from synth_ct.phantom.patient import FIELDS
from synth_ct.phantom.skeleton import rib_path

SEEDS = range(10)
VOLUMES_ML = {
    1: (60, 500), 2: (70, 280), 3: (70, 280), 4: (5, 90), 5: (4, 60), 6: (700, 2400),
    7: (100, 900), 8: (30, 260), 9: (20, 160), 10: (6, 70), 11: (20, 150), 12: (1, 12), 13: (1, 12),
}  # fmt: skip
"""The range of adults, native or filled, with a margin."""


@cache
def phantom(kind: Kind, seed: int, size: int = 64, family: str = "A") -> Phantom:
    return make_phantom(kind, seed, size, "A" if family == "A" else "B")


def centre_mm(subject: Phantom, label: int) -> np.ndarray:
    inside = np.argwhere(subject.labels.array_XYZ == label)
    affine = subject.labels.affine
    return affine[:3, :3] @ inside.mean(0) + affine[:3, 3]


def volume_ml(subject: Phantom, label: int) -> float:
    voxel = float(np.prod(spacing_mm(subject.labels.affine))) / 1000
    return float((subject.labels.array_XYZ == label).sum() * voxel)


@pytest.mark.parametrize(("seed", "family"), [*((s, "A") for s in SEEDS), (0, "B"), (1, "B")])
def test_thirteen_organs_are_there_in_human_size(seed: int, family: str) -> None:
    subject = phantom("abdomen", seed, 64, family)
    wrong = {
        CLASSES["abdomen"][label]: volume_ml(subject, label)
        for label, (least, most) in VOLUMES_ML.items()
        if not least <= volume_ml(subject, label) <= most
    }
    assert not wrong


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_lie_where_they_do_in_people(seed: int) -> None:
    subject = phantom("abdomen", seed)
    place = {CLASSES["abdomen"][k]: centre_mm(subject, k) for k in range(1, 14)}
    right, front, up = range(3)
    assert place["liver"][right] > 20
    assert place["spleen"][right] < -40
    assert place["stomach"][right] < 0
    assert place["gallbladder"][right] > 20
    assert place["right kidney"][right] > 30 > -30 > place["left kidney"][right]
    assert place["inferior vena cava"][right] > place["aorta"][right]
    assert place["right adrenal gland"][up] > place["right kidney"][up]
    assert place["left adrenal gland"][up] > place["left kidney"][up]
    assert place["stomach"][front] > place["spleen"][front]
    assert place["pancreas"][front] > place["left kidney"][front]


def test_the_right_kidney_usually_lies_lower() -> None:
    lower = [
        centre_mm(phantom("abdomen", s), 2)[2] < centre_mm(phantom("abdomen", s), 3)[2]
        for s in SEEDS
    ]
    assert sum(lower) >= 8


@pytest.mark.parametrize("seed", range(4))
def test_the_heart_lies_left_and_the_lungs_hold_litres(seed: int) -> None:
    subject = phantom("chest", seed)
    hu = subject.ct.array_XYZ
    assert 1800 < subject.facts["lung_ml"] < 7000
    level = hu[:, :, 30:36] < -500
    inside = ndimage.binary_fill_holes((hu > -500)[:, :, 33])
    assert inside is not None
    air = level[:, :, 3] & inside
    left, right = air[:32].sum(), air[32:].sum()
    assert left < 0.97 * right, "the heart takes its room from the left lung"


def test_ribs_are_paired_and_the_trachea_is_open() -> None:
    hu = phantom("chest", 0, 128).ct.array_XYZ
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), 0.7)
    counts = [
        [ndimage.label((smooth[half, y, 20:105] > 180).any(axis=0))[1] for y in range(60, 90, 5)]
        for half in (slice(0, 50), slice(78, 128))
    ]
    left, right = np.median(counts, axis=1)
    assert left >= 6
    assert abs(left - right) <= 1
    neck = hu[54:74, 45:100, 108:118]
    assert (neck < -700).any(axis=(0, 1)).all()


def test_ribs_slope_down_and_close_on_the_sternum() -> None:
    anatomy = draw_anatomy(1, "A")
    for number in range(10):
        left, right = rib_path(anatomy, number, -1.0), rib_path(anatomy, number, 1.0)
        assert left[-1][2] < left[0][2] - 20
        assert [(-x, y, z) for x, y, z in left] == right
    hu = phantom("chest", 1, 128).ct.array_XYZ[54:74, 80:, 60:98]
    assert ((hu > 150).any(axis=(0, 1))).mean() > 0.9, "a sternum at every level"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_aorta_runs_down_in_front_of_the_spine(seed: int) -> None:
    spine, body = phantom("lumbar", seed), phantom("abdomen", seed)
    lumbar_y = centre_mm(spine, 22)[1]
    aorta = np.argwhere(body.labels.array_XYZ == 8) @ body.ct.affine[:3, :3] + body.ct.affine[:3, 3]
    beside = aorta[np.abs(aorta[:, 2] - centre_mm(spine, 22)[2]) < 40]
    assert len(beside) > 3
    assert beside[:, 1].min() > lumbar_y


def test_vertebrae_are_stacked_in_the_order_of_their_ids() -> None:
    subject = phantom("lumbar", 4)
    heights = [centre_mm(subject, label)[2] for label in range(19, 25)]
    assert (np.diff(heights) < -20).all()


@pytest.mark.parametrize("kind", list(FIELDS))
@pytest.mark.parametrize("family", ["A", "B"])
def test_every_kind_works_on_the_smallest_grid(kind: Kind, family: str) -> None:
    subject = phantom(kind, 3, 32, family)
    assert subject.ct.array_XYZ.shape == (32, 32, 32)
    assert subject.ct.array_XYZ.dtype == np.int16
    assert spacing_mm(subject.ct.affine) == pytest.approx([FIELDS[kind][0] / 32] * 3)
    assert set(np.unique(subject.labels.array_XYZ)) - {0} <= set(CLASSES[kind] or range(1, 14))


def test_a_grid_outside_32_to_128_is_refused() -> None:
    with pytest.raises(ValueError, match="32 to 128"):
        make_phantom("chest", 0, 160)


@pytest.mark.parametrize("kind", ["chest", "abdomen"])
def test_the_body_fits_the_field_of_view(kind: Kind) -> None:
    for seed in range(4):
        hu = phantom(kind, seed).ct.array_XYZ
        faces = (hu[0], hu[-1], hu[:, 0], hu[:, -1])
        assert max(float((face > -500).mean()) for face in faces) < 0.01


def test_the_same_seed_is_the_same_patient_on_a_finer_grid() -> None:
    coarse, fine = phantom("abdomen", 2, 32), phantom("abdomen", 2, 64)
    halved = fine.ct.array_XYZ.reshape(32, 2, 32, 2, 32, 2).mean(axis=(1, 3, 5))
    close = np.corrcoef(halved.ravel(), coarse.ct.array_XYZ.ravel())[0, 1]
    assert close > 0.97
    assert centre_mm(coarse, 6) == pytest.approx(centre_mm(fine, 6), abs=3)


def test_a_seed_gives_the_same_bytes_whatever_the_threads_and_the_process() -> None:
    program = (
        "import hashlib; from synth_ct.phantom import make_phantom;"
        "p = make_phantom('abdomen', 5, 32, 'B');"
        "print(hashlib.sha256(p.ct.array_XYZ.tobytes() + p.labels.array_XYZ.tobytes()).hexdigest())"
    )
    apart = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            made = make_phantom("abdomen", 5, 32, "B")
            data = made.ct.array_XYZ.tobytes() + made.labels.array_XYZ.tobytes()
            assert hashlib.sha256(data).hexdigest() == apart
    finally:
        torch.set_num_threads(threads)


def test_another_seed_is_another_patient() -> None:
    volumes = {round(volume_ml(phantom("abdomen", seed), 6)) for seed in SEEDS}
    assert len(volumes) == len(SEEDS)
    assert max(volumes) > 1.15 * min(volumes)


def test_no_threshold_finds_the_spleen() -> None:
    """Best Dice over all HU windows, on the voxels of the abdomen's field."""
    for seed in range(3):
        subject = phantom("spleen", seed)
        hu, truth = subject.ct.array_XYZ, subject.labels.array_XYZ == 1
        values = np.arange(-100, 400, 10)
        inside, outside = (np.histogram(hu[m], [*values, 400])[0] for m in (truth, ~truth))
        a, b = np.concatenate([[0], inside.cumsum()]), np.concatenate([[0], outside.cumsum()])
        hit, miss = a[None] - a[:, None], b[None] - b[:, None]
        dice = 2 * hit / np.maximum(hit + miss + truth.sum(), 1)
        assert np.triu(dice).max() < 0.5


def test_opacities_fill_lung_and_nothing_else() -> None:
    clear, ill = make_phantom("chest", 6, 64), make_phantom("chest", 6, 64, opacities=True)
    denser = ill.ct.array_XYZ.astype(int) - clear.ct.array_XYZ > 300
    assert 20 < denser.sum() * 0.125 < 2500, "ml"
    assert np.median(clear.ct.array_XYZ[denser]) < -700
    assert np.array_equal(clear.labels.array_XYZ, ill.labels.array_XYZ)


def test_one_seed_is_two_patients_in_two_families() -> None:
    first, second = phantom("abdomen", 1), phantom("abdomen", 1, 64, "B")
    liver = [subject.labels.array_XYZ == 6 for subject in (first, second)]
    overlap = 2 * (liver[0] & liver[1]).sum() / (liver[0].sum() + liver[1].sum())
    assert 0.4 < overlap < 0.93


def test_a_full_patient_takes_at_most_three_seconds_of_one_core() -> None:
    spent = []
    for _ in range(2):
        start = time.process_time()
        full = make_phantom("abdomen", 0, 128)
        spent.append(time.process_time() - start)
    assert min(spent) <= 3
    assert spacing_mm(full.ct.affine) == (2.5, 2.5, 2.5)

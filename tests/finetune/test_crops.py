"""Crop k of the training cases: the same whenever it is asked for, half of them around an organ."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from finetune.augment import NONE, Augmentation
from finetune.cases import Prepared, places_inside
from finetune.crops import AIR, CropRecipe, Crops, cut
from synth_ct.kit.axes import Grid
from synth_ct.kit.loop import Training
from synth_ct.kit.recipe import changed

CPU = torch.device("cpu")
SHAPE, SIDES = (21, 20, 23), (6, 6, 8)
RECIPE = CropRecipe(sides=SIDES)
TRAINING = Training(seed=3, steps=100, global_batch=4, micro_batch=2)


def case(number: int = 0, shape: Grid = SHAPE, organs: dict[int, Grid] | None = None) -> Prepared:
    """Every voxel's value is its own; an organ is one voxel."""
    size = int(np.prod(shape))
    image_XYZ = (number + torch.arange(size).reshape(shape) / size).float()
    label_XYZ = torch.zeros(shape, dtype=torch.uint8)
    for organ, place in (organs or {}).items():
        label_XYZ[place] = organ
    return Prepared(image_XYZ=image_XYZ, label_XYZ=label_XYZ, inside=places_inside(label_XYZ))


CASES = [case(n, organs={1: (10, 9, 8), 2: (5 + n, 7, 11)}) for n in range(3)]


def crops(
    cases: list[Prepared] = CASES,
    augmentation: Augmentation = NONE,
    training: Training = TRAINING,
    **recipe: object,
) -> Crops:
    return Crops(cases, changed(RECIPE, **recipe), augmentation, training, CPU)


def middle(label_XYZ: Tensor) -> int:
    x, y, z = (side // 2 for side in label_XYZ.shape)
    return int(label_XYZ[x, y, z])


# ---- when --------------------------------------------------------------------------------------


def test_a_batch_is_a_function_of_seed_step_and_slot_alone() -> None:
    augmentation = Augmentation(flip=0.5, turn=0.5, scale=0.5, shift=0.5)
    cases = [lopsided(), CASES[0]]
    every = crops(cases, augmentation)
    asked = [(step, slot) for step in range(6) for slot in range(2)]
    batches = {where: every(*where) for where in asked}
    resumed = crops(cases, augmentation)
    for where in reversed(asked[4:]):
        assert all(map(torch.equal, resumed(*where), batches[where]))
    other = crops(cases, augmentation, changed(TRAINING, seed=4))
    assert not any(torch.equal(other(*w).ct_B1XYZ, batches[w].ct_B1XYZ) for w in asked)
    shown = [batch.ct_B1XYZ for batch in batches.values()]
    assert not any(torch.equal(a, b) for n, a in enumerate(shown) for b in shown[:n])


def test_a_step_sees_the_same_crops_however_they_are_shared_among_slots() -> None:
    augmentation = Augmentation(flip=0.5, turn=0.5, scale=0.5, shift=0.5)
    for step in range(3):
        whole, halves, singles = (
            [
                crops(augmentation=augmentation, training=changed(TRAINING, micro_batch=each))(
                    step, slot
                )
                for slot in range(4 // each)
            ]
            for each in (4, 2, 1)
        )
        for parts in (halves, singles):
            for n in range(2):
                assert torch.equal(torch.cat([part[n] for part in parts]), whole[0][n])


def test_a_batch_has_the_shapes_and_kinds_the_network_wants() -> None:
    batch = crops()(0, 1)
    assert batch.ct_B1XYZ.shape == (2, 1, *SIDES)
    assert batch.label_BXYZ.shape == (2, *SIDES)
    assert (batch.ct_B1XYZ.dtype, batch.label_BXYZ.dtype) == (torch.float32, torch.uint8)


@pytest.mark.parametrize("of_a_case", [1, 4])
def test_every_case_has_its_turn_in_each_round(of_a_case: int) -> None:
    read, rounds = crops(of_a_case=of_a_case), []
    for lap in range(8):
        first = lap * 3 * of_a_case
        turns = [int(read.crop(k)[0].max()) for k in range(first, first + 3 * of_a_case)]
        assert turns == [n for n in turns[::of_a_case] for _ in range(of_a_case)]
        assert sorted(turns[::of_a_case]) == [0, 1, 2]
        rounds.append(tuple(turns))
    assert len({*rounds}) > 2  # in an order drawn anew


# ---- where -------------------------------------------------------------------------------------


def test_labels_are_cut_where_the_image_is() -> None:
    labelled = case()
    as_image = (labelled.image_XYZ * labelled.image_XYZ.numel()).round().to(torch.int32)
    twin = Prepared(image_XYZ=labelled.image_XYZ, label_XYZ=as_image, inside={})
    for k in range(20):
        image_XYZ, label_XYZ = crops([twin]).crop(k)
        torch.testing.assert_close(label_XYZ / as_image.numel(), image_XYZ)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.0])
def test_as_many_crops_as_asked_lie_around_an_organ(share: float) -> None:
    read, count = crops(around_organs=share), 300
    around = sum(middle(read.crop(k)[1]) > 0 for k in range(count)) / count
    assert around == pytest.approx(share, abs=0.07)
    assert around == share or share not in (0.0, 1.0)


def test_other_crops_lie_anywhere_borders_included() -> None:
    read = crops([case()], around_organs=0.0, of_a_case=1)
    starts = [
        np.unravel_index(round(float(read.crop(k)[0][0, 0, 0]) * np.prod(SHAPE)), SHAPE)
        for k in range(600)
    ]
    for axis, (have, side) in enumerate(zip(SHAPE, SIDES, strict=True)):
        assert {int(start[axis]) for start in starts} == {*range(have - side + 1)}


def test_a_case_without_organs_is_cut_anywhere() -> None:
    read = crops([case()], around_organs=1.0)
    assert len({float(read.crop(k)[0][0, 0, 0]) for k in range(20)}) > 15


def lopsided() -> Prepared:
    """A large organ, a small one, one of a single voxel."""
    label_XYZ = torch.zeros(SHAPE, dtype=torch.uint8)
    label_XYZ[4:12, 4:12, 5:15] = 1  # 800 voxels
    label_XYZ[14:17, 13:17, 16:18] = 2  # 24
    label_XYZ[3, 15, 8] = 5
    image_XYZ = case(3).image_XYZ
    return Prepared(image_XYZ=image_XYZ, label_XYZ=label_XYZ, inside=places_inside(label_XYZ))


def test_by_voxels_large_organs_come_more_often_and_by_classes_all_alike() -> None:
    found = {}
    for organ_by in ("voxels", "classes"):
        read = crops([lopsided()], around_organs=1.0, organ_by=organ_by)
        found[organ_by] = Counter(middle(read.crop(k)[1]) for k in range(300))
    assert found["voxels"][1] > 280
    assert found["classes"].keys() == {1, 2, 5}
    assert min(found["classes"].values()) > 70


def test_every_voxel_of_an_organ_may_be_the_middle() -> None:
    read = crops([lopsided()], around_organs=1.0, organ_by="classes")
    inside = torch.zeros(SIDES)
    for k in range(400):
        label_XYZ = read.crop(k)[1]
        if middle(label_XYZ) == 2:
            inside += label_XYZ == 2
    # Of 3 x 4 x 2 voxels the middle may be first or last: 2, 3 and 1 voxels reach to both sides.
    assert (inside > 0).nonzero().amin(0).tolist() == [1, 0, 3]
    assert (inside > 0).nonzero().amax(0).tolist() == [5, 5, 5]


def test_no_case_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no training cases are left"):
        crops([])


# ---- cutting -----------------------------------------------------------------------------------


def test_a_box_is_cut_around_its_middle_and_pushed_inside_at_borders() -> None:
    image_XYZ = case().image_XYZ
    inner_XYZ = cut(image_XYZ, (10, 9, 8), SIDES, AIR)
    assert torch.equal(inner_XYZ, image_XYZ[7:13, 6:12, 4:12])
    assert torch.equal(cut(image_XYZ, (0, 1, 2), SIDES, AIR), image_XYZ[:6, :6, :8])
    assert torch.equal(cut(image_XYZ, (20, 19, 22), SIDES, AIR), image_XYZ[-6:, -6:, -8:])


def test_a_small_case_is_surrounded_evenly_by_air_and_background() -> None:
    small = case(2, (3, 6, 9), {1: (1, 2, 3)})
    sides = (6, 6, 14)  # lacks 3, 0 and 5
    for place in ((0, 0, 0), (2, 5, 8)):
        image_XYZ = cut(small.image_XYZ, place, sides, AIR)
        label_XYZ = cut(small.label_XYZ, place, sides, 0.0)
        assert torch.equal(image_XYZ[1:4, :, 2:11], small.image_XYZ)
        assert torch.equal(label_XYZ[1:4, :, 2:11], small.label_XYZ)
        for whole_XYZ, fill in ((image_XYZ, -1), (label_XYZ, 0)):
            outside_XYZ = torch.ones(sides, dtype=torch.bool)
            outside_XYZ[1:4, :, 2:11] = False
            assert {*whole_XYZ[outside_XYZ].tolist()} == {fill}
        assert label_XYZ.dtype == torch.uint8
    read = crops([small], sides=sides)
    image_XYZ, label_XYZ = read.crop(0)
    assert image_XYZ.min() == AIR
    assert label_XYZ.sum() == 1
    assert image_XYZ.shape == label_XYZ.shape == sides

"""Augmentation moves image and labels alike, each crop by its own draws."""

import pytest
import torch
from torch import Tensor

from finetune.augment import NONE, Augmentation, augmented
from synth_ct.kit.recipe import changed
from synth_ct.kit.seeds import torch_random

ALWAYS = Augmentation(flip=1, turn=1, scale=1, shift=1)
MOVED = changed(ALWAYS, scale=0, shift=0)
OFTEN = Augmentation(flip=0.5, turn=0.5, scale=0.5, shift=0.5)


def items(count: int) -> list[torch.Generator]:
    return [torch_random(0, "items", k) for k in range(count)]


def crops(count: int, sides: tuple[int, int, int] = (4, 4, 6)) -> tuple[Tensor, Tensor]:
    """Every voxel's value is its own; the labels are the image."""
    size = sides[0] * sides[1] * sides[2]
    label_BXYZ = torch.arange(count * size).reshape(count, *sides).short()
    return label_BXYZ.float()[:, None], label_BXYZ


def moved(recipe: Augmentation, count: int, sides: tuple[int, int, int] = (4, 4, 6)) -> Tensor:
    """The labels, which were compared with the image."""
    ct_B1XYZ, label_BXYZ = augmented(*crops(count, sides), recipe, items(count))
    assert label_BXYZ.dtype == torch.int16
    assert torch.equal(ct_B1XYZ[:, 0], label_BXYZ.float())
    return label_BXYZ


def test_image_and_labels_move_together() -> None:
    _, before_BXYZ = crops(30)
    after_BXYZ = moved(changed(OFTEN, scale=0, shift=0), 30)
    stayed = [torch.equal(*pair) for pair in zip(before_BXYZ, after_BXYZ, strict=True)]
    assert 0 < sum(stayed) < 10
    assert torch.equal(before_BXYZ.flatten(1), after_BXYZ.flatten(1).sort().values)


def test_without_augmentation_crops_stay_as_they_are() -> None:
    ct_B1XYZ, label_BXYZ = crops(5)
    seen = augmented(ct_B1XYZ, label_BXYZ, NONE, items(5))
    assert torch.equal(seen[0], ct_B1XYZ)
    assert torch.equal(seen[1], label_BXYZ)


@pytest.mark.parametrize(("axis", "dimension"), [("x", 1), ("y", 2), ("z", 3)])
def test_a_flip_turns_over_the_axis_it_names(axis: str, dimension: int) -> None:
    recipe = changed(NONE, flip=1, flipped=(axis,))
    assert torch.equal(moved(recipe, 3), crops(3)[1].flip(dimension))


def test_turns_are_by_any_quarter_about_the_long_axis() -> None:
    before, after = crops(40)[1], moved(changed(NONE, turn=1), 40)
    quarters = [
        next(k for k in range(4) if torch.equal(after[b], before[b].rot90(k, (0, 1))))
        for b in range(40)
    ]
    assert {*quarters} == {1, 2, 3}


def test_an_oblong_crop_makes_no_quarter_turn() -> None:
    before, after = crops(40, (4, 6, 6))[1], moved(changed(NONE, turn=1), 40, (4, 6, 6))
    turned = [torch.equal(after[b], before[b].rot90(2, (0, 1))) for b in range(40)]
    stayed = [torch.equal(after[b], before[b]) for b in range(40)]
    assert all(a != b for a, b in zip(turned, stayed, strict=True))
    assert 0 < sum(turned) < 40


def test_intensities_change_by_a_gain_and_an_offset_and_labels_do_not() -> None:
    random = torch.Generator().manual_seed(0)
    ct_B1XYZ = 2 * torch.rand(40, 1, 4, 4, 6, generator=random, dtype=torch.float64) - 1
    label_BXYZ = (ct_B1XYZ[:, 0] > 0).byte()
    recipe = changed(NONE, scale=1, scale_by=0.2, shift=1, shift_by=0.1)
    seen_B1XYZ, same_BXYZ = augmented(ct_B1XYZ, label_BXYZ, recipe, items(40))
    assert torch.equal(same_BXYZ, label_BXYZ)
    before_BV, after_BV = ct_B1XYZ.flatten(1), seen_B1XYZ.flatten(1)
    span_B = after_BV.amax(1) - after_BV.amin(1)
    gain_B = span_B / (before_BV.amax(1) - before_BV.amin(1))
    offset_BV = after_BV - gain_B[:, None] * before_BV
    torch.testing.assert_close(offset_BV, offset_BV[:, :1].expand_as(offset_BV))
    for value_B, middle, reach in ((gain_B, 1, 0.2), (offset_BV[:, 0], 0, 0.1)):
        away_B = value_B - middle
        assert away_B.abs().max() <= reach + 1e-6
        assert away_B.min() < -reach / 2
        assert away_B.max() > reach / 2


@pytest.mark.parametrize("what", ["flip", "turn", "scale", "shift"])
def test_each_happens_as_often_as_asked(what: str) -> None:
    count = 400
    ct_B1XYZ, label_BXYZ = crops(count)
    seen_B1XYZ, _ = augmented(
        ct_B1XYZ + 1, label_BXYZ, changed(NONE, flipped=("x",), **{what: 0.3}), items(count)
    )
    share = (seen_B1XYZ != ct_B1XYZ + 1).flatten(1).any(1).float().mean()
    assert 0.23 < share < 0.37


def test_companions_change_nothing() -> None:
    ct_B1XYZ, label_BXYZ = crops(6)
    together = augmented(ct_B1XYZ, label_BXYZ, OFTEN, items(6))
    for b in range(6):
        part = slice(b, b + 1)
        alone = augmented(ct_B1XYZ[part], label_BXYZ[part], OFTEN, items(6)[part])
        assert torch.equal(alone[0], together[0][part])
        assert torch.equal(alone[1], together[1][part])


def test_what_is_given_is_not_changed_in_place() -> None:
    ct_B1XYZ, label_BXYZ = crops(4)
    augmented(ct_B1XYZ, label_BXYZ, ALWAYS, items(4))
    assert torch.equal(ct_B1XYZ, crops(4)[0])
    assert torch.equal(label_BXYZ, crops(4)[1])


def test_what_is_drawn_does_not_depend_on_the_device() -> None:
    """A device without numbers suffices to see what was drawn."""
    drawn = []
    for device in ("cpu", "cpu:0", "meta"):
        used = items(8)
        ct_B1XYZ, label_BXYZ = (each.to(device) for each in crops(8))
        seen_B1XYZ, same_BXYZ = augmented(ct_B1XYZ, label_BXYZ, OFTEN, used)
        assert seen_B1XYZ.device == same_BXYZ.device == ct_B1XYZ.device
        drawn.append(torch.stack([item.get_state() for item in used]))
    assert all(torch.equal(drawn[0], each) for each in drawn)


@pytest.mark.gpu
def test_a_gpu_augments_as_the_cpu_does() -> None:
    ct_B1XYZ, label_BXYZ = crops(8)
    here = augmented(ct_B1XYZ, label_BXYZ, OFTEN, items(8))
    there = augmented(ct_B1XYZ.cuda(), label_BXYZ.cuda(), OFTEN, items(8))
    torch.testing.assert_close(there[0].cpu(), here[0])
    assert torch.equal(there[1].cpu(), here[1])

"""Views: drawn item by item, of nothing but a generator, and never in place."""

import numpy as np
import pytest
import torch

from pretrain import views

SIDES = (12, 16, 20)


@pytest.fixture(name="ct_B1XYZ")
def some_crops(random: torch.Generator) -> torch.Tensor:
    return torch.rand(4, 1, 16, 16, 16, generator=random) * 2 - 1


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_rotation_equals_numpy_s_and_its_opposite_undoes_it(
    ct_B1XYZ: torch.Tensor, axis: views.Axis
) -> None:
    before, turns = ct_B1XYZ.clone(), torch.tensor([0, 1, 2, 3])
    turned = views.rotated(ct_B1XYZ, turns, axis)
    plane = {"x": (1, 2), "y": (0, 2), "z": (0, 1)}[axis]
    for item in range(4):
        assert np.array_equal(turned[item, 0], np.rot90(ct_B1XYZ[item, 0].numpy(), item, plane))
    assert torch.equal(views.rotated(turned, 4 - turns, axis), ct_B1XYZ)
    assert torch.equal(ct_B1XYZ, before)


def test_the_public_code_turns_the_plane_of_y_and_z(ct_B1XYZ: torch.Tensor) -> None:
    turned = views.rotated(ct_B1XYZ, torch.ones(4, dtype=torch.long), "x")
    assert torch.equal(turned[2], ct_B1XYZ[2].rot90(1, (2, 3)))


def test_an_item_s_generator_is_the_same_whatever_its_companions() -> None:
    def first_numbers(count: int) -> list[float]:
        items = views.generators_of_items(torch.Generator().manual_seed(3), count)
        return [views.uniform(item) for item in items]

    assert first_numbers(7)[:3] == first_numbers(3)
    assert len(set(first_numbers(7))) == 7


def test_noise_is_uniform_uncorrelated_and_an_item_s_own() -> None:
    device = torch.device("cpu")
    noise = views.uniform_noise([1, 2], (40, 40, 40), device)
    assert torch.equal(views.uniform_noise([2], (40, 40, 40), device)[0], noise[1])
    assert float(noise.min()) >= 0
    assert float(noise.max()) < 1
    counts = torch.histc(noise[0], 16, 0, 1) / noise[0].numel()
    assert torch.allclose(counts, torch.full((16,), 1 / 16), atol=0.005)
    flat = noise[0].flatten()
    for lag in (1, 40, 1600):
        pair = torch.stack([flat[lag:], flat[:-lag]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.02
    assert abs(float(torch.corrcoef(noise.flatten(1))[0, 1])) < 0.02


def test_normal_noise_has_mean_0_sd_1_and_the_normal_s_kurtosis() -> None:
    noise = views.normal_noise([5], (50, 50, 50), torch.device("cpu"))
    assert float(noise.mean()) == pytest.approx(0, abs=0.01)
    assert float(noise.std()) == pytest.approx(1, abs=0.01)
    assert float((noise**4).mean()) == pytest.approx(3, abs=0.1)


def test_the_mixing_is_splitmix64() -> None:
    """Its published first output from seed 0 is e220a8397b1dcdaf."""
    golden = torch.tensor([0x9E3779B97F4A7C15 - 2**64])
    assert int(views._mixed(golden)) % 2**64 == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_scattered_boxes_sum_to_their_share_and_stay_inside(share: float) -> None:
    item = torch.Generator().manual_seed(0)
    boxes = views.scattered_boxes(item, SIDES, share)
    lengths = boxes.upper_K3 - boxes.lower_K3
    volumes = lengths.prod(1)
    target = share * np.prod(SIDES)
    assert int(volumes.sum()) >= target
    assert int(volumes[:-1].sum()) < target or share == 0
    assert bool((boxes.lower_K3 >= 0).all())
    assert bool((boxes.upper_K3 <= torch.tensor(SIDES)).all())
    assert bool((lengths <= torch.tensor(SIDES) // 4).all())


def test_covered_is_the_union_of_the_boxes() -> None:
    items = views.generators_of_items(torch.Generator().manual_seed(1), 3)
    each = [views.scattered_boxes(item, SIDES, 0.1 * (1 + n)) for n, item in enumerate(items)]
    each.append(views.Boxes(torch.empty(0, 3).long(), torch.empty(0, 3).long()))
    mask = views.covered(views.together(each), SIDES, torch.device("cpu"))
    for item, boxes in enumerate(each):
        expected = np.zeros(SIDES, bool)
        for low, high in zip(boxes.lower_K3.tolist(), boxes.upper_K3.tolist(), strict=True):
            expected[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = True
        assert np.array_equal(mask[item, 0], expected)


def test_a_block_mask_hides_whole_blocks_and_the_same_share_of_each_item() -> None:
    items = views.generators_of_items(torch.Generator().manual_seed(2), 5)
    mask = views.block_mask(items, (16, 16, 32), (4, 4, 8), 0.75)
    assert mask.shape == (5, 1, 16, 16, 32)
    blocks = mask[:, 0].unflatten(1, (4, 4)).unflatten(3, (4, 4)).unflatten(5, (4, 8))
    inner = blocks.float().mean((2, 4, 6))
    assert set(inner.flatten().tolist()) == {0.0, 1.0}
    assert inner.flatten(1).sum(1).tolist() == [48.0] * 5
    assert not torch.equal(mask[0], mask[1])


def test_pasting_takes_finished_voxels_of_earlier_items_and_clean_ones_of_later() -> None:
    clean = torch.arange(3.0).view(3, 1, 1, 1, 1).expand(3, 1, 1, 1, 2).clone()
    noisy, where = clean + 10, torch.zeros(3, 1, 1, 1, 2, dtype=torch.bool)
    where[..., 0] = True
    before = (clean.clone(), noisy.clone())
    done = views.pasted_in_turn(clean, noisy, where, [2, 1, 0])
    # item 0 takes the clean 2; item 1 itself; item 2 what item 0 has become: that 2
    assert done[:, 0, 0, 0].tolist() == [[2.0, 10.0], [11.0, 11.0], [2.0, 12.0]]
    assert torch.equal(clean, before[0])
    assert torch.equal(noisy, before[1])

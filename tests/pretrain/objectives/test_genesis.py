"""Models Genesis: each transformation against what defines it."""

import math

import numpy as np
import pytest
import torch

from pretrain.backbones import UNetSizes, build
from pretrain.heads import FullSize
from pretrain.objectives import genesis
from pretrain.objectives.genesis import Genesis, GenesisRecipe
from pretrain.views import Boxes, covered, generators_of_items, together

CROP = (24, 24, 24)
NOTHING = GenesisRecipe(flip=0, shuffle=0, nonlinear=0, paint=0)


@pytest.fixture(name="ct_B1XYZ")
def some_crops(random: torch.Generator) -> torch.Tensor:
    return torch.rand(2, 1, *CROP, generator=random) * 2 - 1


def only(**chances: float) -> GenesisRecipe:
    return GenesisRecipe(**({"flip": 0, "shuffle": 0, "nonlinear": 0, "paint": 0} | chances))


# ---- intensity ---------------------------------------------------------------------------------


def curve(control: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """De Casteljau: repeated interpolation between the control points."""
    points = np.repeat(control[None], 1000, 0)
    t = np.linspace(0, 1, 1000)[:, None, None]
    while points.shape[1] > 1:
        points = (1 - t) * points[:, :-1] + t * points[:, 1:]
    return points[:, 0, 0], points[:, 0, 1]


@pytest.mark.parametrize("inverted", [False, True])
def test_intensities_follow_the_bezier_curve(
    inverted: bool, ct_B1XYZ: torch.Tensor, random: torch.Generator
) -> None:
    inner = torch.rand(2, 2, 2, generator=random)
    ends = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).expand(2, 2, 2)
    control = torch.cat([ends[:, :1], inner, ends[:, 1:]], 1)
    before = ct_B1XYZ.clone()
    ours = genesis.bent(ct_B1XYZ, control, torch.tensor([inverted, inverted]))
    assert torch.equal(ct_B1XYZ, before)
    for item in range(2):
        x, y = curve(control[item].double().numpy())
        value = np.sort(y)[::-1] if inverted else np.sort(y)
        unit = (ct_B1XYZ[item].numpy() + 1) / 2
        assert np.allclose((ours[item] + 1) / 2, np.interp(unit, np.sort(x), value), atol=2e-3)


def test_points_on_the_diagonal_change_nothing(ct_B1XYZ: torch.Tensor) -> None:
    line = (torch.arange(4.0) / 3)[:, None].expand(2, 4, 2)
    assert torch.allclose(
        genesis.bent(ct_B1XYZ, line, torch.tensor([False, True])),
        torch.stack([ct_B1XYZ[0], -ct_B1XYZ[1]]),
        atol=1e-5,
    )


# ---- shuffling ---------------------------------------------------------------------------------


def test_a_shuffle_moves_voxels_by_less_than_a_block(random: torch.Generator) -> None:
    places = torch.arange(40 * 24 * 30.0).view(1, 40, 24, 30)
    moved = genesis.shuffled(places, 400, random)
    assert torch.equal(places.flatten(), torch.arange(places.numel()).float())
    source = np.stack(np.unravel_index(moved[0].long().numpy(), (40, 24, 30)))
    far = np.abs(source - np.indices((40, 24, 30))).max((1, 2, 3))
    assert (far > 0).all()
    assert (far < np.array([40, 24, 30]) // 10).all()


def test_a_block_alone_is_a_permutation_and_all_else_stays(random: torch.Generator) -> None:
    ct = torch.rand(1, 40, 40, 40, generator=random)
    for _ in range(5):
        moved = genesis.shuffled(ct, 1, random)
        assert torch.equal(moved.flatten().sort().values, ct.flatten().sort().values)
        changed = (moved != ct)[0].nonzero()
        assert len(changed) == 0 or int((changed.amax(0) - changed.amin(0)).max()) < 4


def test_every_order_within_a_block_is_as_likely(
    random: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower, length = torch.zeros(1, 3).long(), torch.tensor([[1, 1, 3]])
    monkeypatch.setattr(genesis, "_small_boxes", lambda *_: (lower, length))
    ct = torch.arange(16.0).view(1, 2, 2, 4)
    seen = [tuple(genesis.shuffled(ct, 1, random)[0, 0, 0, :3].tolist()) for _ in range(600)]
    counts = [seen.count(order) for order in set(seen)]
    assert len(counts) == 6
    assert min(counts) > 60


def test_where_blocks_overlap_the_last_one_stands(
    random: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = torch.tensor([[0, 0, 0], [0, 0, 2]])
    length = torch.tensor([[1, 1, 3], [1, 1, 1]])  # the second keeps voxel 2 what it was
    monkeypatch.setattr(genesis, "_small_boxes", lambda *_: (lower, length))
    ct = torch.arange(8.0).view(1, 1, 1, 8)
    for _ in range(20):
        assert float(genesis.shuffled(ct, 2, random)[0, 0, 0, 2]) == 2


# ---- painting ----------------------------------------------------------------------------------


def test_outer_windows_stay_visible_and_inner_boxes_do_not(ct_B1XYZ: torch.Tensor) -> None:
    before = ct_B1XYZ.clone()
    for outer in (0.0, 1.0):
        recipe = only(paint=1.0, outer=outer)
        items = generators_of_items(torch.Generator().manual_seed(2), 2)
        same = genesis.deformed(recipe, ct_B1XYZ, items) == ct_B1XYZ
        faces = torch.ones_like(same)
        faces[:, :, 3:-3, 3:-3, 3:-3] = False
        assert bool(same[faces].all()) if outer == 0 else not bool(same[faces].any())
        assert bool(same.any())
        assert not bool(same.all())
    assert torch.equal(ct_B1XYZ, before)


@pytest.mark.parametrize("sides", [(14, 14, 14), (24, 32, 96)])
def test_boxes_keep_their_margin(sides: tuple[int, int, int], random: torch.Generator) -> None:
    for draw, low, high in ((genesis.inner_boxes, 1 / 6, 1 / 3), (genesis.outer_windows, 0.4, 0.6)):
        boxes: list[Boxes] = [draw(item, sides) for item in generators_of_items(random, 20)]
        counts = [len(b.lower_K3) for b in boxes]
        assert max(counts) == 5
        lower, upper = torch.cat([b.lower_K3 for b in boxes]), torch.cat([b[1] for b in boxes])
        share = (upper - lower) / torch.tensor(sides)
        assert float(share.min()) > low - 0.05
        assert float(share.max()) < high + 0.05
        assert int(lower.min()) >= 3
        assert bool((upper <= torch.tensor(sides) - 3).all())
        assert covered(together(boxes), sides, torch.device("cpu")).shape[0] == 20


# ---- the whole ---------------------------------------------------------------------------------


def test_with_no_chance_of_anything_a_crop_stays_as_it_is(ct_B1XYZ: torch.Tensor) -> None:
    items = generators_of_items(torch.Generator().manual_seed(0), 2)
    assert torch.equal(genesis.deformed(NOTHING, ct_B1XYZ, items), ct_B1XYZ)


def test_an_item_s_deformation_does_not_depend_on_companions(ct_B1XYZ: torch.Tensor) -> None:
    def first(ct: torch.Tensor) -> torch.Tensor:
        items = generators_of_items(torch.Generator().manual_seed(1), len(ct))
        return genesis.deformed(GenesisRecipe(shuffled_blocks=50), ct, items)[0]

    companions = torch.cat([ct_B1XYZ[:1], torch.zeros(3, 1, *CROP)])
    assert torch.equal(first(companions), first(ct_B1XYZ[:1]))


def test_flips_turn_the_target_too(ct_B1XYZ: torch.Tensor, random: torch.Generator) -> None:
    """A network that gives its input back restores a flipped crop without error."""
    backbone = build(UNetSizes(width=2, levels=3, norm="instance"), 1, 0)
    objective = Genesis(only(flip=1.0), backbone, CROP)
    objective.network = _GivesBack()  # type: ignore[assignment]
    assert float(objective(backbone, ct_B1XYZ, random)["total"].detach()) == 0


class _GivesBack(torch.nn.Module):
    def forward(self, backbone: torch.nn.Module, ct: torch.Tensor) -> FullSize:
        return FullSize(ct, ct)


def test_a_step_learns_to_restore(ct_B1XYZ: torch.Tensor, random: torch.Generator) -> None:
    backbone = build(UNetSizes(width=2, levels=3, norm="instance"), 1, 0)
    losses = Genesis(GenesisRecipe(shuffled_blocks=50), backbone, CROP)(backbone, ct_B1XYZ, random)
    losses["total"].backward()
    assert all(math.isfinite(v.detach()) for v in losses.values())
    assert all(p.grad is not None for p in backbone.parameters())


def test_a_crop_without_room_for_margins_is_refused() -> None:
    backbone = build(UNetSizes(width=2, levels=3, norm="instance"), 1, 0)
    with pytest.raises(ValueError, match="choose 14 or more"):
        Genesis(GenesisRecipe(), backbone, (12, 16, 16))

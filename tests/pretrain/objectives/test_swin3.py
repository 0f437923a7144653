"""Inpainting, rotation and contrast, against loops that share nothing with them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.backbones import UNetSizes, build
from pretrain.heads import UpsamplingHead
from pretrain.objectives import swin3
from pretrain.objectives.swin3 import FIXED, OFFICIAL, Outputs, Swin3, Swin3Recipe, View
from pretrain.views import generators_of_items
from synth_ct.kit.recipe import changed

CROP = (16, 16, 16)
BACKBONE = build(UNetSizes(width=2, levels=3, norm="instance"), 1, 0)
PRESETS = pytest.mark.parametrize("recipe", [FIXED, OFFICIAL], ids=["fixed", "official"])


@pytest.fixture(name="ct_B1XYZ")
def some_crops(random: torch.Generator) -> torch.Tensor:
    return torch.rand(3, 1, *CROP, generator=random) * 2 - 1


@pytest.fixture
def example(random: torch.Generator) -> tuple[Outputs, View]:
    """Two crops, so four views, of 2 x 3 x 4 voxels."""
    shape = (4, 1, 2, 3, 4)
    whole = torch.rand(shape, generator=random) * 2 - 1
    replaced = torch.rand(shape, generator=random) < 0.4
    turns = torch.tensor([2, 0, 3, 1])
    outputs = Outputs(
        torch.randn(4, 4, generator=random),
        torch.randn(4, 5, generator=random),
        torch.rand(shape, generator=random),
    )
    return outputs, View(torch.where(replaced, 0.0, whole), whole, replaced, turns)


def by_loops(outputs: Outputs, both: View, masked: bool) -> dict[str, float]:
    """The three losses, voxel by voxel and anchor by anchor, in float64."""
    logits, z = outputs.turn_logits_AK.double().numpy(), outputs.embedding_AE.double().numpy()
    rotation = 0.0
    for row, turn in zip(logits, both.turns_B.tolist(), strict=True):
        rotation -= math.log(math.exp(row[turn]) / sum(math.exp(v) for v in row)) / 4
    contrast = 0.0
    for i, other in enumerate([2, 3, 0, 1]):
        near = {
            k: math.exp(z[i] @ z[k] / np.linalg.norm(z[i]) / np.linalg.norm(z[k]) / 0.5)
            for k in range(4)
            if k != i
        }
        contrast -= math.log(near[other] / sum(near.values())) / 4
    inpainting = 0.0
    for item in range(4):
        # as the public code sees them: in [0, 1]
        want = (both.whole_B1XYZ[item].double().numpy() + 1) / 2
        made = (outputs.reconstructed_A1XYZ[item].double().numpy() + 1) / 2
        counted = both.replaced_B1XYZ[item].numpy()
        apart = [
            abs(want[place] - made[place])
            for place in np.ndindex(want.shape)
            if counted[place] or not masked
        ]
        inpainting += sum(apart) / len(apart) / 4
    return {"inpainting": inpainting, "rotation": rotation, "contrastive": contrast}


@PRESETS
def test_the_losses_equal_loops(recipe: Swin3Recipe, example: tuple[Outputs, View]) -> None:
    ours = swin3.losses_of(recipe, *example)
    theirs = by_loops(*example, masked=recipe is FIXED)
    for name, value in theirs.items():
        assert float(ours[name]) == pytest.approx(value, rel=1e-5), name
    assert float(ours["total"]) == pytest.approx(sum(theirs.values()), rel=1e-5)


def test_fixed_charges_no_visible_voxel_and_official_does(example: tuple[Outputs, View]) -> None:
    outputs, both = example
    other = torch.where(both.replaced_B1XYZ, outputs.reconstructed_A1XYZ, 9.0)
    altered = outputs._replace(reconstructed_A1XYZ=other)
    for recipe, same in ((FIXED, True), (OFFICIAL, False)):
        before = swin3.losses_of(recipe, outputs, both)["inpainting"]
        assert torch.equal(swin3.losses_of(recipe, altered, both)["inpainting"], before) == same


def test_diagnostics_tell_chance_from_knowledge(example: tuple[Outputs, View]) -> None:
    outputs, both = example
    known = torch.nn.functional.one_hot(both.turns_B, 4).float()
    dead = outputs._replace(turn_logits_AK=known, embedding_AE=torch.ones(4, 5))
    losses = swin3.losses_of(FIXED, dead, both)
    assert float(losses["rotation_accuracy"]) == 1
    assert float(losses["contrastive_over_log_n"]) == pytest.approx(1, rel=1e-5)
    restored = outputs._replace(reconstructed_A1XYZ=both.whole_B1XYZ)
    assert float(swin3.losses_of(FIXED, restored, both)["masked_over_mean"]) == 0


def test_official_heads_see_the_first_two_tokens_and_fixed_ones_the_mean(
    random: torch.Generator,
) -> None:
    bottleneck = torch.randn(4, 16, 4, 4, 4, generator=random)
    corner, mean = Swin3(OFFICIAL, BACKBONE, CROP), Swin3(FIXED, BACKBONE, CROP)
    outputs = corner.outputs(bottleneck)
    assert torch.equal(outputs.turn_logits_AK, corner.rotation(bottleneck[:, :, 0, 0, 0]))
    assert torch.equal(outputs.embedding_AE, corner.contrast(bottleneck[:, :, 0, 0, 1]))
    outputs = mean.outputs(bottleneck)
    assert torch.equal(outputs.turn_logits_AK, mean.rotation(bottleneck.mean((2, 3, 4))))
    assert torch.equal(outputs.embedding_AE, mean.contrast(bottleneck.mean((2, 3, 4))))


def test_the_reconstruction_head_has_the_public_one_s_number_of_parameters() -> None:
    """Widths 768-384-192-96-48-48 at a stride of 32: 10.64 million."""
    with torch.device("meta"):
        head = UpsamplingHead(768, 32)
    assert sum(p.numel() for p in head.parameters()) == 10_638_385
    assert [m.out_channels for m in head.net if isinstance(m, torch.nn.Conv3d)] == [
        *(384, 192, 96, 48, 48),
        1,
    ]


# ---- views -------------------------------------------------------------------------------------


def test_fixed_views_replace_up_to_30_percent_and_the_rest_is_the_rotated_crop(
    ct_B1XYZ: torch.Tensor, random: torch.Generator
) -> None:
    before = ct_B1XYZ.clone()
    view = swin3.view_of(FIXED, ct_B1XYZ, generators_of_items(random, 3))
    assert torch.equal(ct_B1XYZ, before)
    share = view.replaced_B1XYZ.float().mean((1, 2, 3, 4))
    assert bool(((share > 0.2) & (share < 0.31)).all())
    assert torch.equal(
        view.seen_B1XYZ[~view.replaced_B1XYZ], view.whole_B1XYZ[~view.replaced_B1XYZ]
    )
    for item, turns in enumerate(view.turns_B.tolist()):
        assert torch.equal(view.whole_B1XYZ[item, 0], ct_B1XYZ[item, 0].rot90(turns, (0, 1)))
    assert float(view.seen_B1XYZ.abs().max()) <= 1


def test_fixed_views_do_not_depend_on_companions(ct_B1XYZ: torch.Tensor) -> None:
    def seen(ct: torch.Tensor) -> torch.Tensor:
        items = generators_of_items(torch.Generator().manual_seed(8), len(ct))
        return swin3.view_of(FIXED, ct, items).seen_B1XYZ

    alone, others = seen(ct_B1XYZ[:1]), torch.cat([ct_B1XYZ[:1], ct_B1XYZ[:2] * 0])
    assert torch.equal(seen(others)[0], alone[0])
    assert torch.equal(seen(ct_B1XYZ)[0], alone[0])


def test_official_views_hold_noise_and_voxels_of_other_items(random: torch.Generator) -> None:
    """Constant crops: what is neither an item's own value nor another's is noise."""
    value = torch.tensor([-0.91, 0.03, 0.97]).view(3, 1, 1, 1, 1)
    ct = value.expand(3, 1, *CROP).clone()
    pasted, noisy, most = 0, 0, 0.0
    for _ in range(6):
        view = swin3.view_of(OFFICIAL, ct, generators_of_items(random, 3))
        own, others = view.seen_B1XYZ == value, torch.isin(view.seen_B1XYZ, value.flatten())
        pasted += int((others & ~own).sum())
        noisy += int((~others).sum())
        assert bool(own[~view.replaced_B1XYZ].all())
        most = max(most, float(view.replaced_B1XYZ.float().mean((1, 2, 3, 4)).max()))
    assert pasted > 0
    assert noisy > 0
    assert 0.3 < most < 0.6


def test_both_views_of_a_crop_differ(ct_B1XYZ: torch.Tensor, random: torch.Generator) -> None:
    items = generators_of_items(random, 3)
    first, second = (swin3.view_of(FIXED, ct_B1XYZ, items) for _ in range(2))
    assert not torch.equal(first.replaced_B1XYZ, second.replaced_B1XYZ)


# ---- the whole ---------------------------------------------------------------------------------


@PRESETS
def test_a_step_reaches_every_head_and_the_encoder_alone(
    recipe: Swin3Recipe, ct_B1XYZ: torch.Tensor, random: torch.Generator
) -> None:
    objective = Swin3(recipe, BACKBONE, CROP)
    BACKBONE.zero_grad()
    losses = objective(BACKBONE, ct_B1XYZ, random)
    assert all(bool(torch.isfinite(v)) for v in losses.values())
    assert [n for n, v in losses.items() if v.requires_grad] == [
        *("total", "inpainting", "rotation", "contrastive"),
    ]
    losses["total"].backward()
    assert all(p.grad is not None for p in objective.parameters())
    learning = {n for n, p in BACKBONE.named_parameters() if p.grad is not None}
    assert learning == {n for n in BACKBONE.transferred("encoder") if n in learning}
    assert learning


def test_the_same_generator_gives_the_same_losses(ct_B1XYZ: torch.Tensor) -> None:
    objective = Swin3(OFFICIAL, BACKBONE, CROP)
    twice = [
        objective(BACKBONE, ct_B1XYZ, torch.Generator().manual_seed(4))["total"] for _ in range(2)
    ]
    assert torch.equal(*twice)


def test_one_crop_has_no_negatives(ct_B1XYZ: torch.Tensor, random: torch.Generator) -> None:
    with pytest.raises(ValueError, match="no negatives; raise micro_batch"):
        Swin3(FIXED, BACKBONE, CROP)(BACKBONE, ct_B1XYZ[:1], random)


def test_negatives_among_more_crops_than_there_are_is_refused(
    ct_B1XYZ: torch.Tensor, random: torch.Generator
) -> None:
    def losses(among: int) -> dict[str, torch.Tensor]:
        recipe = changed(FIXED, negatives_among=among)
        return Swin3(recipe, BACKBONE, CROP)(BACKBONE, ct_B1XYZ, random)

    assert losses(3)
    with pytest.raises(ValueError, match="negatives_among is 6 crops, but 1 process holds 3"):
        losses(6)


def test_two_processes_may_share_negatives_or_keep_to_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(swin3.ranks, "world", lambda: (0, 2))
    for among in (None, 3, 6):
        swin3._demand_negatives(changed(FIXED, negatives_among=among), 3)
    swin3._demand_negatives(changed(FIXED, negatives_among=2), 1)
    with pytest.raises(ValueError, match="5 crops, but 2 processes hold 6"):
        swin3._demand_negatives(changed(FIXED, negatives_among=5), 3)


def test_a_crop_that_is_not_square_across_the_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="square across it, not 32 x 16"):
        Swin3(FIXED, BACKBONE, (32, 16, 16))
    assert Swin3(OFFICIAL, BACKBONE, (32, 16, 16))
    with pytest.raises(ValueError, match="multiple of 4"):
        Swin3(FIXED, BACKBONE, (18, 18, 16))
    with pytest.raises(ValueError, match="too small"):
        Swin3(FIXED, BACKBONE, (4, 4, 4))


def test_every_field_in_which_the_presets_differ_has_a_row_of_the_fidelity_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "fidelity.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| W")]
    for field in Swin3Recipe.model_fields:
        ours, theirs = getattr(FIXED, field), getattr(OFFICIAL, field)
        if ours != theirs:
            row = next(r for r in rows if f"`{field}`" in r)
            assert f"`{ours}`" in row
            assert f"`{theirs}`" in row

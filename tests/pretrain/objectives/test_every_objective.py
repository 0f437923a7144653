"""What holds of each objective on both backbones."""

import pytest
import torch

from pretrain.backbones import SwinSizes, UNetSizes, build
from pretrain.objectives import (
    OBJECTIVES,
    build_objective,
    decoder_used,
    genesis,
    out_channels,
    swin3,
    volume_fusion,
)
from pretrain.objectives.genesis import GenesisRecipe
from pretrain.objectives.mae import MaeRecipe
from pretrain.objectives.swin3 import FIXED, OFFICIAL, Swin3Recipe
from pretrain.objectives.volume_fusion import VolumeFusionRecipe
from pretrain.views import generators_of_items

AnyObjective = Swin3Recipe | MaeRecipe | GenesisRecipe | VolumeFusionRecipe
EVERY: list[AnyObjective] = [
    FIXED,
    OFFICIAL,
    MaeRecipe(),
    GenesisRecipe(shuffled_blocks=50),
    VolumeFusionRecipe(),
]


def test_each_objective_has_its_name() -> None:
    assert {recipe.kind for recipe in EVERY} == set(OBJECTIVES)


def test_swin3_alone_leaves_the_decoder_as_it_was() -> None:
    assert [decoder_used(recipe) for recipe in EVERY] == [False, False, True, True, True]
    assert not decoder_used(MaeRecipe(decoder="head"))
    assert [out_channels(recipe) for recipe in EVERY] == [1, 1, 1, 1, 5]


def test_heads_depend_on_the_seed_alone() -> None:
    backbone = build(UNetSizes(width=2, levels=3), 1, 0)
    before = torch.random.get_rng_state()
    heads = [
        build_objective(FIXED, backbone, (16, 16, 16), seed).state_dict() for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(heads[0]["rotation.weight"], heads[1]["rotation.weight"])
    assert not torch.equal(heads[0]["rotation.weight"], heads[2]["rotation.weight"])


@pytest.mark.parametrize("recipe", EVERY, ids=lambda r: "official" if r is OFFICIAL else r.kind)
def test_a_tiny_swin_takes_a_step(recipe: AnyObjective, random: torch.Generator) -> None:
    sizes = SwinSizes(feature_size=12, depths=(1, 1, 1, 1), window=4)
    backbone = build(sizes, out_channels(recipe), 0)
    crop = (32, 32, 64) if recipe is not OFFICIAL else (64, 32, 32)
    objective = build_objective(recipe, backbone, crop, 0)
    ct_B1XYZ = torch.rand(2, 1, *crop, generator=random) * 2 - 1
    before = ct_B1XYZ.clone()
    losses = objective(backbone, ct_B1XYZ, random)
    losses["total"].backward()
    assert all(bool(torch.isfinite(v)) and v.numel() == 1 for v in losses.values())
    assert float(losses["feature_sd"]) > 0
    assert torch.equal(ct_B1XYZ, before)
    learning = {n for n, p in backbone.named_parameters() if p.grad is not None}
    assert learning >= {n for n, _ in backbone.named_parameters() if n.startswith(backbone.encoder)}
    assert any(n.startswith(backbone.head) for n in learning) == decoder_used(recipe)


def test_views_do_not_depend_on_mixed_precision(random: torch.Generator) -> None:
    ct_B1XYZ = torch.rand(3, 1, 16, 16, 16, generator=random) * 2 - 1

    def seen() -> list[torch.Tensor]:
        items = [generators_of_items(torch.Generator().manual_seed(n), 3) for n in range(4)]
        return [
            swin3.view_of(FIXED, ct_B1XYZ, items[0]).seen_B1XYZ,
            swin3.view_of(OFFICIAL, ct_B1XYZ, items[1]).seen_B1XYZ,
            genesis.deformed(GenesisRecipe(shuffled_blocks=50), ct_B1XYZ, items[2]),
            volume_fusion.fused(VolumeFusionRecipe(), ct_B1XYZ, items[3]).ct_B1XYZ,
        ]

    plain = seen()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = seen()
    for one, other in zip(plain, mixed, strict=True):
        assert torch.equal(one, other)

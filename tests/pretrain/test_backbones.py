"""Both backbones, as everybody else sees them."""

import pytest
import torch
from pretrain_tiny import CROP, SWIN, UNET
from pydantic import TypeAdapter

from pretrain.backbones import BackboneSizes, SwinSizes, UNetSizes, build
from synth_ct.kit.recipe import changed

BOTH = pytest.mark.parametrize("sizes", [SWIN, UNET], ids=lambda sizes: sizes.kind)


def count(tensors: object) -> int:
    return sum(tensor.numel() for tensor in tensors)  # type: ignore[attr-defined]


@BOTH
def test_maps_and_output_are_as_large_as_the_backbone_says(
    sizes: SwinSizes | UNetSizes, random: torch.Generator
) -> None:
    backbone = build(sizes, 3, 0)
    ct_B1XYZ = torch.rand((2, 1, *CROP), generator=random)
    with torch.no_grad():
        maps = backbone.encode(ct_B1XYZ)
        out_BCXYZ = backbone(ct_B1XYZ)
    assert out_BCXYZ.shape == (2, 3, *CROP)
    assert tuple(m.shape[1] for m in maps) == backbone.channels
    assert [tuple(m.shape[2:]) for m in maps] == [
        tuple(side // stride for side in CROP) for stride in backbone.strides
    ]


@BOTH
def test_initial_weights_come_from_the_seed_alone(sizes: SwinSizes | UNetSizes) -> None:
    torch.manual_seed(1)
    first = build(sizes, 1, 7).state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again, other = build(sizes, 1, 7).state_dict(), build(sizes, 1, 8).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@BOTH
def test_what_is_asked_of_the_output_changes_the_head_alone(sizes: SwinSizes | UNetSizes) -> None:
    one, many = build(sizes, 1, 0), build(sizes, 14, 0)
    alike = [k for k, t in one.state_dict().items() if torch.equal(t, many.state_dict()[k])]
    assert tuple(alike) == one.transferred("all_but_head")


@BOTH
def test_the_encoder_is_what_its_maps_depend_on(
    sizes: SwinSizes | UNetSizes, random: torch.Generator
) -> None:
    backbone = build(sizes, 1, 0)
    keys = set(backbone.transferred("encoder"))
    parameters = dict(backbone.named_parameters())
    ct_B1XYZ = torch.rand((2, 1, *CROP), generator=random)
    sum(m.square().mean() for m in backbone.encode(ct_B1XYZ)).backward()  # type: ignore[union-attr]
    reached = {name for name, parameter in parameters.items() if parameter.grad is not None}
    assert reached == keys & parameters.keys()
    assert keys < set(backbone.transferred("all_but_head")) < backbone.state_dict().keys()


@BOTH
@pytest.mark.parametrize("side", [0, 33, 48 + 2])
def test_sides_that_cannot_be_halved_often_enough_are_refused(
    sizes: SwinSizes | UNetSizes, side: int
) -> None:
    backbone = build(sizes, 1, 0)
    with pytest.raises(ValueError, match=f"multiple of {backbone.multiple}"):
        backbone.demand_sides((64, side, 32))


@BOTH
def test_one_voxel_at_the_bottleneck_is_refused_and_two_are_enough(
    sizes: SwinSizes | UNetSizes,
) -> None:
    backbone = build(sizes, 1, 0)
    side = backbone.least_side
    with pytest.raises(ValueError, match="leaves one voxel"):
        backbone.encode(torch.zeros(2, 1, side, side, side))
    backbone.encode(torch.zeros(2, 1, 2 * side, side, side))


def test_a_written_architecture_is_read_as_the_same_one() -> None:
    reader = TypeAdapter(BackboneSizes)
    for sizes in (SwinSizes(), UNetSizes(), SWIN, UNET):
        assert reader.validate_json(sizes.model_dump_json()) == sizes


def test_heads_that_cannot_share_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="5 heads cannot share"):
        changed(SWIN, heads=(1, 1, 5, 2))
    with pytest.raises(ValueError, match="1 block or more"):
        changed(SWIN, depths=(1, 0, 1, 1))


@pytest.mark.parametrize(
    ("sizes", "whole", "encoder"),
    [(SwinSizes(), 62_187_296, 8_062_002), (UNetSizes(), 19_074_510, 7_027_776)],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_published_sizes_have_their_published_number_of_parameters(
    sizes: SwinSizes | UNetSizes, whole: int, encoder: int
) -> None:
    backbone = build(sizes, 14, 0)
    parameters = dict(backbone.named_parameters())
    keys = parameters.keys() & set(backbone.transferred("encoder"))
    assert count(parameters.values()) == whole
    assert count(parameters[key] for key in keys) == encoder

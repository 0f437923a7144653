"""Swin UNETR: MONAI's network, MONAI's keys, a fused attention that changes nothing."""

import copy

import pytest
import torch
from monai.networks.nets import SwinUNETR
from monai.networks.nets.swin_unetr import SwinTransformerBlock, WindowAttention, compute_mask
from pretrain_tiny import CROP, SWIN, trained
from torch import Tensor, nn

from pretrain.backbones import SwinSizes, build
from pretrain.swin import MERGINGS, FusedWindowAttention, PatchMergingOrder, fuse_windows
from synth_ct.kit.recipe import changed

ORDERS: dict[PatchMergingOrder, list[str]] = {
    "legacy": ["000", "100", "010", "001", "101", "010", "001", "111"],
    "monai": ["000", "100", "010", "001", "110", "101", "011", "111"],
    "v2": ["000", "001", "010", "011", "100", "101", "110", "111"],
}


def monais(sizes: SwinSizes, out_channels: int) -> SwinUNETR:
    return SwinUNETR(
        in_channels=1,
        out_channels=out_channels,
        feature_size=sizes.feature_size,
        depths=sizes.depths,
        num_heads=sizes.heads,
        window_size=sizes.window,
        downsample=MERGINGS[sizes.patch_merging],
    )


def test_it_is_monais_network_by_keys_and_by_output(random: torch.Generator) -> None:
    ours = trained(SWIN)
    theirs = monais(SWIN, 1)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ct_B1XYZ = torch.rand((1, 1, *CROP), generator=random)
    with torch.no_grad():
        assert torch.equal(ours(ct_B1XYZ), theirs(ct_B1XYZ))


# ---- patch merging -----------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(ORDERS))
def test_sub_voxels_are_merged_in_the_order_recorded(order: PatchMergingOrder) -> None:
    """Eight voxels numbered 0 to 7 by their place x y z, and a merging that only shows them."""
    merging = MERGINGS[order](dim=1, norm_layer=nn.LayerNorm, spatial_dims=3)  # type: ignore[call-arg]
    merging.norm = merging.reduction = nn.Identity()
    place_BXYZC = torch.arange(8.0).reshape(1, 2, 2, 2, 1)
    assert [f"{int(p):03b}" for p in merging(place_BXYZC).flatten()] == ORDERS[order]


def test_a_side_that_is_odd_is_padded_at_its_end_as_monai_does() -> None:
    x_BXYZC = torch.rand(1, 3, 4, 5, 2)
    shapes = {o: MERGINGS[o](dim=2)(x_BXYZC).shape for o in ORDERS}  # type: ignore[call-arg]
    assert set(shapes.values()) == {torch.Size((1, 2, 2, 3, 4))}


def test_the_order_changes_the_output_of_the_same_weights(random: torch.Generator) -> None:
    """What nobody is told by keys and shapes, which are the same."""
    ct_B1XYZ = torch.rand((1, 1, *CROP), generator=random)
    weights = trained(SWIN).state_dict()
    found = {}
    for order in ORDERS:
        backbone = build(changed(SWIN, patch_merging=order), 1, 0)
        backbone.load_state_dict(weights, strict=True)
        with torch.no_grad():
            found[order] = backbone.encode(ct_B1XYZ)[-1]
    assert not torch.allclose(found["legacy"], found["monai"], atol=1e-3)
    assert not torch.allclose(found["v2"], found["monai"], atol=1e-3)


# ---- attention ---------------------------------------------------------------------------------


def both_attentions() -> tuple[WindowAttention, FusedWindowAttention]:
    torch.manual_seed(0)
    plain = WindowAttention(dim=12, num_heads=3, window_size=(3, 3, 3), qkv_bias=True).double()
    nn.init.normal_(plain.relative_position_bias_table)
    fused = FusedWindowAttention(12, 3, (3, 3, 3), True).double()
    fused.load_state_dict(plain.state_dict())
    return plain, fused


def gradients(attention: WindowAttention, x_WNC: Tensor, mask: Tensor | None) -> list[Tensor]:
    x_WNC = x_WNC.clone().requires_grad_()
    y_WNC = attention(x_WNC, mask)
    y_WNC.square().sum().backward()
    assert x_WNC.grad is not None
    return [y_WNC.detach(), x_WNC.grad, *(p.grad for p in attention.parameters())]


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("tokens", [27, 8])
def test_fused_windows_are_exact_forwards_and_backwards(
    samples: int, shifted: bool, tokens: int, random: torch.Generator
) -> None:
    """`tokens` 8: windows that were cut down to a small map."""
    plain, fused = both_attentions()
    side = round(tokens ** (1 / 3))
    mask = compute_mask([2 * side] * 3, (side,) * 3, (1,) * 3, "cpu").double() if shifted else None
    x_WNC = torch.randn((samples * 8, tokens, 12), generator=random, dtype=torch.float64)
    for wanted, found in zip(
        gradients(plain, x_WNC, mask), gradients(fused, x_WNC, mask), strict=True
    ):
        assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-11)


def test_a_shifted_network_is_the_same_with_fused_windows(random: torch.Generator) -> None:
    """Depth 2 in the first stage: its second block is shifted, and masked."""
    sizes = changed(SWIN, depths=(2, 1, 1, 1))
    plain = trained(sizes).double()
    fused = copy.deepcopy(plain)
    fuse_windows(fused)
    fused.double()
    kinds = [type(m.attn) for m in fused.modules() if isinstance(m, SwinTransformerBlock)]
    assert kinds == [FusedWindowAttention] * 5
    ct_B1XYZ = torch.rand((1, 1, 32, 32, 64), generator=random, dtype=torch.float64)
    with torch.no_grad():
        for wanted, found in zip(plain.encode(ct_B1XYZ), fused.encode(ct_B1XYZ), strict=True):
            assert torch.allclose(wanted, found, rtol=1e-9, atol=1e-11)


def test_fusing_is_asked_of_build_and_leaves_the_initial_weights_alone() -> None:
    plain, fused = build(SWIN, 1, 3), build(SWIN, 1, 3, fused_windows=True)
    assert plain.state_dict().keys() == fused.state_dict().keys()
    assert all(torch.equal(t, fused.state_dict()[k]) for k, t in plain.state_dict().items())
    assert any(isinstance(m, FusedWindowAttention) for m in fused.modules())
    assert not any(isinstance(m, FusedWindowAttention) for m in plain.modules())

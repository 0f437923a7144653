"""The autoencoder: the paper's size, a quarter of the voxels a side, the same codes anywhere."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from synth_ct.models.autoencoder import Autoencoder, AutoencoderSizes, Folded, Subvoxels
from synth_ct.models.quantizers import QuantiserSizes

KINDS = ("homogeneous", "plain", "fsq", "kl")


def small(kind: str = "homogeneous", **changes: Any) -> Autoencoder:
    quantiser = QuantiserSizes(kind=kind, codes=32, levels=(5, 5, 5, 5))  # type: ignore[arg-type]
    settings: dict[str, Any] = {"channels": (8, 16, 16), "blocks": 1, "bottleneck": None}
    settings |= {"latent_channels": 4, "quantiser": quantiser}
    torch.manual_seed(0)
    return Autoencoder(AutoencoderSizes(**(settings | changes))).eval()


def gigaflops(module: nn.Module, *shape: int) -> float:
    """Two for each multiplication with its addition."""
    with FlopCounterMode(display=False) as counter:
        module(torch.empty(1, *shape, device="meta"))
    return float(counter.get_total_flops() / 1e9)


def of_meta(**changes: Any) -> Autoencoder:
    with torch.device("meta"):
        return Autoencoder(AutoencoderSizes(**changes))


def millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_the_defaults_have_the_papers_size_and_cost() -> None:
    paper = of_meta()
    assert millions(paper.encoder) == pytest.approx(2.115, abs=5e-4)
    assert millions(paper.decoder) == pytest.approx(5.201, abs=5e-4)
    assert gigaflops(paper.encoder, 1, 128, 128, 128) == pytest.approx(780.8, abs=0.1)
    assert gigaflops(paper.decoder, 8, 32, 32, 32) == pytest.approx(2829.5, abs=0.1)


def test_the_super_resolution_module_costs_what_the_papers_table_says() -> None:
    with_it, without = of_meta(), of_meta(super_resolution="none")
    assert millions(with_it) - millions(without) == pytest.approx(0.554, abs=1e-3)
    z = (8, 32, 32, 32)
    macs = (gigaflops(with_it.decoder, *z) - gigaflops(without.decoder, *z)) / 2
    assert macs == pytest.approx(348, abs=1)


def test_channels_reduced_before_upsampling_halve_the_decoder() -> None:
    z = (8, 32, 32, 32)
    slim = gigaflops(of_meta(reduce_first=True).decoder, *z)
    assert 2829.5 / slim == pytest.approx(2.15, abs=0.01)


@pytest.mark.parametrize("super_resolution", ["none", "residual", "subpixel"])
@pytest.mark.parametrize("own", [False, True])
def test_each_decoder_gives_back_the_voxels_that_went_in(super_resolution: str, own: bool) -> None:
    model = small(super_resolution=super_resolution, reduce_first=own, normalise_ends=not own)
    ct = torch.rand(2, 1, 8, 12, 16)
    assert model.embed(ct).shape == (2, 4, 2, 3, 4)
    assert model(ct).ct_B1XYZ.shape == ct.shape


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_embedded_decodes_to_the_reconstruction(kind: str) -> None:
    model = small(kind)
    ct = 2 * torch.rand(2, 1, 16, 16, 16) - 1
    torch.testing.assert_close(model.decode(model.embed(ct)), model(ct).ct_B1XYZ)


def test_a_shifted_body_has_shifted_codes() -> None:
    model, side = small("plain"), 88  # what a code sees of the body, 19 voxels on, ends before
    body = torch.full((1, 1, side, side, side), -1.0)  # what it sees of the border begins
    body[..., 42:46, 41:47, 43:45] = torch.rand(4, 6, 2)
    shifted = body.roll((4, 0, -4), (2, 3, 4))
    here, there = model.embed(torch.cat([body, shifted]))
    inner = (..., slice(6, 16), slice(6, 16), slice(6, 16))
    expected = here.roll((1, 0, -1), (1, 2, 3))[inner]
    torch.testing.assert_close(there[inner], expected, atol=1e-4, rtol=1e-4)
    assert (there[inner] - here[inner]).abs().max() > 0.01


def test_the_reconstruction_teaches_the_encoder() -> None:
    model = small("plain").train()
    out = model(torch.rand(2, 1, 8, 8, 8))
    out.ct_B1XYZ.square().mean().backward()
    first = next(model.encoder.parameters())
    assert first.grad is not None
    assert first.grad.abs().max() > 0


@pytest.mark.parametrize("super_resolution", ["residual", "subpixel"])
def test_the_last_weight_makes_the_voxels(super_resolution: str) -> None:
    model = small(super_resolution=super_resolution)
    ct = torch.rand(2, 1, 8, 8, 8)
    before = model(ct).ct_B1XYZ
    with torch.no_grad():
        model.last_weight.zero_()
    after = model(ct).ct_B1XYZ
    assert before.std() > 0
    assert after.unique().numel() <= 8  # the bias is all that is left
    assert after.unique().numel() < before.unique().numel()


def test_the_first_haar_coefficient_is_the_mean_of_its_cube() -> None:
    x = torch.rand(2, 1, 4, 6, 8)
    means = torch.nn.functional.avg_pool3d(x, 2)
    torch.testing.assert_close(Folded(haar=True)(x)[:, :1] / 8**0.5, means)


def test_subvoxels_lie_inside_their_voxel() -> None:
    x = torch.arange(8.0).reshape(1, 8, 1, 1, 1) + 10 * torch.arange(2.0).reshape(1, 1, 2, 1, 1)
    fine = Subvoxels(haar=False)(x)
    assert fine.shape == (1, 1, 4, 2, 2)
    assert fine[0, 0, :2].flatten().tolist() == list(range(8))
    assert fine[0, 0, 2:].flatten().tolist() == list(range(10, 18))


def test_ends_without_norm_start_by_passing_grey_levels_on() -> None:
    wide: dict[str, Any] = {"channels": (8,), "fold": 1, "latent_channels": 8}
    model = small("kl", normalise_ends=False, **wide)
    ct = 2 * torch.rand(2, 1, 16, 16, 16) - 1
    h = model.encoder(ct)
    torch.testing.assert_close(h.square().sum(), ct.square().sum(), rtol=0.15, atol=0)
    assert small("kl", **wide).encoder(ct).square().sum() < 0.5 * ct.square().sum()


@pytest.mark.parametrize("fold", [1, 2])
def test_folding_takes_the_place_of_levels(fold: int) -> None:
    model = small(channels=(8, 16, 16)[fold:], fold=fold)
    ct = torch.rand(2, 1, 8, 12, 16)
    assert model.downsampling == 4
    assert model.embed(ct).shape == (2, 4, 2, 3, 4)
    assert model(ct).ct_B1XYZ.shape == ct.shape


@pytest.mark.parametrize("haar", [False, True])
def test_folding_undoes_subvoxels(haar: bool) -> None:
    x = torch.rand(2, 16, 3, 4, 5)
    torch.testing.assert_close(Folded(haar)(Subvoxels(haar)(x)), x)


def test_a_volume_that_cannot_be_halved_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        small().embed(torch.zeros(2, 1, 8, 8, 10))


def test_channels_that_do_not_fall_into_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="groups"):
        AutoencoderSizes(channels=(12, 24))

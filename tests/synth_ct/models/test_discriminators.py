import math

import pytest
import torch
from torch import nn

from synth_ct.models.discriminators import (
    AdversarialForm,
    SliceDiscriminator,
    VolumeDiscriminator,
    adversarial_loss,
    generator_loss,
    random_slices,
)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_paper_s_sizes() -> None:
    with torch.device("meta"):
        assert round(parameters(SliceDiscriminator()) / 1e6, 3) == 2.764
        assert round(parameters(VolumeDiscriminator()) / 1e6, 3) == 11.049


def test_a_patch_s_score_depends_on_nothing_far_away_and_on_no_companion() -> None:
    net = SliceDiscriminator(width=8).eval()
    slices_N1HW = torch.randn(3, 1, 64, 64)
    scores = net(slices_N1HW)
    assert scores.shape == (3, 1, 6, 6)  # patches, not one verdict
    torch.testing.assert_close(net(slices_N1HW[1:2]), scores[1:2], rtol=1e-4, atol=1e-6)


def test_volumes_are_scored_by_patches_too() -> None:
    scores = VolumeDiscriminator(width=8)(torch.randn(2, 1, 32, 32, 32))
    assert scores.shape == (2, 1, 2, 2, 2)


SCORES = torch.tensor([-2.0, 0.5, 3.0])


@pytest.mark.parametrize(
    ("form", "real", "expected"),
    [
        ("hinge", True, (3 + 0.5 + 0) / 3),
        ("hinge", False, (0 + 1.5 + 4) / 3),
        ("log", True, sum(math.log(1 + math.exp(-s)) for s in (-2, 0.5, 3)) / 3),
        ("log", False, sum(-math.log(1 - 1 / (1 + math.exp(-s))) for s in (-2, 0.5, 3)) / 3),
    ],
)
def test_the_discriminator_s_loss_by_hand(
    form: AdversarialForm, real: bool, expected: float
) -> None:
    assert adversarial_loss(form, SCORES, real).item() == pytest.approx(expected, rel=1e-5)


def test_the_generator_s_loss_by_hand() -> None:
    assert generator_loss("hinge", SCORES).item() == pytest.approx(-0.5)
    expected = sum(-math.log(1 / (1 + math.exp(-s))) for s in (-2, 0.5, 3)) / 3
    assert generator_loss("log", SCORES).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("form", ["log", "hinge"])
def test_far_scores_give_finite_losses(form: AdversarialForm) -> None:
    far = torch.tensor([-1e4, 1e4], requires_grad=True)
    total = adversarial_loss(form, far, True) + adversarial_loss(form, far, False)
    (total + generator_loss(form, far)).backward()
    assert far.grad is not None
    assert far.grad.isfinite().all()


def test_slices_come_from_all_three_planes_of_every_volume(random: torch.Generator) -> None:
    """Voxels say where they are: a slice is constant in the coordinate it was cut across."""
    axes = torch.meshgrid(*[torch.arange(8.0)] * 3, indexing="ij")
    where_BCXYZ = torch.stack([torch.stack([*axes, torch.full_like(axes[0], b)]) for b in (0, 1)])
    slices = random_slices(where_BCXYZ, 5, random)
    assert slices.shape == (3 * 2 * 5, 4, 8, 8)
    cut_across = slices[:, :3].flatten(2).std(2).eq(0)
    assert cut_across.sum(1).eq(1).all()
    assert cut_across.sum(0).tolist() == [10, 10, 10]
    assert slices[:, 3, 0, 0].tolist() == ([0.0] * 5 + [1.0] * 5) * 3
    places = slices[:, :3, 0, 0][cut_across]
    assert len(places.unique()) > 4


def test_slices_pass_gradients_and_follow_their_generator(random: torch.Generator) -> None:
    ct_B1XYZ = torch.randn(2, 1, 8, 8, 8, requires_grad=True)
    slices = random_slices(ct_B1XYZ, 2, random)
    again = random_slices(ct_B1XYZ, 2, torch.Generator().manual_seed(0))
    assert torch.equal(slices, again)
    slices.sum().backward()
    assert ct_B1XYZ.grad is not None
    assert ct_B1XYZ.grad.sum() == slices.numel()

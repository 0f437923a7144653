"""Patch discriminators of slices and of volumes, and their losses (Eq. 3).

GroupNorm stands where the PatchGAN has BatchNorm: an item's scores depend on no companion, and
a batch of one is enough. The number of parameters is the same.

    log:    D: -log s(D(x)) - log(1 - s(D(y)))           G: -log s(D(y))
    hinge:  D: max(0, 1 - D(x)) + max(0, 1 + D(y))       G: -D(y)

with x real, y generated, s the sigmoid; means over patches. In the log form the generator ascends
log s(D(y)) instead of descending log(1 - s(D(y))): the same goal, with a gradient where it loses.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from synth_ct.models.blocks import CONV, Dims, group_norm

AdversarialForm = Literal["log", "hinge"]
WIDEST = 8
"""Channels grow up to this many times the first layer's."""


def patch_layers(
    dims: Dims, width: int, layers: int, norm: Callable[[int], nn.Module] = group_norm
) -> nn.Sequential:
    """Convolutions 4 wide: `layers` with stride 2, one with stride 1, one to a score per patch."""
    conv = CONV[dims]
    parts: list[nn.Module] = [conv(1, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    channels = width
    for layer in range(1, layers + 1):
        wider = width * min(2**layer, WIDEST)
        stride = 2 if layer < layers else 1
        parts.append(conv(channels, wider, 4, stride=stride, padding=1, bias=False))
        parts += [norm(wider), nn.LeakyReLU(0.2)]
        channels = wider
    return nn.Sequential(*parts, conv(channels, 1, 4, padding=1)).apply(_small_weights)


def _small_weights(module: nn.Module) -> None:
    """Weights from N(0, 0.02^2), as is usual for a GAN: scores begin near 0."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class SliceDiscriminator(nn.Module):
    """Scores patches of slices."""

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.net = patch_layers(2, width, layers)

    def forward(self, slices_N1HW: Tensor) -> Tensor:
        """One score a patch, N1hw: positive where it seems real."""
        scores_N1HW: Tensor = self.net(slices_N1HW)
        return scores_N1HW


class VolumeDiscriminator(nn.Module):
    """Scores patches of volumes."""

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.net = patch_layers(3, width, layers)

    def forward(self, ct_B1XYZ: Tensor) -> Tensor:
        """One score a patch, B1xyz: positive where it seems real."""
        scores_B1XYZ: Tensor = self.net(ct_B1XYZ)
        return scores_B1XYZ


def adversarial_loss(form: AdversarialForm, scores: Tensor, real: bool) -> Tensor:
    """What the discriminator pays for the scores of real, or of generated, patches."""
    signed = scores if real else -scores
    if form == "hinge":
        return functional.relu(1 - signed).mean()
    return functional.softplus(-signed).mean()  # -log s(t) = log(1 + exp(-t))


def generator_loss(form: AdversarialForm, scores: Tensor) -> Tensor:
    """What the generator pays for the scores of its patches."""
    if form == "hinge":
        return -scores.mean()
    return functional.softplus(-scores).mean()


def random_slices(ct_BCXYZ: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` slices of each plane of each cubic volume, at random places: 3 B count of them.

    Volumes that are to be compared go in as channels, and are cut at the same places.
    """
    batch, _, *sides = ct_BCXYZ.shape
    assert len(set(sides)) == 1, f"slices of three planes stack only if cubic, not {sides}"
    places_3BS = torch.randint(sides[0], (3, batch, count), generator=generator)
    places_3BS = places_3BS.to(ct_BCXYZ.device)
    items_B1 = torch.arange(batch, device=ct_BCXYZ.device)[:, None]
    cuts = [
        ct_BCXYZ.movedim(2 + axis, 1)[items_B1, places_3BS[axis]].flatten(0, 1) for axis in range(3)
    ]
    return torch.cat(cuts)

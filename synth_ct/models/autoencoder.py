"""The autoencoder: a CT to a latent a quarter as large a side, and back.

The defaults are the paper's: 7.3 million parameters. Other recipes may take the channels down
before each upsampling (`reduce_first`), which halves the decoder's work.
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from synth_ct.kit.recipe import Recipe
from synth_ct.models.blocks import ResidualBlock, conv3, group_norm
from synth_ct.models.quantizers import Latent, QuantiserSizes, build_quantiser

SuperResolution = Literal["none", "residual", "subpixel"]


class AutoencoderSizes(Recipe):
    """How large and of which kind."""

    channels: tuple[int, ...] = (32, 64, 128)
    """One a level, finest first; each level after the first halves the voxels a side."""
    blocks: int = Field(default=2, ge=1)
    """Residual blocks a level of the encoder; the decoder has one more."""
    latent_channels: int = Field(default=8, ge=1)
    bottleneck: int | None = Field(default=4, ge=1)
    """Channels between encoder and latent, and between latent and decoder. None: none between."""
    quantiser: QuantiserSizes = QuantiserSizes(kind="homogeneous")
    super_resolution: SuperResolution = "residual"
    """After each trilinear upsampling: a convolution | a residual block. `subpixel`: the finest
    level works at half the resolution, and the last convolution makes eight voxels of each."""
    fold: int = Field(default=0, ge=0)
    """Halvings before the first level and doublings after the last that cost next to nothing: each
    makes eight voxels the channels of one, or back."""
    normalise_ends: bool = True
    """Norm and SiLU around the latent and before the voxels. Without, a linear path leads from
    voxels to latent and back, which starts as orthogonal maps beside small residual branches: grey
    levels pass unscaled from the first step. What is folded are then Haar coefficients: each has
    a size of its own, to which Adam can adapt."""
    reduce_first: bool = False
    """A level's first block, which takes the channels down, before the upsampling, not after."""
    groups: int = Field(default=8, ge=1)

    @property
    def embedded_channels(self) -> int:
        """Of what `embed` gives: what a diffusion sees."""
        fsq = self.quantiser.kind == "fsq"
        return len(self.quantiser.levels) if fsq else self.latent_channels

    @property
    def downsampling(self) -> int:
        """Voxels a side that one of the latent stands for."""
        return int(2 ** (len(self.channels) - 1 + self.fold))

    @model_validator(mode="after")
    def _relations(self) -> "AutoencoderSizes":
        odd = [c for c in self.channels if c % self.groups]
        if not self.channels or odd:
            raise ValueError(
                f"channels {self.channels} cannot be normalised in {self.groups} groups; "
                "give one or more levels, each a multiple of groups"
            )
        if self.super_resolution == "subpixel" and len(self.channels) < 2:
            raise ValueError("subpixel replaces the last of the upsamplings: give two levels")
        return self


class Reconstruction(NamedTuple):
    """What one pass through encoder, quantiser and decoder leaves."""

    ct_B1XYZ: Tensor
    latent: Latent


class Autoencoder(nn.Module):
    """Encoder, quantiser, decoder."""

    def __init__(self, sizes: AutoencoderSizes) -> None:
        super().__init__()
        self.encoder = _encoder(sizes)
        self.quantiser = build_quantiser(sizes.quantiser, sizes.latent_channels)
        self.decoder = _decoder(sizes)
        if not sizes.normalise_ends:
            for part in (self.encoder, self.decoder):
                part.apply(_started_small)
                _start_orthogonal(part)
        self.downsampling = sizes.downsampling

    def forward(self, ct_B1XYZ: Tensor, generator: torch.Generator | None = None) -> Reconstruction:
        """The training path; the gradient of the reconstruction reaches the encoder."""
        latent: Latent = self.quantiser(self._encoded(ct_B1XYZ), generator)
        return Reconstruction(self.decoder(latent.z_BCXYZ), latent)

    def embed(self, ct_B1XYZ: Tensor) -> Tensor:
        """The continuous latent z_BCXYZ that a diffusion learns."""
        z_BCXYZ: Tensor = self.quantiser.embed(self._encoded(ct_B1XYZ))
        return z_BCXYZ

    def decode(self, z_BCXYZ: Tensor) -> Tensor:
        """The ct_B1XYZ of a latent, its values first taken to the nearest codes."""
        ct_B1XYZ: Tensor = self.decoder(self.quantiser.snap(z_BCXYZ))
        return ct_B1XYZ

    @property
    def last_weight(self) -> nn.Parameter:
        """Where the gradients of two losses are compared by their length."""
        last = next(m for m in reversed(list(self.decoder.modules())) if isinstance(m, nn.Conv3d))
        assert isinstance(last.weight, nn.Parameter)
        return last.weight

    def _encoded(self, ct_B1XYZ: Tensor) -> Tensor:
        if any(voxels % self.downsampling for voxels in ct_B1XYZ.shape[2:]):
            raise ValueError(
                f"a volume of {tuple(ct_B1XYZ.shape[2:])} voxels cannot be halved to a latent "
                f"{self.downsampling} times smaller; crop or resample to a multiple of it"
            )
        h_BCXYZ: Tensor = self.encoder(ct_B1XYZ)
        return h_BCXYZ


# ---- encoder -----------------------------------------------------------------------------------


def _encoder(sizes: AutoencoderSizes) -> nn.Sequential:
    """CT -> h_BCXYZ: levels of residual blocks, a strided convolution between two levels."""
    now = sizes.channels[0]
    layers: list[nn.Module] = [Folded(haar=not sizes.normalise_ends) for _ in range(sizes.fold)]
    layers.append(conv3(3, 8**sizes.fold, now))
    for level, channels in enumerate(sizes.channels):
        if level:
            layers.append(nn.Conv3d(now, now, kernel_size=2, stride=2))
        layers += _blocks(now, channels, sizes.blocks, sizes.groups)
        now = channels
    return nn.Sequential(*layers, *_end(sizes, now, _narrow(sizes)), *_widened(sizes))


def _narrow(sizes: AutoencoderSizes) -> int:
    return sizes.bottleneck or sizes.latent_channels


def _widened(sizes: AutoencoderSizes) -> list[nn.Module]:
    if sizes.bottleneck is None:
        return []
    return [nn.Conv3d(sizes.bottleneck, sizes.latent_channels, kernel_size=1)]


# ---- decoder -----------------------------------------------------------------------------------


def _decoder(sizes: AutoencoderSizes) -> nn.Sequential:
    """z_BCXYZ -> CT: a level of residual blocks, an upsampling, the next finer level."""
    finest_first, groups = sizes.channels, sizes.groups
    now = finest_first[-1]
    layers = [*_narrowed(sizes), conv3(3, _narrow(sizes), now)]
    if sizes.normalise_ends:
        layers += _output(now, now, groups)
    for level in reversed(range(len(finest_first))):
        channels = finest_first[level]
        blocks = _blocks(now, channels, sizes.blocks + 1, groups)
        upsampled = level < len(finest_first) - 1 and not _at_half_size(sizes, level)
        if upsampled and sizes.reduce_first:
            layers += [blocks[0], _upsampling(sizes, channels), *blocks[1:]]
        elif upsampled:
            layers += [_upsampling(sizes, now), *blocks]
        else:
            layers += blocks
        now = channels
    folds = sizes.fold + (sizes.super_resolution == "subpixel")
    voxels = [Subvoxels(haar=not sizes.normalise_ends) for _ in range(folds)]
    return nn.Sequential(*layers, *_end(sizes, now, 8**folds), *voxels)


def _narrowed(sizes: AutoencoderSizes) -> list[nn.Module]:
    if sizes.bottleneck is None:
        return []
    return [nn.Conv3d(sizes.latent_channels, sizes.bottleneck, kernel_size=1)]


def _at_half_size(sizes: AutoencoderSizes, level: int) -> bool:
    return level == 0 and sizes.super_resolution == "subpixel"


def _upsampling(sizes: AutoencoderSizes, channels: int) -> nn.Sequential:
    """Twice the voxels a side, and what sharpens them."""
    finer = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=False)
    if sizes.super_resolution == "residual":
        return nn.Sequential(finer, ResidualBlock(3, channels, channels, sizes.groups))
    return nn.Sequential(finer, conv3(3, channels, channels))


# ---- folds -------------------------------------------------------------------------------------


class Folded(nn.Module):
    """The 2 x 2 x 2 voxels of a cube, or their Haar coefficients, become eight channels of one."""

    mix_88: Tensor

    def __init__(self, haar: bool) -> None:
        super().__init__()
        self.register_buffer("mix_88", haar_88() if haar else torch.eye(8), persistent=False)

    def forward(self, x_BCXYZ: Tensor) -> Tensor:
        """B, C, X, Y, Z -> B, 8 C, X/2, Y/2, Z/2; voxels count x, y, z in base 2."""
        batch, channels, x, y, z = x_BCXYZ.shape
        parts = x_BCXYZ.reshape(batch, channels, x // 2, 2, y // 2, 2, z // 2, 2)
        cubes_BC8N = parts.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, channels, 8, -1)
        folded_BC8N = self.mix_88 @ cubes_BC8N
        return folded_BC8N.reshape(batch, 8 * channels, x // 2, y // 2, z // 2)


class Subvoxels(nn.Module):
    """The inverse of `Folded`."""

    mix_88: Tensor

    def __init__(self, haar: bool) -> None:
        super().__init__()
        self.register_buffer("mix_88", haar_88() if haar else torch.eye(8), persistent=False)

    def forward(self, x_BCXYZ: Tensor) -> Tensor:
        """B, 8 C, X, Y, Z -> B, C, 2X, 2Y, 2Z."""
        batch, eightfold, x, y, z = x_BCXYZ.shape
        cubes_BC8N = self.mix_88 @ x_BCXYZ.reshape(batch, eightfold // 8, 8, -1)
        parts = cubes_BC8N.reshape(batch, eightfold // 8, 2, 2, 2, x, y, z)
        parts = parts.permute(0, 1, 5, 2, 6, 3, 7, 4)
        return parts.reshape(batch, eightfold // 8, 2 * x, 2 * y, 2 * z)


def haar_88() -> Tensor:
    """h x h x h / sqrt 8 with h = ((1, 1), (1, -1)): symmetric, orthogonal, its own inverse."""
    h_22 = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    return torch.kron(torch.kron(h_22, h_22), h_22) / 8**0.5


# ---- both --------------------------------------------------------------------------------------


def _blocks(in_channels: int, channels: int, count: int, groups: int) -> list[nn.Module]:
    first = ResidualBlock(3, in_channels, channels, groups)
    return [first, *(ResidualBlock(3, channels, channels, groups) for _ in range(count - 1))]


def _end(sizes: AutoencoderSizes, in_channels: int, out_channels: int) -> list[nn.Module]:
    """The last layers of encoder and decoder."""
    if sizes.normalise_ends:
        return _output(in_channels, out_channels, sizes.groups)
    return [conv3(3, in_channels, out_channels)]


def _output(in_channels: int, out_channels: int, groups: int) -> list[nn.Module]:
    """Norm, SiLU, convolution."""
    return [group_norm(in_channels, groups), nn.SiLU(), conv3(3, in_channels, out_channels)]


def _started_small(module: nn.Module) -> None:
    """A residual branch whose last convolution begins at a tenth of its usual size."""
    if isinstance(module, ResidualBlock):
        with torch.no_grad():
            for parameter in module.conv2.parameters():
                parameter.mul_(0.1)


def _start_orthogonal(part: nn.Module) -> None:
    """Convolutions on the linear path begin as orthogonal maps of channels, voxel by voxel."""
    branches = {
        id(conv)
        for block in part.modules()
        if isinstance(block, ResidualBlock)
        for conv in (block.conv1, block.conv2)
    }
    for conv in part.modules():
        if isinstance(conv, nn.Conv3d) and id(conv) not in branches:
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
            _make_orthogonal(conv.weight)


@torch.no_grad()
def _make_orthogonal(weight_OIXYZ: Tensor) -> None:
    """A kernel 3 wide acts at its centre alone; the others as a whole."""
    if weight_OIXYZ.shape[-1] == 3:
        weight_OIXYZ.zero_()
        centre_OI = torch.empty_like(weight_OIXYZ[..., 1, 1, 1])
        weight_OIXYZ[..., 1, 1, 1] = nn.init.orthogonal_(centre_OI)
    else:
        nn.init.orthogonal_(weight_OIXYZ)

"""From a film to a prior: a coarse guess of the CT in the autoencoder's latent space.

Shape stage   a 2D residual network on the film; each quarter-resolution pixel then holds
              `features` sequences along its ray, which an MLP shared by all rays and features
              turns into depth.
Anatomy stage 3D convolutions, which see the volume for the first time.
Output        y = N(q(Conv(v))): quantised and normalised like the autoencoder's latents.
"""

from typing import NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from synth_ct.kit.recipe import Recipe
from synth_ct.models.blocks import ResidualBlock, conv3, group_norm
from synth_ct.models.quantizers import QuantiserSizes, build_quantiser

DOWNSAMPLING = 4
"""Pixels of the film to a voxel of the latent."""


class PriorSizes(Recipe):
    """How large the network is; the defaults are the paper's."""

    film: int = Field(default=128, gt=0, multiple_of=DOWNSAMPLING)
    """Pixels a side."""
    channels: tuple[int, int, int] = (128, 256, 512)
    """Of the shape stage, at full, half and quarter resolution."""
    blocks: int = Field(default=2, gt=0)
    """Residual blocks at each resolution."""
    anatomy_channels: int = Field(default=16, gt=0)
    anatomy_blocks: int = Field(default=1, gt=0)
    latent_channels: int = Field(default=8, gt=0)
    quantiser: QuantiserSizes | None = QuantiserSizes(kind="homogeneous")
    """A codebook of the prior's own, like the autoencoder's. None regresses the latent itself, the
    mean over all CTs that fit the film: it shrinks where the film says little, which a denoiser can
    read and no code of a normalised book can say."""
    progressive: bool = True
    """Shape, then anatomy. False lays the film's channels out as depth and convolves once."""
    back_projection: bool = False
    """Show the anatomy stage the film, smeared back along its rays."""
    source_mm: float = Field(default=850.0, gt=0)
    """From the source to the middle of the volume."""
    field_mm: float = Field(default=320.0, gt=0)
    """What the film shows there; the volume is a cube of this side."""

    @property
    def depth(self) -> int:
        """Voxels a side of the latent."""
        return self.film // DOWNSAMPLING

    @property
    def features(self) -> int:
        """Sequences along each ray."""
        return self.channels[-1] // self.depth

    @model_validator(mode="after")
    def _relations(self) -> "PriorSizes":
        if self.channels[-1] % self.depth:
            raise ValueError(
                f"{self.channels[-1]} channels cannot be cut into sequences of {self.depth} "
                f"voxels, the depth of a film of {self.film} pixels; make the last of `channels` "
                f"a multiple of {self.depth}"
            )
        if self.quantiser is not None and self.quantiser.kind not in ("homogeneous", "plain"):
            raise ValueError(
                f"a prior has no quantiser `{self.quantiser.kind}` of its own, for it has no codes "
                "to learn; beside an autoencoder of that kind leave `quantiser` empty"
            )
        if 2 * self.source_mm <= self.field_mm:
            raise ValueError(
                f"a source {self.source_mm} mm from the middle of a volume of {self.field_mm} mm "
                "stands inside it; check the two lengths"
            )
        return self


class Prior(NamedTuple):
    """What a film says of the latent."""

    y_BCXYZ: Tensor
    loss: Tensor
    """Of the quantiser; 0 without one."""


class ProgressiveEncoder(nn.Module):
    """Film -> prior."""

    def __init__(self, sizes: PriorSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.shape = ShapeStage(sizes.channels, sizes.blocks)
        self.lift = Lift(sizes.depth, mlps=2 if sizes.progressive else 0)
        self.back_projection = (
            BackProjection(sizes.depth, sizes.field_mm / sizes.source_mm)
            if sizes.back_projection
            else None
        )
        width = sizes.anatomy_channels
        self.anatomy = nn.Sequential(
            conv3(3, sizes.features + sizes.back_projection, width),
            *(
                ResidualBlock(3, width, width)
                for _ in range(sizes.anatomy_blocks if sizes.progressive else 0)
            ),
            group_norm(width),
            nn.SiLU(),
            conv3(3, width, sizes.latent_channels),
        )
        self.quantiser = (
            build_quantiser(sizes.quantiser, sizes.latent_channels) if sizes.quantiser else None
        )

    def forward(self, film_B1UV: Tensor) -> Prior:
        """Y = N(q(Conv(v))), or Conv(v) itself."""
        v_BCXYZ = self.lift(self.shape(self._fitting(film_B1UV)))
        if self.back_projection is not None:
            v_BCXYZ = torch.cat([v_BCXYZ, self.back_projection(film_B1UV)], dim=1)
        y_BCXYZ = self.anatomy(v_BCXYZ)
        if self.quantiser is None:
            return Prior(y_BCXYZ, y_BCXYZ.new_zeros(()))
        latent = self.quantiser(y_BCXYZ)
        return Prior(latent.z_BCXYZ, latent.loss)

    def _fitting(self, film_B1UV: Tensor) -> Tensor:
        side = self.sizes.film
        if film_B1UV.shape[1:] != (1, side, side):
            raise ValueError(
                f"this prior reads films of 1 x {side} x {side}, not "
                f"{' x '.join(map(str, film_B1UV.shape[1:]))}; frame them to {side} pixels"
            )
        return film_B1UV


# ---- shape stage -------------------------------------------------------------------------------


class ShapeStage(nn.Module):
    """Film -> channels at a quarter of its resolution: residual blocks, then attention to all."""

    def __init__(self, channels: tuple[int, int, int], blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv3(2, 1, channels[0])]
        before = channels[0]
        for level, width in enumerate(channels):
            if level:
                layers.append(nn.Conv2d(before, before, 2, stride=2))
            layers += [
                ResidualBlock(2, width if block else before, width) for block in range(blocks)
            ]
            before = width
        layers += [ResidualBlock(2, before, before), Attention(before)]
        self.layers = nn.Sequential(*layers)

    def forward(self, film_B1UV: Tensor) -> Tensor:
        """B1UV -> BCUV."""
        c_BCUV: Tensor = self.layers(film_B1UV)
        return c_BCUV


class Attention(nn.Module):
    """x + softmax(q k^T / sqrt(C)) v over all pixels: the one place where far sees far."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCUV: Tensor) -> Tensor:
        """BCUV -> BCUV."""
        q_BPC, k_BPC, v_BPC = self.qkv(self.norm(x_BCUV)).flatten(2).mT.chunk(3, dim=-1)
        seen_BPC = F.scaled_dot_product_attention(q_BPC, k_BPC, v_BPC)
        answer_BCUV: Tensor = self.out(seen_BPC.mT.reshape(x_BCUV.shape))
        return x_BCUV + answer_BCUV


class Lift(nn.Module):
    """Channels -> depth: v + MLP(norm(v)), twice, along each ray and along nothing else."""

    def __init__(self, depth: int, mlps: int = 2) -> None:
        super().__init__()
        self.depth = depth
        self.mlps = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(depth), nn.Linear(depth, depth), nn.GELU(), nn.Linear(depth, depth)
            )
            for _ in range(mlps)
        )

    def forward(self, c_BCUV: Tensor) -> Tensor:
        """B(FY)UV -> BFXYZ."""
        v_BFUVY = c_BCUV.unflatten(1, (-1, self.depth)).movedim(2, -1)
        for mlp in self.mlps:
            v_BFUVY = v_BFUVY + mlp(v_BFUVY)
        return in_body(v_BFUVY.movedim(-1, 2))


def in_body(v_BFYUV: Tensor) -> Tensor:
    """BFYUV -> BFXYZ: rows run down the body, columns from its right, so Z = -U and X = -V."""
    return v_BFYUV.permute(0, 1, 4, 2, 3).flip(2, 4).contiguous()


# ---- where the rays run ------------------------------------------------------------------------


class BackProjection(nn.Module):
    """The film smeared back along the rays of its cone: v(x, y, z) = film(m_y x, m_y z)."""

    def __init__(self, depth: int, field_per_source: float) -> None:
        super().__init__()
        m_Y = magnifications(depth, field_per_source)
        scale_Y23 = torch.zeros(depth, 2, 3)
        scale_Y23[:, 0, 0] = scale_Y23[:, 1, 1] = m_Y
        points_YUV2 = F.affine_grid(scale_Y23, [depth, 1, depth, depth], align_corners=False)
        self.register_buffer("points_YUV2", points_YUV2, persistent=False)
        self.points_YUV2: Tensor

    def forward(self, film_B1UV: Tensor) -> Tensor:
        """B1UV -> B1XYZ; beyond the film its outermost pixel repeats."""
        small_BUV = F.avg_pool2d(film_B1UV[:, 0], DOWNSAMPLING)
        slices_YBUV = small_BUV.expand(len(self.points_YUV2), -1, -1, -1)
        smeared_YBUV = F.grid_sample(
            slices_YBUV, self.points_YUV2, padding_mode="border", align_corners=False
        )
        return in_body(smeared_YBUV.movedim(0, 1)[:, None])


def magnifications(depth: int, field_per_source: float) -> Tensor:
    """m_y = S / (S - y): the source stands in front (+Y), and what is nearer to it looks larger."""
    y_Y = (torch.arange(depth) + 0.5) / depth - 0.5
    return 1 / (1 - field_per_source * y_Y)


# ---- only for training -------------------------------------------------------------------------


class AuxiliaryDecoder(nn.Module):
    """Prior -> CT, so that a prior can be trained on CTs without an autoencoder."""

    def __init__(self, latent_channels: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(latent_channels, 16, 1),
            conv3(3, 16, 128),
            ResidualBlock(3, 128, 64),
            nn.Upsample(scale_factor=2, mode="trilinear"),
            ResidualBlock(3, 64, 32),
            nn.Upsample(scale_factor=2, mode="trilinear"),
            conv3(3, 32, 1),
        )

    def forward(self, y_BCXYZ: Tensor) -> Tensor:
        """BCXYZ -> B1XYZ, four times as fine."""
        ct_B1XYZ: Tensor = self.layers(y_BCXYZ)
        return ct_B1XYZ

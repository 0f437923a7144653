"""Swin UNETR: MONAI's network with three choices spelled out.

Its keys are MONAI's own (`swinViT.*`, `encoder1.*`, ...), so its weights load there as they are.
In which order a patch merging lays eight sub-voxels side by side changes what the same weights
compute, and neither keys nor shapes tell: it is part of the sizes. Whether windows attend through
PyTorch's fused attention changes the speed alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from monai.networks.nets.swin_unetr import (
    PatchMerging,
    PatchMergingV2,
    SwinTransformerBlock,
    SwinUNETR,
    WindowAttention,
)
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.network import Backbone
from synth_ct.kit.recipe import Recipe

STAGES = 4
Whole4 = tuple[int, int, int, int]
PatchMergingOrder = Literal["legacy", "monai", "v2"]


class SwinSizes(Recipe):
    """Tang et al., as MONAI has it."""

    kind: Literal["swin_unetr"] = "swin_unetr"
    in_channels: int = Field(default=1, ge=1)
    feature_size: int = Field(default=48, gt=0, multiple_of=12)
    depths: Whole4 = (2, 2, 2, 2)
    heads: Whole4 = (3, 6, 12, 24)
    window: int = Field(default=7, ge=2)
    patch_merging: PatchMergingOrder = "monai"
    """`legacy`: up to MONAI 0.9, and every public checkpoint; `monai`: 1.6; `v2`: its other one."""

    @model_validator(mode="after")
    def _heads_share_the_channels(self) -> "SwinSizes":
        for stage, heads in enumerate(self.heads):
            if heads < 1 or self.feature_size * 2**stage % heads:
                raise ValueError(
                    f"stage {stage} has {self.feature_size * 2**stage} channels, which {heads} "
                    "heads cannot share; choose heads that divide them"
                )
        if min(self.depths) < 1:
            raise ValueError(f"depths are {self.depths}; each stage has 1 block or more")
        return self


# ---- patch merging -----------------------------------------------------------------------------

LEGACY_ORDER = (
    *((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)),
    *((1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1)),
)
"""Which sub-voxel (x, y, z) is which group of channels: two come twice, 110 and 011 never."""


class LegacyPatchMerging(PatchMergingV2):
    """The merging that old weights were trained with, its slip included."""

    def forward(self, x_BXYZC: Tensor) -> Tensor:
        """Norm, then a linear map, of eight sub-voxels side by side."""
        padding = [(0, side % 2) for side in reversed(x_BXYZC.shape[1:4])]
        x_BXYZC = F.pad(x_BXYZC, (0, 0, *(width for pair in padding for width in pair)))
        parts = [x_BXYZC[:, x::2, y::2, z::2] for x, y, z in LEGACY_ORDER]
        reduced_BXYZC: Tensor = self.reduction(self.norm(torch.cat(parts, dim=-1)))
        return reduced_BXYZC


MERGINGS: Mapping[PatchMergingOrder, Any] = {
    "legacy": LegacyPatchMerging,
    "monai": PatchMerging,
    "v2": PatchMergingV2,
}


# ---- attention ---------------------------------------------------------------------------------


class FusedWindowAttention(WindowAttention):
    """softmax(q k^T / sqrt(d) + position + mask) v in one kernel, in training too.

    MONAI's own flag takes effect only where no gradient is asked for.
    """

    def forward(self, x_WNC: Tensor, mask: Tensor | None) -> Tensor:
        """W = samples x windows, windows fastest, each of N tokens; mask: one N x N a window."""
        windows, tokens, channels = x_WNC.shape
        qkv = self.qkv(x_WNC).reshape(windows, tokens, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias = self._position_bias(tokens)[None]
        if mask is not None:
            # Windows join the heads, so that samples share one bias instead of a copy each.
            bias = (bias + mask[:, None]).flatten(0, 1)[None]
            q, k, v = (
                part.reshape(-1, bias.shape[1], tokens, part.shape[-1]) for part in (q, k, v)
            )
        y = F.scaled_dot_product_attention(q, k, v, bias.to(q.dtype), scale=self.scale)
        y_WHND = y.reshape(windows, self.num_heads, tokens, -1)
        out_WNC: Tensor = self.proj(y_WHND.transpose(1, 2).reshape(windows, tokens, channels))
        return out_WNC

    def _position_bias(self, tokens: int) -> Tensor:
        places = self.relative_position_index
        assert isinstance(places, Tensor), "a buffer of MONAI's"
        index = places[:tokens, :tokens].reshape(-1)
        bias_NNH: Tensor = self.relative_position_bias_table[index].reshape(tokens, tokens, -1)
        return bias_NNH.permute(2, 0, 1)


def fuse_windows(network: nn.Module) -> None:
    """Replace each attention by its fused twin, weights and all."""
    for block in network.modules():
        if isinstance(block, SwinTransformerBlock):
            plain = block.attn
            fused = FusedWindowAttention(
                plain.dim, plain.num_heads, plain.window_size, plain.qkv.bias is not None
            )
            fused.load_state_dict(plain.state_dict())
            block.attn = fused


# ---- the network -------------------------------------------------------------------------------


class SwinUnetr(SwinUNETR, Backbone):
    """MONAI's, taken apart into encoder and decoder."""

    encoder: ClassVar[str] = "swinViT."
    head: ClassVar[str] = "out."

    def __init__(self, sizes: SwinSizes, out_channels: int, fused_windows: bool = False) -> None:
        super().__init__(
            in_channels=sizes.in_channels,
            out_channels=out_channels,
            feature_size=sizes.feature_size,
            depths=sizes.depths,
            num_heads=sizes.heads,
            window_size=sizes.window,
            downsample=MERGINGS[sizes.patch_merging],
        )
        self.sizes = sizes
        self.channels = tuple(sizes.feature_size * 2**stage for stage in range(STAGES + 1))
        self.strides = tuple(2 ** (stage + 1) for stage in range(STAGES + 1))
        if fused_windows:
            fuse_windows(self)

    def encode(self, ct_B1XYZ: Tensor) -> tuple[Tensor, ...]:
        """The transformer's five maps, each normalised over its channels."""
        self.demand_sides(ct_B1XYZ.shape[2:])
        return tuple(self.swinViT(ct_B1XYZ, self.normalize))

    def decode(self, ct_B1XYZ: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Convolutions up, with a skip from each finer map and from the crop itself."""
        x = self.decoder5(self.encoder10(maps[4]), maps[3])
        x = self.decoder4(x, self.encoder4(maps[2]))
        x = self.decoder3(x, self.encoder3(maps[1]))
        x = self.decoder2(x, self.encoder2(maps[0]))
        out_BCXYZ: Tensor = self.out(self.decoder1(x, self.encoder1(ct_B1XYZ)))
        return out_BCXYZ

    def forward(self, ct_B1XYZ: Tensor) -> Tensor:
        """decode(x, encode(x))."""
        return Backbone.forward(self, ct_B1XYZ)

"""What both backbones are to everybody else: feature maps, an output, sides, and keys."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn

from synth_ct.kit.recipe import Recipe

Transferred = Literal["encoder", "all_but_head"]
"""What fine-tuning takes over. Nothing else of a pretrained network is ever published."""


class Backbone(nn.Module):
    """A segmentation network whose encoder can be used alone."""

    sizes: Recipe
    channels: tuple[int, ...]
    """Of the maps of `encode`, finest first."""
    strides: tuple[int, ...]
    encoder: ClassVar[str]
    """What the encoder's keys begin with; those of `head` belong to the last layer."""
    head: ClassVar[str]

    @property
    def multiple(self) -> int:
        """Each side of a crop is a multiple of it."""
        return self.strides[-1]

    @property
    def least_side(self) -> int:
        """No side is shorter; and one at least is longer, see `demand_sides`."""
        return self.strides[-1]

    @abstractmethod
    def encode(self, ct_B1XYZ: Tensor) -> tuple[Tensor, ...]:
        """Feature maps, finest first; the last is the bottleneck."""

    @abstractmethod
    def decode(self, ct_B1XYZ: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """The output at full size, from what `encode` made of the same crop."""

    def forward(self, ct_B1XYZ: Tensor) -> Tensor:
        """decode(x, encode(x))."""
        return self.decode(ct_B1XYZ, self.encode(ct_B1XYZ))

    def transferred(self, what: Transferred) -> tuple[str, ...]:
        """The keys of `state_dict` that go from pretraining to fine-tuning, in its order."""
        keys = self.state_dict().keys()
        if what == "encoder":
            return tuple(key for key in keys if key.startswith(self.encoder))
        return tuple(key for key in keys if not key.startswith(self.head))

    def demand_sides(self, sides_XYZ: Sequence[int]) -> None:
        """Raise unless a crop of these sides leaves more than one voxel at the bottleneck."""
        ours = f"a {type(self).__name__} halves a crop until sides are 1/{self.multiple}"
        shown = " x ".join(map(str, sides_XYZ))
        if any(side < 1 or side % self.multiple for side in sides_XYZ):
            raise ValueError(
                f"a crop of {shown} cannot be read: {ours}, so each side must be a multiple of "
                f"{self.multiple}. Choose such a crop, or pad it with air"
            )
        if math.prod(sides_XYZ) == self.multiple ** len(sides_XYZ):
            longer = " x ".join(map(str, (2 * sides_XYZ[0], *sides_XYZ[1:])))
            raise ValueError(
                f"a crop of {shown} is too small: {ours}, which leaves one voxel, and there is "
                f"nothing to normalise over. Pad it with air to {longer}, or choose a larger one"
            )

"""A backbone and the heads of an objective, as the loop trains them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from pretrain.backbones import Backbone

BACKBONE, HEADS = "backbone", "heads"
PHASE = "pretrain"


class PretrainLearner:
    """One phase; the running average is the backbone's, which alone is kept."""

    def __init__(
        self, backbone: Backbone, heads: nn.Module, rate: float, weight_decay: float
    ) -> None:
        self._backbone, self._heads = backbone, heads
        parameters = [*backbone.parameters(), *heads.parameters()]
        self._optimiser = AdamW(parameters, lr=rate, weight_decay=weight_decay)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Both are saved: a resumed run needs its heads."""
        return {BACKBONE: self._backbone, HEADS: self._heads}

    @property
    def optimisers(self) -> Mapping[str, Optimizer]:
        """One."""
        return {PHASE: self._optimiser}

    @property
    def averaged(self) -> Sequence[str]:
        """What is kept."""
        return (BACKBONE,)

    def losses(self, phase: str, batch: Any, generator: torch.Generator) -> Mapping[str, Tensor]:
        """The objective's, on crops in [-1, 1]."""
        del phase
        losses: Mapping[str, Tensor] = self._heads(self._backbone, batch, generator)
        return losses

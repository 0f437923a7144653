"""A backbone that learns labels from crops: Dice plus cross-entropy, one optimiser."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from finetune.crops import Batch

NETWORK = "network"
PHASE = "finetune"


class SegmentationLearner:
    """Pretrained layers may learn more slowly than those that begin at random."""

    def __init__(
        self,
        network: nn.Module,
        arrived: Sequence[str],
        rates: tuple[float, float],
        weight_decay: float,
    ) -> None:
        """`rates`: of what did not come from pretraining, and of what did (keys `arrived`)."""
        self._network = network
        self._loss = DiceCELoss(to_onehot_y=True, softmax=True, smooth_nr=0.0, smooth_dr=1e-6)
        known = {*arrived}
        named = dict(network.named_parameters())
        groups = [
            {"params": [p for name, p in named.items() if (name in known) == pretrained], "lr": lr}
            for pretrained, lr in zip((False, True), rates, strict=True)
        ]
        self._optimiser = AdamW([g for g in groups if g["params"]], weight_decay=weight_decay)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """One."""
        return {NETWORK: self._network}

    @property
    def optimisers(self) -> Mapping[str, Optimizer]:
        """One."""
        return {PHASE: self._optimiser}

    @property
    def averaged(self) -> Sequence[str]:
        """What is kept: the last weights, or their running average; never the best on a test."""
        return (NETWORK,)

    def losses(self, phase: str, batch: Any, generator: torch.Generator) -> Mapping[str, Tensor]:
        """DiceCE in full precision: half a precision loses small organs."""
        del phase, generator
        crops: Batch = batch
        logits_BKXYZ = self._network(crops.ct_B1XYZ)
        with torch.autocast(logits_BKXYZ.device.type, enabled=False):
            total = self._loss(logits_BKXYZ.float(), crops.label_BXYZ[:, None].long())
        return {"total": total}

"""Losses of pretraining, each headed by its equation; every item of a batch counts alike.

Because an item's mean is taken first, the mean over several processes' batches is the mean over
one large batch, masks of different sizes included.
"""

import math

import torch
import torch.distributed as dist
from torch.nn import functional

from synth_ct.kit import ranks

LEAST_SPREAD = 1e-4
"""Keeps a ratio finite where a crop is air throughout."""


# ---- contrast ----------------------------------------------------------------------------------


def nt_xent(
    first_BE: torch.Tensor, second_BE: torch.Tensor, temperature: float, gather: bool = False
) -> torch.Tensor:
    """Mean over anchors i of -log( exp(s_ip / t) / sum_{k != i} exp(s_ik / t) ).

    s is the cosine, p the other view of i's crop; k runs over both views of all crops of this
    process or, where `gather`, of all processes. Anchors are always this process's own.
    """
    device = first_BE.device
    with torch.autocast(device.type, enabled=False):  # exponents of a half-precision sum drift
        first_BE = functional.normalize(first_BE.float(), dim=1)
        second_BE = functional.normalize(second_BE.float(), dim=1)
        all_first_NE = gathered(first_BE) if gather else first_BE
        all_second_NE = gathered(second_BE) if gather else second_BE
        every_ME = torch.cat([all_first_NE, all_second_NE])
        batch, crops = len(first_BE), len(all_first_NE)
        own_B = torch.arange(batch, device=device) + (ranks.world()[0] * batch if gather else 0)
        self_A, other_A = torch.cat([own_B, own_B + crops]), torch.cat([own_B + crops, own_B])
        cosine_AM = torch.cat([first_BE, second_BE]) @ every_ME.T
        logits_AM = (cosine_AM / temperature).scatter(1, self_A[:, None], -math.inf)
        return functional.cross_entropy(logits_AM, other_A)


def candidates(crops: int) -> int:
    """2 N - 1: what an anchor is compared with, its own other view included."""
    return 2 * crops - 1


class _Gathered(torch.autograd.Function):
    """Rows of all ranks in the order of ranks; each rank's gradient is the sum of what all send."""

    @staticmethod
    def forward(ctx: object, rows: torch.Tensor) -> torch.Tensor:
        del ctx
        parts = [torch.empty_like(rows) for _ in range(ranks.world()[1])]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: object, *gradients: torch.Tensor) -> torch.Tensor:
        del ctx
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        rank, size = ranks.world()
        return total.chunk(size)[rank]


def gathered(rows_BE: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, through which gradients flow back to where the rows came from."""
    if ranks.world()[1] == 1:
        return rows_BE
    rows: torch.Tensor = _Gathered.apply(rows_BE)
    return rows


# ---- reconstruction ----------------------------------------------------------------------------


def masked_mean(error_B1XYZ: torch.Tensor, mask_B1XYZ: torch.Tensor) -> torch.Tensor:
    """(1 / B) sum_b ( sum_v m_bv e_bv / sum_v m_bv ); an item without a mask adds nothing."""
    error_BV, mask_BV = error_B1XYZ.float().flatten(1), mask_B1XYZ.flatten(1)
    sums_B = torch.where(mask_BV, error_BV, 0.0).sum(1)
    return (sums_B / mask_BV.sum(1).clamp(min=1)).mean()


def masked_squares(
    predicted_B1XYZ: torch.Tensor, target_B1XYZ: torch.Tensor, mask_B1XYZ: torch.Tensor
) -> torch.Tensor:
    """Mean of (p - t)^2 over the masked voxels."""
    return masked_mean((predicted_B1XYZ.float() - target_B1XYZ) ** 2, mask_B1XYZ)


def masked_distance(
    predicted_B1XYZ: torch.Tensor, target_B1XYZ: torch.Tensor, mask_B1XYZ: torch.Tensor
) -> torch.Tensor:
    """Mean of |p - t| / 2 over the masked voxels: in widths of the window, which is two wide."""
    return masked_mean((predicted_B1XYZ.float() - target_B1XYZ).abs() / 2, mask_B1XYZ)


def mean_prediction(target_B1XYZ: torch.Tensor, mask_B1XYZ: torch.Tensor) -> torch.Tensor:
    """p_b = sum_v m_bv t_bv / sum_v m_bv, everywhere in item b: what knows nothing but a mean."""
    target_BV, mask_BV = target_B1XYZ.float().flatten(1), mask_B1XYZ.flatten(1)
    mean_B = torch.where(mask_BV, target_BV, 0.0).sum(1) / mask_BV.sum(1).clamp(min=1)
    return mean_B.view(-1, 1, 1, 1, 1).expand(target_B1XYZ.shape)


def over_mean(loss: torch.Tensor, of_mean_prediction: torch.Tensor) -> torch.Tensor:
    """L(p, t) / L(mean, t): 1 where nothing is learned but the mean brightness."""
    return loss.detach() / of_mean_prediction.detach().clamp(min=LEAST_SPREAD)


# ---- segmentation ------------------------------------------------------------------------------


def dice_loss(logits_BKXYZ: torch.Tensor, class_BXYZ: torch.Tensor) -> torch.Tensor:
    """1 - mean over items and classes of (2 sum_v q_v g_v + 1) / (sum_v q_v + sum_v g_v + 1).

    q is the softmax, g one where the class is the voxel's; the 1 settles classes that are absent.
    """
    share_BKV = logits_BKXYZ.float().softmax(1).flatten(2)
    truth_BKV = functional.one_hot(class_BXYZ.flatten(1), logits_BKXYZ.shape[1]).mT
    both_BK = (share_BKV * truth_BKV).sum(2)
    each_BK = share_BKV.sum(2) + truth_BKV.sum(2)
    return 1 - ((2 * both_BK + 1) / (each_BK + 1)).mean()


def cross_entropy(logits_BKXYZ: torch.Tensor, class_BXYZ: torch.Tensor) -> torch.Tensor:
    """Mean over voxels of -log softmax(logits)[class]."""
    return functional.cross_entropy(logits_BKXYZ.float(), class_BXYZ)


# ---- diagnostics -------------------------------------------------------------------------------


def feature_sd(features_BCXYZ: torch.Tensor) -> torch.Tensor:
    """Mean over channels of the sd over the batch of spatially averaged features; 0 is collapse."""
    pooled_BC = features_BCXYZ.detach().float().mean((2, 3, 4))
    return pooled_BC.std(0, correction=0).mean()


def accuracy(logits_BK: torch.Tensor, class_B: torch.Tensor) -> torch.Tensor:
    """Share of items, or of voxels, whose largest logit is that of their class."""
    return (logits_BK.detach().argmax(1) == class_B).float().mean()

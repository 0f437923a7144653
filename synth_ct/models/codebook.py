"""A learned codebook: the nearest code, what recent steps used, and new places for dead codes.

N(x)   = (x - mean(x)) / sqrt(var(x) + eps)                       the paper's normalisation
q(z)   = argmin_k |z - c_k|^2 = argmax_k (z . c_k - |c_k|^2 / 2)  nearest code
L_vq   = |sg[z] - q|^2 + beta |z - sg[q]|^2                       Eq. 2, means over elements
P      = exp(-sum_k p_k log p_k)                                  perplexity of the codes' use
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6
"""Added to a variance: keeps the gradient of N finite where all values are equal."""

CPU_ROWS, GPU_ROWS, GROUP = 128, 1024, 64
"""Vectors looked up at a time: 4 MB of scores with 8192 codes, 32 MB on a GPU; codes in a group."""

USED = 0.01
"""A code counts as used where it drew at least this part of a fair share of the vectors."""


def z_score(x: Tensor, dim: int) -> Tensor:
    """N(x) = (x - mean(x)) / sqrt(var(x) + eps)."""
    mean, variance = x.mean(dim, keepdim=True), x.var(dim, correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + EPSILON)


@torch.no_grad()
def nearest_code(z_NC: Tensor, codes_KC: Tensor, rows: int | None = None) -> Tensor:
    """argmax_k (z . c_k - |c_k|^2 / 2), the constant as one more column of the codes.

    Works in blocks of rows that stay in the cache; all distances never exist at once. The best of
    each group of codes comes first: a maximum across vectors is several times faster than argmax.
    """
    rows = rows or (GPU_ROWS if z_NC.is_cuda else CPU_ROWS)
    columns_DK = _interleaved(codes_KC)
    z_ND = F.pad(z_NC, (0, 1), value=1.0)
    nearest = []
    for block_RD in z_ND.split(rows):
        score_RMG = (block_RD @ columns_DK).view(len(block_RD), GROUP, -1)
        group_R = score_RMG.amax(1).argmax(1)
        index_R11 = group_R[:, None, None].expand(-1, GROUP, 1)
        member_R = score_RMG.gather(2, index_R11)[..., 0].argmax(1)
        nearest.append(group_R * GROUP + member_R)
    # Where a vector is infinite, filling columns win; the loss, not an index, is to tell of it.
    return torch.cat(nearest).clamp(max=len(codes_KC) - 1)


def _interleaved(codes_KC: Tensor) -> Tensor:
    """Code g M + m, and its -|c|^2 / 2, as column m G + g: a group's members lie G apart."""
    bias_K1 = -0.5 * codes_KC.square().sum(1, keepdim=True)
    codes_KD = torch.cat([codes_KC, bias_K1], 1)
    missing = -len(codes_KD) % GROUP
    never_D = F.pad(codes_KD.new_full((1,), -torch.inf), (codes_KC.shape[1], 0))
    codes_KD = torch.cat([codes_KD, never_D.expand(missing, -1)])
    return codes_KD.view(-1, GROUP, codes_KD.shape[1]).permute(2, 1, 0).flatten(1).contiguous()


def straight_through(z: Tensor, q: Tensor) -> Tensor:
    """The value of q, to the last bit, with the gradient of z."""
    return q.detach() + (z - z.detach())


def codebook_loss(z: Tensor, q: Tensor, commitment: float) -> Tensor:
    """|sg[z] - q|^2 + beta |z - sg[q]|^2: the first term moves codes, the second the encoder."""
    return F.mse_loss(q, z.detach()) + commitment * F.mse_loss(z, q.detach())


def use_of(hits_K: Tensor) -> dict[str, Tensor]:
    """Share of codes in use, and exp(-sum p log p), of counts known up to a common factor."""
    share_K = hits_K / hits_K.sum().clamp(min=EPSILON)
    used = (share_K * len(share_K) >= USED).float().mean()
    return {"usage": used, "perplexity": torch.special.entr(share_K).sum().exp()}


class Tally(nn.Module):
    """Decayed sums over recent steps, the same however many processes share the work.

    A step adds to `now`, a linear sum, which the loop averages over processes at the step's end;
    only the next step folds it in. The sums therefore have an unknown common factor: use ratios.
    """

    now: Tensor
    recent: Tensor

    def __init__(self, shape: tuple[int, ...], decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("now", torch.zeros(shape))
        self.register_buffer("recent", torch.zeros(shape))

    @torch.no_grad()
    def add(self, sums: Tensor) -> None:
        """Count in this step."""
        self.now += sums

    def fold(self) -> None:
        """Close the step before."""
        self.recent.mul_(self.decay).add_(self.now)
        self.now.zero_()


def counted(indices_N: Tensor, z_NC: Tensor, q_NC: Tensor, codes: int) -> Tensor:
    """For every code, how many vectors chose it and their squared distances to it."""
    error_N = (z_NC - q_NC).square().sum(1)
    values_N2 = torch.stack([torch.ones_like(error_N), error_N], 1)
    return error_N.new_zeros(codes, 2).index_add_(0, indices_N, values_N2)


def parents_of(dead: int, tally_K2: Tensor, generator: torch.Generator) -> Tensor:
    """Codes to split, drawn in proportion to the squared error they leave."""
    hits_K, error_K = tally_K2.unbind(1)
    return torch.multinomial(
        error_K + EPSILON * hits_K, dead, replacement=True, generator=generator
    )


def cell_radius(tally_K2: Tensor, channels: int) -> Tensor:
    """Root mean square distance, by channel, of a code's vectors to it."""
    hits_K, error_K = tally_K2.unbind(1)
    return (error_K / (channels * hits_K.clamp(min=EPSILON))).sqrt()

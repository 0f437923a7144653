"""What several processes training one model have to agree on; with one process, nothing happens.

Gradients are averaged explicitly: a GAN's two phases then need no wrapper around any module, and
one process with a batch of N takes the same step as two with N/2 each.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world() -> tuple[int, int]:
    """(rank of this process, number of processes)."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """(1 / R) sum_r x_r, the same on every rank."""
    _, size = world()
    if size > 1:
        dist.all_reduce(tensor)
        tensor = tensor / size
    return tensor


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on at least one rank."""
    if world()[1] == 1:
        return flag  # no transfer from the device
    return bool(mean_over_ranks(torch.tensor(float(flag), device=device)) > 0)


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give every rank the mean gradient. What no rank used keeps none, so its moments rest."""
    if world()[1] == 1:
        return
    device = parameters[0].device
    used = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
    shares = mean_over_ranks(used).tolist()
    involved = [p for p, share in zip(parameters, shares, strict=True) if share > 0]
    for parameter in involved:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    _average([p.grad for p in involved if p.grad is not None])


def average_buffers(modules: Iterable[nn.Module]) -> None:
    """Give every rank the mean of the running statistics; counters come from rank 0."""
    if world()[1] == 1:
        return
    buffers = [b for module in modules for b in module.buffers()]
    _average([b for b in buffers if b.is_floating_point()])
    for counter in (b for b in buffers if not b.is_floating_point()):
        dist.broadcast(counter, src=0)


def _average(tensors: list[Tensor]) -> None:
    if not tensors:
        return
    flat = mean_over_ranks(torch.cat([t.reshape(-1) for t in tensors]))
    pieces = flat.split([t.numel() for t in tensors])
    for tensor, piece in zip(tensors, pieces, strict=True):
        tensor.copy_(piece.view_as(tensor))


def demand_same_start(modules: Iterable[nn.Module], step: int) -> None:
    """Raise unless all ranks begin at one step with one set of weights."""
    _, size = world()
    if size == 1:
        return
    parameters = [p.detach() for module in modules for p in module.parameters()]
    total = torch.stack([p.double().abs().sum() for p in parameters]).sum()
    mine = torch.stack([total, torch.tensor(float(step)).to(total)])
    others = [torch.empty_like(mine) for _ in range(size)]
    dist.all_gather(others, mine)
    if any(not torch.equal(other, mine) for other in others):
        raise ValueError(
            "the processes start from different weights or steps; seed the model before it is "
            "built, and let every process see the same folder of checkpoints"
        )


def wait_for_all() -> None:
    """Return once every rank is here."""
    if world()[1] > 1:
        dist.barrier()

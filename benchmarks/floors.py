"""What no program that does the same arithmetic can beat: operations and bytes, counted, not run.

    flop    all operations at the machine's peak
    fused   each convolution or product at its peak or at the speed of its bytes, whichever is
            slower; all else is free
    eager   the same of every kernel, as a program does that fuses nothing

Counted on tensors without memory. Attention counts as one kernel that reads q, k, v and writes its
answer.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

FREE = frozenset(
    ["_unsafe_view", "alias", "detach", "empty", "empty_like", "empty_strided", "new_empty", "t"]
)
HALF_BYTES = 2
"""A bfloat16 number."""


class Ceiling(NamedTuple):
    """What a machine can do."""

    flop_per_s: float
    bytes_per_s: float


class Kernel(NamedTuple):
    """One operation."""

    name: str
    flop: int
    moved: int
    """Bytes read and written, numbers as bfloat16."""


class Floors(NamedTuple):
    """Milliseconds."""

    flop: float
    fused: float
    eager: float


def floors(kernels: Sequence[Kernel], ceiling: Ceiling) -> Floors:
    """The times of these kernels on a machine."""

    def total(some: Sequence[Kernel]) -> float:
        return sum(max(k.flop / ceiling.flop_per_s, k.moved / ceiling.bytes_per_s) for k in some)

    heavy = [kernel for kernel in kernels if kernel.flop]
    flop = sum(kernel.flop for kernel in kernels) / ceiling.flop_per_s
    return Floors(1e3 * flop, 1e3 * total(heavy), 1e3 * total(kernels))


def counted(network: nn.Module, *shown: tuple[int, ...]) -> list[Kernel]:
    """The kernels of one forward pass on inputs of these shapes, views left out."""
    network = deepcopy(network).to("meta")
    inputs = [torch.zeros(shape, device="meta") for shape in shown]
    counter = _Counter()
    with torch.no_grad(), _WholeAttention(counter), counter:
        network(*inputs)
    return counter.kernels


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        if not func.is_view and packet.__name__ not in FREE:
            flop_of = flop_registry.get(packet)
            flop = flop_of(*args, **kwargs, out_val=out) if flop_of else 0
            self.kernels.append(Kernel(packet.__name__, flop, moved((args, kwargs, out))))
        return out


class _WholeAttention(TorchFunctionMode):
    """Keeps attention from falling into the products and copies it is defined by."""

    def __init__(self, counter: _Counter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        q, k, v = args[:3]
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        flop = 2 * q.numel() * k.shape[-2] + 2 * out.numel() * k.shape[-2]
        self.counter.kernels.append(Kernel("attention", flop, moved((args, out))))
        return out


def moved(tensors: Any) -> int:
    """Bytes of all tensors in there."""
    found = [leaf for leaf in tree_leaves(tensors) if isinstance(leaf, torch.Tensor)]
    return sum(t.numel() * (HALF_BYTES if t.is_floating_point() else t.itemsize) for t in found)

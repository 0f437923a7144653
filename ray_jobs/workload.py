"""How long a network keeps a device busy: its kernels, counted on tensors without memory.

    seconds of a batch b = sum over kernels of max(b flop / F, b bytes / B, launch)

with what a device computes (F), moves (B) and needs to begin anything. Nothing is fused, every
kernel is at its best: a floor that a plain program comes near to. Weights count as if each sample
had its own, which is little beside the maps of a volume.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from pretrain.backbones import Backbone, SwinSizes, Transferred, UNetSizes, build
from pretrain.objectives import ObjectiveRecipe, build_objective, out_channels
from pretrain.objectives.swin3 import Swin3Recipe
from synth_ct.kit.axes import Grid
from synth_ct.kit.recipe import changed
from synth_ct.models.autoencoder import Autoencoder, AutoencoderSizes
from synth_ct.models.denoiser import Denoiser, DenoiserSizes
from synth_ct.models.discriminators import SliceDiscriminator, VolumeDiscriminator
from synth_ct.models.progressive_encoder import AuxiliaryDecoder, PriorSizes, ProgressiveEncoder
from synth_ct.models.style import PatchDiscriminator, StyleGenerator, StyleSizes

NUMBER_BYTES = 4
NOTHING_RUNS = frozenset(
    ["_unsafe_view", "alias", "detach", "empty", "empty_like", "empty_strided", "new_empty", "t"]
)
CLASSES = 14
"""Channels of a segmentation: BTCV's organs and the background. Hardly matters."""


class Device(NamedTuple):
    """What it can do, in float32."""

    name: str
    flop_per_s: float
    bytes_per_s: float
    launch_s: float
    half: float
    """How many times faster it is in half precision, at arithmetic and bytes alike."""


H200 = Device("H200", flop_per_s=395e12, bytes_per_s=4.3e12, launch_s=4.5e-6, half=2.0)
"""790 TFLOP/s in bfloat16, half of it with TF32; memory as fast as copies of large arrays."""
CORE = Device("core", flop_per_s=80e9, bytes_per_s=6.7e9, launch_s=1e-5, half=1.0)
"""One core of the machine of docs/results, fitted to the times there. Rough."""


class Kernel(NamedTuple):
    """One operation on one sample."""

    flop: int
    moved: int
    """Bytes read and written, in float32."""


class Net(NamedTuple):
    """A network as far as it costs something."""

    kernels: tuple[Kernel, ...]
    stored: int
    """Bytes of its weights and buffers."""


class Pass(NamedTuple):
    """So many samples go through a network, so many at once."""

    net: Net
    samples: float
    """A backward pass counts as two more forwards."""
    batch: int
    half: bool = False


def seconds_of(work: Pass, device: Device) -> float:
    """See above."""
    faster = device.half if work.half else 1.0
    flop_per_s, bytes_per_s = faster * device.flop_per_s, faster * device.bytes_per_s
    b = work.batch
    batch_s = sum(
        max(b * kernel.flop / flop_per_s, b * kernel.moved / bytes_per_s, device.launch_s)
        for kernel in work.net.kernels
    )
    return work.samples / b * batch_s


# ---- counting ----------------------------------------------------------------------------------


def counted(call: Callable[..., Any], *shapes: tuple[int, ...]) -> tuple[Kernel, ...]:
    """The kernels of one call on inputs of these shapes; views run nothing."""
    inputs = [torch.zeros(shape, device="meta") for shape in shapes]
    counter = _Counter()
    with torch.no_grad(), _WholeAttention(counter), counter:
        call(*inputs)
    return tuple(counter.kernels)


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
        if not func.is_view and packet.__name__ not in NOTHING_RUNS:
            flop_of = flop_registry.get(packet)
            flop = flop_of(*args, **kwargs, out_val=out) if flop_of else 0
            self.kernels.append(Kernel(flop, _moved((args, kwargs, out))))
        return out


class _WholeAttention(TorchFunctionMode):
    """Attention is one kernel, and not the products and copies it is defined by."""

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
        flop = 2 * (q.numel() + out.numel()) * k.shape[-2]
        self.counter.kernels.append(Kernel(flop, _moved((args, out))))
        return out


def _moved(tensors: Any) -> int:
    found = [leaf for leaf in tree_leaves(tensors) if isinstance(leaf, torch.Tensor)]
    return sum(tensor.numel() * tensor.itemsize for tensor in found)


def _stored(net: nn.Module) -> int:
    return sum(tensor.numel() * NUMBER_BYTES for tensor in net.state_dict().values())


def _net(make: Callable[[], nn.Module], *shapes: tuple[int, ...]) -> Net:
    with torch.device("meta"):
        net = make().eval()
    return Net(counted(net, *shapes), _stored(net))


# ---- the generator's networks ------------------------------------------------------------------


@cache
def encoding(sizes: AutoencoderSizes, side: int) -> Net:
    """CT -> latent. The search for codes is left out: a hundredth of it."""
    return _net(lambda: Autoencoder(sizes).encoder, (1, 1, side, side, side))


@cache
def decoding(sizes: AutoencoderSizes, side: int) -> Net:
    """Latent -> CT."""
    grid = 3 * (side // sizes.downsampling,)
    return _net(lambda: Autoencoder(sizes).decoder, (1, sizes.latent_channels, *grid))


@cache
def prior(sizes: PriorSizes) -> Net:
    """Film -> prior."""
    bare = changed(sizes, quantiser=None)
    return _net(lambda: ProgressiveEncoder(bare), (1, 1, sizes.film, sizes.film))


@cache
def auxiliary_decoding(sizes: PriorSizes) -> Net:
    """Prior -> CT, for a prior in coordinates of its own."""
    channels = sizes.latent_channels
    return _net(lambda: AuxiliaryDecoder(channels), (1, channels, *3 * (sizes.depth,)))


@cache
def denoising(sizes: DenoiserSizes, depth: int) -> Net:
    """One evaluation."""
    latent = (1, sizes.latent_channels, depth, depth, depth)
    return _net(lambda: Denoiser(sizes), latent, (1,), latent)


@cache
def restyling(sizes: StyleSizes, side: int) -> Net:
    """Film -> film."""
    return _net(lambda: StyleGenerator(sizes), (1, 1, side, side))


@cache
def judging_style(sizes: StyleSizes, side: int) -> Net:
    """Film -> scores."""
    width, layers = sizes.judge_width, sizes.judge_layers
    return _net(lambda: PatchDiscriminator(width, layers), (1, 1, side, side))


@cache
def judging_slices(width: int, layers: int, slices: int, side: int) -> Net:
    """Slices of three planes of one volume -> scores."""
    return _net(lambda: SliceDiscriminator(width, layers), (3 * slices, 1, side, side))


@cache
def judging_volumes(width: int, layers: int, side: int) -> Net:
    """Volume -> scores."""
    return _net(lambda: VolumeDiscriminator(width, layers), (1, 1, side, side, side))


# ---- segmentation networks ---------------------------------------------------------------------


@cache
def _backbone(sizes: SwinSizes | UNetSizes, channels: int) -> Backbone:
    """Made for real and then emptied: its constructor reads numbers."""
    return build(sizes, channels, 0).eval().to("meta")


@cache
def segmenting(sizes: SwinSizes | UNetSizes, crop: Grid) -> Net:
    """Crop -> logits."""
    backbone = _backbone(sizes, CLASSES)
    return Net(counted(backbone, (1, 1, *crop)), _stored(backbone))


@cache
def pretraining(sizes: SwinSizes | UNetSizes, objective: ObjectiveRecipe, crop: Grid) -> Net:
    """Crop -> what the objective is asked of; `swin3` shows two views of each."""
    backbone = _backbone(sizes, out_channels(objective))
    heads: Any = build_objective(objective, backbone, crop, 0).eval().to("meta")
    stored = _stored(backbone) + _stored(heads)
    if isinstance(objective, Swin3Recipe):
        one = counted(lambda x: heads.outputs(backbone.encode(x)[-1]), (1, 1, *crop))
        return Net(tuple(Kernel(2 * k.flop, 2 * k.moved) for k in one), stored)
    return Net(counted(lambda x: heads.network(backbone, x), (1, 1, *crop)), stored)


@cache
def transferred(sizes: SwinSizes | UNetSizes, what: Transferred) -> int:
    """Bytes of the weights that go from pretraining to fine-tuning."""
    backbone = _backbone(sizes, CLASSES)
    state = backbone.state_dict()
    return sum(state[key].numel() * NUMBER_BYTES for key in backbone.transferred(what))

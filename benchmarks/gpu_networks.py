"""The networks alone: what the machine does at best, whether bfloat16 is right, ms and floors."""

from copy import deepcopy

import torch
from floors import Ceiling, counted, floors
from gpu_bench import Bench, Row, Sizes, Table
from torch import Tensor, nn
from torch.nn import functional

from synth_ct.models.autoencoder import Autoencoder
from synth_ct.models.denoiser import Denoiser

HALF = torch.bfloat16
ONE_LAYER, WHOLE_NET = 0.01, 0.05
"""Relative errors of bfloat16 beyond these are wrong results and not rounding."""

# ---- ceilings and parity -----------------------------------------------------------------------


def ceiling_of(bench: Bench) -> Ceiling:
    """What it does at best: a product of large matrices, a copy of a large array."""
    side, size = bench.sizes.gemm, bench.sizes.copied
    a, b = bench.noise(side, side).to(HALF), bench.noise(side, side).to(HALF)
    source = torch.zeros(size, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    product_ms, copy_ms = bench.ms(lambda: a @ b), bench.ms(lambda: target.copy_(source))
    return Ceiling(2 * side**3 / product_ms * 1e3, 2 * size / copy_ms * 1e3)


def ceilings(ceiling: Ceiling, sizes: Sizes) -> Table:
    """As a table."""
    rows: list[Row] = [
        (
            f"product of {sizes.gemm} x {sizes.gemm} in bfloat16",
            ceiling.flop_per_s / 1e12,
            "TFLOP/s",
        ),
        (f"copy of {sizes.copied / 2**20:.3g} MiB", ceiling.bytes_per_s / 1e9, "GB/s"),
    ]
    return Table("Ceilings", ("what", "measured", "unit"), rows, "The floors below use these.")


@torch.no_grad()
def parity(bench: Bench) -> Table:
    """bfloat16 against float32 without TF32, on the same weights."""
    x_BCXYZ = bench.noise(2, 64, *3 * [bench.sizes.side // 4])
    z_BCXYZ = bench.noise(2, *bench.sizes.latent)
    time_B = torch.full((2,), 500.0, device=bench.device)
    flat = nn.Conv3d(64, 64, (1, 3, 3), padding=(0, 1, 1)).to(bench.device)
    cube = nn.Conv3d(64, 64, 3, padding=1).to(bench.device)
    denoiser, decoder = (
        make_denoiser(bench.sizes).to(bench.device),
        make_autoencoder(bench.sizes).decoder,
    )
    nets: dict[str, tuple[nn.Module, Tensor, float]] = {
        "Conv3d (1, 3, 3)": (flat, x_BCXYZ, ONE_LAYER),
        "the same as batched Conv2d": (InPlane(flat), x_BCXYZ, ONE_LAYER),
        "Conv3d (3, 3, 3)": (cube, x_BCXYZ, ONE_LAYER),
        "denoiser step": (AtTime(denoiser, time_B), z_BCXYZ, WHOLE_NET),
        "decoder": (decoder.to(bench.device), z_BCXYZ, WHOLE_NET),
    }
    rows: list[Row] = []
    for name, (net, shown, limit) in nets.items():
        with torch.backends.cudnn.flags(allow_tf32=False):
            full = net(shown).double()
        half = deepcopy(net).to(HALF)(shown.to(HALF)).double()
        error = float((half - full).norm() / full.norm())
        rows.append((name, error, "rounding" if error < limit else "WRONG"))
    note = "Error |half - full| / |full|; random weights, batch 2."
    return Table("bfloat16 against float32", ("what", "error", "verdict"), rows, note)


class InPlane(nn.Module):
    """A (1, 3, 3) convolution, its slices an item of the batch each."""

    def __init__(self, layer: nn.Conv3d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x_BCXYZ: Tensor) -> Tensor:
        """The same numbers as the layer's."""
        x_BXCYZ = x_BCXYZ.movedim(2, 1)
        weight, bias = self.layer.weight[:, :, 0], self.layer.bias
        y_NCYZ = functional.conv2d(x_BXCYZ.flatten(0, 1), weight, bias, padding=1)
        y_BCXYZ: Tensor = y_NCYZ.unflatten(0, x_BXCYZ.shape[:2]).movedim(1, 2)
        return y_BCXYZ


class AtTime(nn.Module):
    """A denoiser as a function of the latent; the time stays in full precision."""

    def __init__(self, denoiser: nn.Module, time_B: Tensor) -> None:
        super().__init__()
        self.denoiser, self.time_B = denoiser, time_B

    def forward(self, z_BCXYZ: Tensor) -> Tensor:
        """The latent is its own prior."""
        out_BCXYZ: Tensor = self.denoiser(z_BCXYZ, self.time_B, z_BCXYZ)
        return out_BCXYZ


def make_denoiser(sizes: Sizes) -> Denoiser:
    """As after training: the last layer is not zero."""
    torch.manual_seed(0)
    net = Denoiser(sizes.denoiser).eval()
    nn.init.normal_(net.last.get_parameter("weight"), std=0.02)
    return net


def make_autoencoder(sizes: Sizes) -> Autoencoder:
    """Of random weights."""
    torch.manual_seed(0)
    return Autoencoder(sizes.autoencoder).eval()


# ---- speed of the networks ---------------------------------------------------------------------

WAYS = ("float32", "bfloat16", "channels last", "CUDA graph", "compiled")
SPEED = ("batch", *WAYS, "flop", "fused", "eager", "best / fused", "best a volume")
NOTE = (
    "`flop`, `fused`, `eager` are floors in bfloat16 (benchmarks/floors.py); "
    "float32 has TF32 convolutions."
)


def denoiser_speed(bench: Bench, ceiling: Ceiling) -> Table:
    """Milliseconds of an evaluation."""
    latent = bench.sizes.latent
    rows = _speed(bench, ceiling, make_denoiser(bench.sizes), (latent, (), latent))
    return Table("Denoiser: ms of an evaluation", SPEED, rows, NOTE)


def decoder_speed(bench: Bench, ceiling: Ceiling) -> Table:
    """Milliseconds from latents to volumes."""
    rows = _speed(bench, ceiling, make_autoencoder(bench.sizes).decoder, (bench.sizes.latent,))
    return Table("Decoder: ms", SPEED, rows, NOTE)


def _speed(
    bench: Bench, ceiling: Ceiling, net: nn.Module, shapes: tuple[tuple[int, ...], ...]
) -> list[Row]:
    net = net.to(bench.device)
    rows: list[Row] = []
    for batch in bench.sizes.batches:
        inputs = [bench.noise(batch, *shape) for shape in shapes]
        found = _ways(bench, net, inputs)
        floor = floors(counted(net, *(tuple(x.shape) for x in inputs)), ceiling)
        best = min(found.values())
        times = [found.get(way, "-") for way in WAYS]
        rows.append((batch, *times, *floor, best / floor.fused, best / batch))
    return rows


@torch.no_grad()
def _ways(bench: Bench, net: nn.Module, inputs: list[Tensor]) -> dict[str, float]:
    has_volumes = any(isinstance(m, nn.Conv3d) for m in net.modules())
    last = torch.channels_last_3d if has_volumes else torch.channels_last
    half, cast = deepcopy(net).to(HALF), [x.to(HALF) for x in inputs]
    turned = deepcopy(half)
    for weight in turned.parameters():  # the activations follow the weights
        if weight.ndim == 2 + (3 if has_volumes else 2):
            weight.data = weight.data.contiguous(memory_format=last)
    found = {
        "float32": bench.ms(lambda: net(*inputs)),
        "bfloat16": bench.ms(lambda: half(*cast)),
        "channels last": bench.ms(lambda: turned(*cast)),
    }
    if bench.device.type == "cuda":
        found["CUDA graph"] = bench.ms(_graph(half, cast).replay)
    if bench.compiled:
        quick = torch.compile(turned)
        found["compiled"] = bench.ms(lambda: quick(*cast))
    return found


def _graph(net: nn.Module, inputs: list[Tensor]) -> torch.cuda.CUDAGraph:
    """All kernels of a call as one launch; works only where nothing waits for the device."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            net(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        net(*inputs)
    return graph

"""Denoiser, decoder and their convolutions, each against the same arithmetic done otherwise.

    .venv/bin/python benchmarks/kernels.py [--rounds 10] [--write docs/results/kernels.md]

The sizes are below the paper's, so that it takes about a minute. On one thread, in turns.
"""

import argparse
import os
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import torch
from floors import counted
from plain_denoiser import PlainDenoiser
from torch import Tensor, nn
from torch.nn import functional

from synth_ct.models.autoencoder import Autoencoder, AutoencoderSizes
from synth_ct.models.denoiser import Denoiser, DenoiserSizes
from synth_ct.models.quantizers import QuantiserSizes

SEED = 7
DENOISER = DenoiserSizes(width=32, heads=4)
LATENT, DECODED = (2, 8, 16, 16, 16), (2, 8, 12, 12, 12)
DECODER = AutoencoderSizes(channels=(16, 32, 64), quantiser=QuantiserSizes(kind="kl"))
MOST_DIFFERENCE = 1e-4
"""Relative L2 beyond this is another result, not another order of sums."""


@dataclass
class Way:
    """One way to do it, and its times over the rounds."""

    name: str
    run: Callable[[], Tensor]
    ms: list[float] = field(default_factory=list)


@dataclass
class Race:
    """Ways to the same result; the first is ours."""

    title: str
    ways: list[Way]
    differences: list[float] = field(default_factory=list)

    def check(self) -> None:
        """Note how far each way is from the first, and refuse one that differs."""
        first = self.ways[0].run().double()
        for way in self.ways:
            difference = float((way.run().double() - first).norm() / first.norm())
            if difference > MOST_DIFFERENCE:
                raise ValueError(f"{self.title}: {way.name} differs by {difference:.1e}")
            self.differences.append(difference)

    def turn(self, *, counts: bool) -> None:
        """Each way once."""
        for way in self.ways:
            begun = time.process_time()
            way.run()
            if counts:
                way.ms.append(1e3 * (time.process_time() - begun))


# ---- what races --------------------------------------------------------------------------------


def channels_last(net: nn.Module, dims: int) -> nn.Module:
    """A copy whose weights lie channels last; the activations follow them."""
    copy = deepcopy(net)
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    for weight in copy.parameters():
        if weight.ndim == 2 + dims:
            weight.data = weight.data.contiguous(memory_format=layout)
    return copy


def alive_denoiser(conditioning: str) -> Denoiser:
    """As after training: nothing in it is zero."""
    torch.manual_seed(SEED)
    sizes = DenoiserSizes.model_validate(DENOISER.model_dump() | {"conditioning": conditioning})
    net = Denoiser(sizes).eval()
    for parameter in net.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return net


def denoiser_race(conditioning: str) -> Race:
    """A step, folded once, and with everything spelt out."""
    net = alive_denoiser(conditioning)
    z, prior = torch.randn(2, *LATENT)
    shown = (z, torch.tensor([20.0, 700.0]), prior)
    plain, last = PlainDenoiser(net), channels_last(net, 2)
    ways = [
        Way("synth-ct: slices folded once, fused attention", lambda: net(*shown)),
        Way("the same, weights channels last", lambda: last(*shown)),
        Way("Conv3d (1, 3, 3), explicit attention and norms", lambda: plain(*shown)),
    ]
    return Race(f"Denoiser step, `{conditioning}`", ways)


def decoder_race() -> Race:
    """Latents to volumes."""
    net = Autoencoder(DECODER).eval().decoder
    last, z = channels_last(net, 3), torch.randn(DECODED)
    ways = [
        Way("synth-ct: weights as they are (NCDHW)", lambda: net(z)),
        Way("weights channels_last_3d", lambda: last(z)),
    ]
    return Race("Decoder", ways)


def convolution_race() -> Race:
    """One convolution in the plane, as it lies in the middle of the net."""
    flat = nn.Conv2d(64, 64, 3, padding=1)
    x = torch.randn(2, 64, 16, 32, 32)  # B C S H W
    folded = x.transpose(1, 2).flatten(0, 1).contiguous()
    last = folded.contiguous(memory_format=torch.channels_last)
    weight, bias = flat.weight[:, :, None], flat.bias

    def each_time() -> Tensor:
        return stays(x.transpose(1, 2).flatten(0, 1)).contiguous()

    def stays(y: Tensor) -> Tensor:
        out: Tensor = flat(y).unflatten(0, (2, -1)).transpose(1, 2)
        return out

    ways = [
        Way("synth-ct: Conv2d, already folded", lambda: stays(folded)),
        Way("the same, channels last", lambda: stays(last)),
        Way("Conv2d, folded and unfolded each time", each_time),
        Way("Conv3d (1, 3, 3)", lambda: functional.conv3d(x, weight, bias, padding=(0, 1, 1))),
    ]
    return Race("A 3x3x1 convolution, 64 channels", ways)


def race(rounds: int) -> list[Race]:
    """All races, in turns; the first round warms up."""
    torch.manual_seed(SEED)
    races = [denoiser_race("cross"), denoiser_race("concat"), decoder_race(), convolution_race()]
    with torch.no_grad():
        for one in races:
            one.check()
        for number in range(rounds + 1):
            for one in races:
                one.turn(counts=number > 0)
            print(f"round {number}", flush=True)
    return races


# ---- the report --------------------------------------------------------------------------------


def launches(conditioning: str) -> tuple[int, int, float, float]:
    """Kernels of a step of the paper's net, ours and plain, and the gigabytes they move."""
    sizes = DenoiserSizes.model_validate({"conditioning": conditioning})
    shapes = ((1, 8, 32, 32, 32), (1,), (1, 8, 32, 32, 32))
    net = Denoiser(sizes)
    ours, plain = counted(net, *shapes), counted(PlainDenoiser(net), *shapes)
    moved = [sum(kernel.moved for kernel in kernels) / 1e9 for kernels in (ours, plain)]
    return len(ours), len(plain), moved[0], moved[1]


def section(one: Race) -> str:
    """A race as a table; ratios are medians over rounds of the same round."""
    lines = [f"## {one.title}", "", HEAD]
    first = np.array(one.ways[0].ms)
    for way, difference in zip(one.ways, one.differences, strict=True):
        ratio = float(np.median(np.array(way.ms) / first))
        times = f"{min(way.ms):.1f} | {float(np.median(way.ms)):.1f} | {ratio:.2f}"
        lines.append(f"| {way.name} | {times} | {difference:.1e} |")
    return "\n".join([*lines, ""])


HEAD = "| way | ms, min | ms, median | times the first | relative L2 |\n|---|---|---|---|---|"

TEMPLATE = """# Kernels: the same arithmetic, done otherwise

Processor time of one thread; {rounds} measured rounds after one to warm up, in each of which every
way runs once, so that all meet the same moments of the machine. Ratios are medians over rounds.
Every way has the same weights, and its result may differ from the first by rounding alone.

{sections}
## Launches

Of one step of the paper's denoiser on a 32^3 latent, views not counted; bytes as bfloat16.

| conditioning | kernels | kernels, plain | GB moved | GB moved, plain |
|---|---|---|---|---|
{launches}

Above, the denoiser has width {width}, {heads} heads and two latents of 16^3, the decoder
{channels} channels and two latents of 12^3. On a CPU convolutions dominate and are alike, so that
the gain is in what stands between them; on a GPU the launches and bytes of the last table count.

Recipe: `.venv/bin/python benchmarks/kernels.py --write docs/results/kernels.md`, {today}, a
machine of {cores} cores, CPU only; seed {seed}. torch {torch}.
"""


def report(races: list[Race]) -> str:
    """The page."""
    rows = []
    for conditioning in ("cross", "concat"):
        ours, plain, ours_gb, plain_gb = launches(conditioning)
        rows.append(f"| {conditioning} | {ours} | {plain} | {ours_gb:.2f} | {plain_gb:.2f} |")
    return TEMPLATE.format(
        rounds=len(races[0].ways[0].ms),
        sections="\n".join(section(one) for one in races),
        launches="\n".join(rows),
        width=DENOISER.width,
        heads=DENOISER.heads,
        channels="/".join(map(str, DECODER.channels)),
        today=date.today(),
        cores=os.cpu_count(),
        seed=SEED,
        torch=torch.__version__,
    )


def main() -> None:
    """Race, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    text = report(race(asked.rounds))
    print(text)
    if asked.write:
        asked.write.write_text(text)


if __name__ == "__main__":
    main()

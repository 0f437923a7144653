"""What a measurement on a device needs: sizes, a clock that waits for the device, tables."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from synth_ct.models.autoencoder import AutoencoderSizes
from synth_ct.models.denoiser import DenoiserSizes
from synth_ct.models.progressive_encoder import PriorSizes
from synth_ct.models.quantizers import QuantiserSizes
from synth_ct.models.style import StyleSizes

WARM, FEWEST, ENOUGH_MS = 2, 5, 1500.0


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is measured, and how often."""

    side: int
    autoencoder: AutoencoderSizes
    prior: PriorSizes
    denoiser: DenoiserSizes
    style: StyleSizes
    judge_width: int = 64
    gemm: int = 8192
    copied: int = 2**30
    batches: tuple[int, ...] = (1, 4, 8)
    evaluations: tuple[int, ...] = (10, 15, 50)
    volumes: int = 16
    """For each measurement of generation, at least."""
    train_batch: int = 8
    """Of prior and denoiser; the autoencoder takes one CT."""
    steps: int = 12
    repeats: int = 20
    calls: int = 3
    """Given at once, so that the device never starves."""

    @property
    def latent(self) -> tuple[int, ...]:
        """Shape of a latent."""
        return (self.denoiser.latent_channels, *3 * [self.side // 4])


TINY_BOOK = QuantiserSizes(kind="homogeneous", codes=32)
SIZES = {
    "paper": Sizes(
        side=128,
        autoencoder=AutoencoderSizes(),
        prior=PriorSizes(),
        denoiser=DenoiserSizes(),
        style=StyleSizes(),
    ),
    "tiny": Sizes(
        side=32,
        autoencoder=AutoencoderSizes(
            channels=(8, 8, 8), blocks=1, latent_channels=4, quantiser=TINY_BOOK
        ),
        prior=PriorSizes(
            film=32, channels=(8, 16, 16), blocks=1, latent_channels=4, quantiser=TINY_BOOK
        ),
        denoiser=DenoiserSizes(latent_channels=4, width=8, multipliers=(1, 2), heads=2),
        style=StyleSizes(width=4, blocks=1),
        judge_width=4,
        gemm=64,
        copied=2**16,
        batches=(2,),
        evaluations=(2,),
        volumes=2,
        train_batch=2,
        steps=4,
        repeats=1,
        calls=1,
    ),
}


@dataclass(frozen=True)
class Bench:
    """Where, and on what."""

    device: torch.device
    sizes: Sizes
    compiled: bool

    def noise(self, *shape: int) -> Tensor:
        """Random numbers on the device."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def ms(self, work: Callable[[], object]) -> float:
        """Median time of a call, once it is warm; long ones are repeated less often."""
        calls, times = self.sizes.calls, list[float]()
        for turn in range(WARM + self.sizes.repeats):
            self.wait()
            begun = time.perf_counter()
            for _ in range(calls):
                work()
            self.wait()
            if turn >= WARM:
                times.append(1e3 * (time.perf_counter() - begun) / calls)
            if len(times) >= FEWEST and sum(times) * calls > ENOUGH_MS:
                break
        return median(times)


Row = tuple[str | float, ...]


@dataclass(frozen=True)
class Table:
    """One section of the report."""

    title: str
    columns: tuple[str, ...]
    rows: list[Row]
    note: str = ""

    def markdown(self) -> str:
        """A heading, the table and its note."""
        lines = [f"## {self.title}", "", _line(self.columns), _line(["---"] * len(self.columns))]
        lines += [_line([_cell(value) for value in row]) for row in self.rows]
        return "\n".join([*lines, "", self.note, ""])


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"

"""The whole: volumes a second from films to files, and training steps a second."""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from floors import Ceiling, Floors, counted, floors
from gpu_bench import Bench, Row, Table
from gpu_networks import HALF, make_autoencoder, make_denoiser
from torch import Tensor, nn

from synth_ct.diffusion import DiffusionRecipe, SamplerRecipe
from synth_ct.generate import XctDiff, as_volume, generate, restyled
from synth_ct.kit.checkpoint import Checkpoints
from synth_ct.kit.loop import Batches, Learner, Training, train
from synth_ct.kit.volume import save
from synth_ct.learners.autoencoder import (
    Adversary,
    AutoencoderBatch,
    AutoencoderLearner,
    AutoencoderRecipe,
)
from synth_ct.learners.denoiser import (
    ConditionedDenoiser,
    DenoiserBatch,
    DenoiserLearner,
    DenoiserRecipe,
)
from synth_ct.learners.prior import PriorBatch, PriorLearner, PriorRecipe
from synth_ct.models.progressive_encoder import ProgressiveEncoder
from synth_ct.models.style import StyleGenerator

MEMORY = Path("/dev/shm")
WRITERS = 8
PRECISIONS = {"cuda": ("float32", "bfloat16"), "cpu": ("float32",)}
"""On a CPU the gradients of a bfloat16 Conv3d are wrong, even infinite."""

# ---- generation --------------------------------------------------------------------------------


class InHalf(nn.Module):
    """A network in bfloat16 behind a face in float32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.to(HALF)

    def forward(self, x: Tensor) -> Tensor:
        """Casts on the way in and out."""
        y: Tensor = self.net(x.to(HALF))
        return y.float()


def models_of(bench: Bench, evaluations: int, batch: int, half: bool) -> XctDiff:
    """Random weights; the denoiser and what is large besides in bfloat16, if asked for."""
    torch.manual_seed(0)
    sizes, device = bench.sizes, bench.device
    autoencoder = make_autoencoder(sizes)
    prior = ProgressiveEncoder(sizes.prior).to(device).eval()
    denoiser = ConditionedDenoiser(sizes.denoiser).to(device).eval()
    style: nn.Module = StyleGenerator(sizes.style).to(device).eval()
    if half:
        autoencoder.decoder = nn.Sequential(InHalf(autoencoder.decoder))
        prior.register_module("shape", InHalf(prior.shape))
        style = InHalf(style)
        denoiser.denoiser.to(HALF)
    return XctDiff(
        style=style,
        prior=prior,
        denoiser=denoiser,
        prior_decoder=None,
        autoencoder=autoencoder.to(device),
        diffusion=DiffusionRecipe(),
        sampler=SamplerRecipe(name="dpmpp_2m", evaluations=evaluations, spacing="karras"),
        micro_batch=batch,
    )


def generation(bench: Bench, ceiling: Ceiling) -> Table:
    """Volumes a second from films to files in memory."""
    step = _a_volume(
        ceiling, make_denoiser(bench.sizes), bench.sizes.latent, (), bench.sizes.latent
    )
    decode = _a_volume(ceiling, make_autoencoder(bench.sizes).decoder, bench.sizes.latent)
    rows: list[Row] = []
    for evaluations in bench.sizes.evaluations:
        for batch in bench.sizes.batches:
            speeds = [
                _volumes_per_second(bench, models_of(bench, evaluations, batch, half))
                for half in (False, True)
            ]
            bounds = [
                1e3 / (evaluations * s + d) for s, d in zip(step[1:], decode[1:], strict=True)
            ]
            rows.append((evaluations, batch, *speeds, *bounds))
    columns = ("evaluations", "batch", "float32", "bfloat16", "fused bound", "eager bound")
    note = "Style, prior, DPM-Solver++(2M), decoder, int16 HU, .nii.gz on tmpfs by threads."
    return Table("Volumes a second, end to end", columns, rows, note)


def _a_volume(ceiling: Ceiling, net: nn.Module, *shapes: tuple[int, ...]) -> Floors:
    """Floors of one volume in a batch of 8."""
    floor = floors(counted(net, *((8, *shape) for shape in shapes)), ceiling)
    return Floors(*(ms / 8 for ms in floor))


def _volumes_per_second(bench: Bench, models: XctDiff) -> float:
    batch = models.micro_batch
    film_B1UV = torch.rand(batch, 1, bench.sizes.side, bench.sizes.side) * 2 - 1
    rounds = max(1, bench.sizes.volumes // batch)
    with (
        _fast_folder() as name,
        ThreadPoolExecutor(WRITERS) as pool,
    ):
        generate(models, restyled(models, film_B1UV), range(batch))
        begun = time.perf_counter()
        for turn in range(rounds):
            volumes = generate(models, restyled(models, film_B1UV), range(batch))
            written = [
                pool.submit(save, volume, Path(name) / f"{turn}-{n}.nii.gz")
                for n, volume in enumerate(volumes)
            ]
        for file in written:
            file.result()
        return rounds * batch / (time.perf_counter() - begun)


def _fast_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)


@torch.inference_mode()
def pieces(bench: Bench) -> Table:
    """Where the time of a volume goes."""
    batch = bench.sizes.batches[-1]
    models = models_of(bench, 1, batch, half=True)
    film_B1UV = bench.noise(batch, 1, bench.sizes.side, bench.sizes.side).tanh()
    prior = models.prior(film_B1UV).y_BCXYZ
    time_B = torch.full((batch,), 500.0, device=bench.device)
    ct_B1XYZ = models.autoencoder.decode(prior)
    volume = as_volume(ct_B1XYZ[0, 0])
    assert models.denoiser is not None
    denoise = partial(models.denoiser, prior, time_B, prior)
    with _fast_folder() as name:
        work: dict[str, Callable[[], object]] = {
            "style": lambda: models.style(film_B1UV),
            "prior": lambda: models.prior(film_B1UV),
            "one evaluation": denoise,
            "codes and decoder": lambda: models.autoencoder.decode(prior),
            "to int16 HU on the host": lambda: [as_volume(ct) for ct in ct_B1XYZ[:, 0]],
            "file, one thread": lambda: save(volume, Path(name) / "a.nii.gz"),
        }
        times = {name: bench.ms(call) for name, call in work.items()}
    times["file, one thread"] *= batch
    rows: list[Row] = [(name, ms / batch) for name, ms in times.items()]
    return Table(f"ms a volume in a batch of {batch}, bfloat16", ("piece", "ms"), rows)


# ---- training ----------------------------------------------------------------------------------


class Trial(NamedTuple):
    """A learner and what it is shown."""

    learner: Learner
    batches: Batches
    batch: int


def trials(bench: Bench) -> dict[str, Callable[[], Trial]]:
    """All three, made when asked for: they need not fit in memory together."""
    sizes, device, many = bench.sizes, bench.device, bench.sizes.train_batch
    rest = Training(seed=0, steps=sizes.steps, global_batch=1, micro_batch=1)

    def autoencoder() -> Trial:
        adversary = Adversary(start=0, width=sizes.judge_width)
        recipe = AutoencoderRecipe(sizes=sizes.autoencoder, adversary=adversary, training=rest)
        ct_B1XYZ = bench.noise(1, 1, *3 * [sizes.side]).tanh()
        learner = AutoencoderLearner(recipe, device)
        return Trial(learner, lambda step, slot: AutoencoderBatch(ct_B1XYZ, step), 1)

    def prior() -> Trial:
        learner = PriorLearner(PriorRecipe(sizes=sizes.prior, training=rest), device)
        film_B1UV = bench.noise(many, 1, sizes.side, sizes.side).tanh()
        ct_B1XYZ = bench.noise(many, 1, *3 * [sizes.side]).tanh()
        return Trial(learner, lambda step, slot: PriorBatch(film_B1UV, ct_B1XYZ, step), many)

    def denoiser() -> Trial:
        learner = DenoiserLearner(DenoiserRecipe(sizes=sizes.denoiser, training=rest), device)
        batch = DenoiserBatch(bench.noise(many, *sizes.latent), bench.noise(many, *sizes.latent))
        return Trial(learner, lambda step, slot: batch, many)

    return {"autoencoder and discriminators": autoencoder, "prior": prior, "denoiser": denoiser}


def training(bench: Bench) -> Table:
    """Steps a second in the loop that all trainings run in."""
    rows: list[Row] = []
    for name, make in trials(bench).items():
        for precision in PRECISIONS[bench.device.type]:
            if bench.device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            trial = make()
            speed = _steps_per_second(trial, bench.sizes.steps, precision)
            rows.append((name, trial.batch, precision, speed, speed * trial.batch, _peak_gb(bench)))
    columns = ("learner", "batch", "precision", "steps/s", "samples/s", "peak GB")
    note = "kit.loop: loss, backward, clipping, step and running average; data on the device."
    return Table("Training", columns, rows, note)


def _steps_per_second(trial: Trial, steps: int, precision: str) -> float:
    told = {"seed": 0, "steps": steps, "global_batch": 1, "micro_batch": 1}
    recipe = Training.model_validate(told | {"precision": precision})
    ends: list[float] = []
    with _fast_folder() as name:
        checkpoints = Checkpoints(folder=Path(name), every=10 * steps)
        train(
            trial.learner,
            trial.batches,
            recipe,
            checkpoints,
            log=lambda step, row: ends.append(time.perf_counter()),
        )
    after = ends[steps // 4 :]
    return (len(after) - 1) / (after[-1] - after[0])


def _peak_gb(bench: Bench) -> float | str:
    return torch.cuda.max_memory_allocated() / 2**30 if bench.device.type == "cuda" else "-"

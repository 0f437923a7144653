"""What each step of a run will cost, from its recipe and those of its inputs alone.

`docs/forecast.md` says where every number comes from, and what is left out.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any, NamedTuple

from finetune.folds import FoldsRecipe
from finetune.shown import Shown
from finetune.stage import FitRecipe
from pretrain.stage import PretrainRecipe
from ray_jobs import workload
from ray_jobs.plan import Step
from ray_jobs.recipes import Ingested
from ray_jobs.steps import Import, trained_on
from ray_jobs.workload import CORE, H200, Device, Net, Pass, seconds_of
from synth_ct.cohort.reader import ABOUT
from synth_ct.generator import GeneratorRecipe
from synth_ct.kit.artifact import read_record
from synth_ct.kit.axes import Grid, Millimetres3
from synth_ct.kit.loop import Training
from synth_ct.learners.autoencoder import AutoencoderRecipe
from synth_ct.learners.denoiser import DenoiserRecipe
from synth_ct.learners.prior import AT_ONCE, PriorRecipe
from synth_ct.pairs.arrays import FIELD_MM
from synth_ct.pairs.disk import PairsRecipe
from synth_ct.phantom.chest_xray import Twin
from synth_ct.phantom.recipe import PhantomCohort
from synth_ct.production.controls import ControlRecipe
from synth_ct.production.order import CorpusRecipe
from synth_ct.sources.lidc import SCANS, TEST_SCANS
from synth_ct.training import StyleStage

START_S = 5.0
"""Of every step: imports, networks, the first batch."""
CT_BYTES, LABEL_BYTES = 1.2, 0.01
"""A voxel in .nii.gz: of int16 HU, of a label map."""
FILM_BYTES = 12_000
"""A twin's film, as JPEG."""
PREVIEW_BYTES = 50_000
CASE_BYTES = 5
"""A voxel of a prepared case: a float32 and a label."""
CURVE_BYTES = 300_000
STATES = 8
"""Weights, two moments and an average, in two checkpoints: while a training lasts."""
VOXEL_CORE_S = 5e-8
"""To read, resample or project a voxel of a CT."""
PHANTOM_CORE_S, FILM_CORE_S, VOLUME_CORE_S = 1.0, 0.5, 0.1
"""To draw a phantom, a phantom's film; to check, write and preview a volume of a corpus."""


class Source(NamedTuple):
    """A public data set, as far as it costs something."""

    cases: int
    voxels: int
    """Of a case on its own grid."""
    sides_mm: Millimetres3


ABDOMEN_MM = (400.0, 400.0, 450.0)
SOURCES = {
    "lidc": Source(SCANS, 512 * 512 * 240, ABDOMEN_MM),
    "chest-xray2017": Source(5856, 0, ABDOMEN_MM),
    "bcv": Source(30, 512 * 512 * 130, ABDOMEN_MM),
    "msd-spleen": Source(41, 512 * 512 * 90, ABDOMEN_MM),
}
"""What is brought is one of these."""
SOMETHING = Source(100, 512 * 512 * 200, ABDOMEN_MM)
"""Any other, until it is ingested and counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of one step, were it made from the start."""

    passes: tuple[Pass, ...] = ()
    core_s: float = 0.0
    """Of one core, beside the networks."""
    stored: float = 0.0
    """Bytes that stay."""
    working: float = 0.0
    """Bytes more while it is made."""

    def seconds(self, device: Device) -> float:
        """On one device. Beside a GPU the cores' work is hidden; without one it adds up."""
        busy = START_S + sum(seconds_of(each, device) for each in self.passes)
        return busy if device is H200 else busy + self.core_s


@dataclass(frozen=True, slots=True)
class Known:
    """The cohorts of a run by name."""

    sources: Mapping[str, Source]

    def of(self, step: Step) -> Source:
        """The cohort among the inputs; of a twin's films, behind it."""
        return next(self.sources[s.name] for s in step.inputs if s.name in self.sources)

    def train(self, pairs: Step) -> int:
        """Patients the generator learns from."""
        (cohort,) = pairs.inputs
        cases = self.sources[cohort.name].cases
        if isinstance(cohort.recipe, Ingested) and cohort.recipe.importer == "lidc":
            return cases - round(cases * TEST_SCANS / SCANS)
        return trained_on(cases)


def known(steps: Sequence[Step], root: Path) -> Known:
    """Phantoms as many as asked for, real cases as many as were ingested or are published."""
    sources: dict[str, Source] = {}
    for step in steps:
        match step.recipe:
            case PhantomCohort(count=count, size=size):
                sources[step.name] = Source(count, size**3, (FIELD_MM,) * 3)
            case Twin(count=count):
                sources[step.name] = Source(count, 0, (FIELD_MM,) * 3)
            case Import():
                sources[step.name] = sources[step.inputs[0].name]
            case Ingested(importer=importer):
                found = SOURCES.get(importer, SOMETHING)
                sources[step.name] = _counted(found, root / step.name)
    return Known(sources)


def _counted(source: Source, folder: Path) -> Source:
    if read_record(folder) is None:
        return source
    summary = json.loads((folder / ABOUT).read_text())["summary"]
    return source._replace(cases=int(summary["accepted"]))


def estimate(step: Step, cohorts: Known) -> Estimate:
    """What it takes; a step of no recipe below writes small tables."""
    judge = ESTIMATES.get(type(step.recipe))
    return judge(step.recipe, step, cohorts) if judge else Estimate()


def device_of(step: Step) -> Device:
    """On what it runs."""
    return H200 if step.gpus else CORE


# ---- cohorts -----------------------------------------------------------------------------------


def _ingested(recipe: Ingested, step: Step, cohorts: Known) -> Estimate:
    source = cohorts.sources[step.name]
    return Estimate(stored=source.cases * source.voxels * CT_BYTES)


def _phantoms(recipe: PhantomCohort, step: Step, cohorts: Known) -> Estimate:
    return Estimate(
        core_s=recipe.count * PHANTOM_CORE_S, stored=recipe.count * recipe.size**3 * CT_BYTES
    )


def _twin(recipe: Twin, step: Step, cohorts: Known) -> Estimate:
    return Estimate(core_s=recipe.count * FILM_CORE_S, stored=float(recipe.count * FILM_BYTES))


def _pairs(recipe: PairsRecipe, step: Step, cohorts: Known) -> Estimate:
    """Volumes as int16, films as float32, uncompressed."""
    source = cohorts.of(step)
    stored = float(source.cases * (2 * recipe.size**3 + 4 * recipe.size**2))
    core_s = source.cases * (VOLUME_CORE_S + source.voxels * VOXEL_CORE_S)
    return Estimate(core_s=core_s, stored=stored)


def _cases(recipe: Shown, step: Step, cohorts: Known) -> Estimate:
    source = cohorts.of(step)
    stored = float(source.cases * prod(_grid(source, recipe.spacing_mm)) * CASE_BYTES)
    return Estimate(core_s=source.cases * source.voxels * 2 * VOXEL_CORE_S, stored=stored)


def _grid(source: Source, spacing_mm: Millimetres3) -> Grid:
    x, y, z = (ceil(s / mm) for s, mm in zip(source.sides_mm, spacing_mm, strict=True))
    return x, y, z


# ---- the generator -----------------------------------------------------------------------------


def _size(step: Step) -> int:
    """Voxels a side of the pairs."""
    return next(s.recipe.size for s in step.inputs if isinstance(s.recipe, PairsRecipe))


def _input(step: Step, kind: type[Any]) -> Any:
    return next(s for s in step.inputs if isinstance(s.recipe, kind))


def trained(net: Net, training: Training, times: float = 1.0) -> Pass:
    """Forward and backward in every step: three forwards."""
    samples = 3 * times * training.steps * training.global_batch
    return Pass(net, samples, training.micro_batch, training.precision != "float32")


def _kept(*nets: Net) -> dict[str, float]:
    stored = float(sum(net.stored for net in nets))
    return {"stored": stored + CURVE_BYTES, "working": STATES * stored}


def _autoencoder(recipe: AutoencoderRecipe, step: Step, cohorts: Known) -> Estimate:
    side, training = recipe.crop or _size(step), recipe.training
    nets = workload.encoding(recipe.sizes, side), workload.decoding(recipe.sizes, side)
    passes = [trained(net, training) for net in nets]
    if recipe.adversary is not None:
        judge = recipe.adversary
        share = 1 - judge.start / training.steps
        slices = workload.judging_slices(judge.width, judge.layers, judge.slices, side)
        volumes = workload.judging_volumes(judge.width, judge.layers, side)
        # Nine forwards: real and made with their gradients, and for the other side the loss, its
        # gradient, and that gradient once more for the adaptive weight.
        passes += [trained(net, training, times=3 * share) for net in (slices, volumes)]
    return Estimate(passes=tuple(passes), **_kept(*nets))


def _prior(recipe: PriorRecipe, step: Step, cohorts: Known) -> Estimate:
    nets = [workload.prior(recipe.sizes)]
    passes = []
    if recipe.target == "ct":
        nets.append(workload.auxiliary_decoding(recipe.sizes))
    else:
        passes.append(_encoded(_input(step, AutoencoderRecipe).recipe, step, cohorts))
    passes += [trained(net, recipe.training) for net in nets]
    return Estimate(passes=tuple(passes), **_kept(*nets))


def _encoded(autoencoder: AutoencoderRecipe, step: Step, cohorts: Known) -> Pass:
    """Every CT once, before the first step."""
    pairs = _input(step, PairsRecipe)
    net = workload.encoding(autoencoder.sizes, pairs.recipe.size)
    return Pass(net, cohorts.train(pairs), AT_ONCE)


def _denoiser(recipe: DenoiserRecipe, step: Step, cohorts: Known) -> Estimate:
    autoencoder, prior = (
        _input(step, AutoencoderRecipe).recipe,
        _input(step, PriorRecipe).recipe,
    )
    net = workload.denoising(recipe.sizes, prior.sizes.depth)
    latents = _encoded(autoencoder, step, cohorts)
    priors = latents._replace(net=workload.prior(prior.sizes))
    return Estimate(passes=(latents, priors, trained(net, recipe.training)), **_kept(net))


def _style(recipe: StyleStage, step: Step, cohorts: Known) -> Estimate:
    """Two networks see both domains and then what the other made; two judges score it all."""
    style = recipe.style
    if style.kind != "cyclegan":
        return Estimate()
    net = workload.restyling(style.sizes, _size(step))
    judge = workload.judging_style(style.sizes, _size(step))
    both = trained(net, style.training, times=4.0)._replace(batch=2 * style.training.micro_batch)
    back = trained(net, style.training, times=2.0)
    judged = trained(judge, style.training, times=16 / 3)  # 2 x (2 + 2 x 3) forwards
    cost = _kept(net, net, judge, judge)
    cost["stored"] = float(net.stored + CURVE_BYTES)  # one of the four is kept
    return Estimate(passes=(both, back, judged), **cost)


# ---- corpora -----------------------------------------------------------------------------------


def _sampled(generator: GeneratorRecipe, volumes: int, *, diffusion: bool) -> tuple[Pass, ...]:
    """Prior, evaluations of the denoiser, decoder; in float32."""
    prior, batch = generator.prior, generator.micro_batch
    decoder = workload.decoding(generator.autoencoder.sizes, generator.size)
    passes = [Pass(workload.prior(prior.sizes), volumes, batch)]
    if diffusion:
        net = workload.denoising(generator.denoiser.sizes, prior.sizes.depth)
        passes.append(Pass(net, volumes * generator.sampler.evaluations, batch))
    elif prior.target == "ct":
        decoder = workload.auxiliary_decoding(prior.sizes)
    return *passes, Pass(decoder, volumes, batch)


def _volumes(count: int, size: int, passes: tuple[Pass, ...] = ()) -> Estimate:
    stored = count * (size**3 * CT_BYTES + PREVIEW_BYTES)
    return Estimate(passes=passes, core_s=count * VOLUME_CORE_S, stored=stored)


def _synthetic(recipe: CorpusRecipe, step: Step, cohorts: Known) -> Estimate:
    generator: GeneratorRecipe = _input(step, GeneratorRecipe).recipe
    count = cohorts.of(step).cases * recipe.samples
    passes = _sampled(generator, count, diffusion=not recipe.prior_only)
    if recipe.restyled and generator.style.kind == "cyclegan":
        net = workload.restyling(generator.style.sizes, generator.size)
        passes += (Pass(net, count, generator.micro_batch),)
    return _volumes(count, generator.size, passes)


def _control(recipe: ControlRecipe, step: Step, cohorts: Known) -> Estimate:
    pairs = _input(step, PairsRecipe)
    count, size = cohorts.train(pairs), pairs.recipe.size
    if recipe.control == "real":
        return _volumes(count, size)
    generator: GeneratorRecipe = _input(step, GeneratorRecipe).recipe
    if recipe.control == "drr":
        return _volumes(count, size, _sampled(generator, count, diffusion=True))
    sizes, batch = generator.autoencoder.sizes, generator.micro_batch
    nets = workload.encoding(sizes, size), workload.decoding(sizes, size)
    return _volumes(count, size, tuple(Pass(net, count, batch) for net in nets))


# ---- encoders and fits -------------------------------------------------------------------------


def _encoder(recipe: PretrainRecipe, step: Step, cohorts: Known) -> Estimate:
    network = recipe.network
    stored = float(workload.transferred(network.backbone, network.transfer) + CURVE_BYTES)
    if recipe.arm == "scratch":
        return Estimate(stored=stored)
    net = workload.pretraining(network.backbone, network.objective, network.crop)
    working = float(STATES * net.stored)
    return Estimate(passes=(trained(net, network.training),), stored=stored, working=working)


def _fit(recipe: FitRecipe, step: Step, cohorts: Known) -> Estimate:
    """Training, and then the fold's own cases, window by window."""
    how, source = recipe.finetuning, cohorts.of(step)
    net = workload.segmenting(recipe.backbone, how.crop.sides)
    cases = _asked_about(_input(step, FoldsRecipe).recipe, source.cases)
    grid = _grid(source, _input(step, Shown).recipe.spacing_mm)
    seen = cases * windows(grid, how.crop.sides, how.inference.overlap)
    predicted = Pass(net, seen, how.inference.windows_at_once, half=True)
    cost = _kept(net)
    cost["stored"] += cases * source.voxels * LABEL_BYTES
    core_s = cases * source.voxels * VOXEL_CORE_S
    return Estimate(passes=(trained(net, how.training), predicted), core_s=core_s, **cost)


def _asked_about(recipe: FoldsRecipe, cases: int) -> float:
    return cases / recipe.folds if recipe.protocol == "full_cv" else float(recipe.held_out)


def windows(grid: Grid, crop: Grid, overlap: float) -> int:
    """prod over axes of 1 + ceil((n - c) / (c (1 - overlap)))."""
    along = (
        1 + max(0, ceil((n - c) / max(1, int(c * (1 - overlap)))))
        for n, c in zip(grid, crop, strict=True)
    )
    return prod(along)


ESTIMATES: Mapping[type[Any], Callable[[Any, Step, Known], Estimate]] = {
    Ingested: _ingested,
    PhantomCohort: _phantoms,
    Twin: _twin,
    PairsRecipe: _pairs,
    AutoencoderRecipe: _autoencoder,
    PriorRecipe: _prior,
    DenoiserRecipe: _denoiser,
    StyleStage: _style,
    CorpusRecipe: _synthetic,
    ControlRecipe: _control,
    PretrainRecipe: _encoder,
    Shown: _cases,
    FitRecipe: _fit,
}

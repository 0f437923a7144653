"""The paper's tables and figures, answered by what lies below a root."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from reports.quoted import by_system, notes, of_table, read_quotes, showing
from synth_ct.cohort import Cohort
from synth_ct.evaluation.extractor import Extractor, load_extractor, volume_features
from synth_ct.evaluation.figures import (
    Triptych,
    chosen_cases,
    reconstruction_figure,
    style_figure,
)
from synth_ct.evaluation.frechet import set_distances
from synth_ct.evaluation.lpips_distance import local_lpips
from synth_ct.evaluation.protocols import PROTOCOLS, Scores, Volumes, score
from synth_ct.evaluation.render import markdown
from synth_ct.evaluation.table import Pairing, Row, System, compare, summarise
from synth_ct.generate import XctDiff, generate, restyled
from synth_ct.generator import Generator, find_generator, open_generator
from synth_ct.held_out import HeldOut, autoencoded, references, sampled, systems
from synth_ct.kit.artifact import RECORD, read_record
from synth_ct.kit.durable import write_text
from synth_ct.kit.numerics import device
from synth_ct.kit.progress import progress
from synth_ct.kit.statistics import Estimate
from synth_ct.learners.autoencoder import AutoencoderRecipe, load_autoencoder
from synth_ct.models.perceptual import TRUNKS, LpipsDistance
from synth_ct.pairs.disk import open_pairs, subject_of
from synth_ct.pairs.films import framed_films
from synth_ct.training import recipe_of

PAPER = "Bai et al., XctDiff"
METRICS = {
    1: ("psnr", "ssim", "mae_hu", "lpips"),
    2: ("psnr", "ssim", "mae_hu", "lpips", "code_usage"),
    3: ("psnr", "ssim", "lpips"),
}
PAIRS = "cohorts/pairs"
NO_TRUNK = (
    f"its weights, {TRUNKS['alexnet'].file}, are not here; `synth-ct doctor` says where to get them"
)
NO_EXTRACTOR = "no extractor was given (--extractor FILE)"
SLICES_APART = 4
"""Slices between two that FID and KID see."""
SHOWN = 3
"""Patients in figure 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked."""

    root: Path
    """Of a run, or one of its generators."""
    table: int | None
    figure: int | None
    samples: int
    cases: int | None
    lpips: Path | None
    """Trunk weights; None looks in torch's cache."""
    extractor: Path | None
    """Of features for FID and KID; None measures neither."""
    seed: int

    @property
    def of_the_run(self) -> Path:
        """Where cohorts lie."""
        here = self.root.resolve()
        return here.parent.parent if (here / RECORD).exists() else here

    @property
    def name(self) -> str:
        """Of the files of the answer."""
        return f"table{self.table}" if self.table else f"figure{self.figure}"


@dataclass(frozen=True, slots=True)
class Answer:
    """For machines and for people."""

    json: dict[str, Any]
    lines: list[str]


def answer(question: Question) -> Answer:
    """Measure, write below `evaluation/`, and tell."""
    if question.figure == 4:
        raise ValueError(
            "figure 4 shows networks pretrained on the corpus, and this root holds none; "
            "there are --figure 2 and 3"
        )
    demand_run(question)
    out = question.of_the_run / "evaluation"
    out.mkdir(exist_ok=True)
    if question.figure:
        file = out / f"{question.name}.png"
        FIGURES[question.figure](question, file)
        return Answer({"rows": [], "paired": [], "figure": str(file)}, [str(file)])
    assert question.table is not None
    rows, paired = TABLES[question.table](question, measures(question))
    about = subject(question)
    quotes = showing(of_table(read_quotes(), PAPER, str(question.table)), METRICS[question.table])
    remarks = (*said(about, question), *notes(quotes))
    text = markdown(rows, METRICS[question.table], by_system(quotes), remarks)
    found = {
        **about,
        "samples": question.samples,
        "seed": question.seed,
        "rows": [row.as_json() for row in rows],
        "paired": [pairing.as_json() for pairing in paired],
    }
    write_text(out / f"{question.name}.md", text)
    write_text(out / f"{question.name}.json", json.dumps(found, indent=1, allow_nan=False))
    return Answer(found, [text, f"written to {out / question.name}.md and .json"])


def demand_run(question: Question) -> None:
    """The patients to measure with lie below the root of a run, and nowhere else."""
    pairs = question.of_the_run / PAIRS
    if not (pairs / RECORD).exists():
        raise ValueError(
            f"{question.root} is no root of a run, nor one of its generators: {pairs} is not "
            "there, and with it the patients held out; a generator that was moved reconstructs, "
            "but is measured below its root alone. Give the ROOT of `synth-ct run RECIPE --root "
            "ROOT`, or make one, e.g. `synth-ct run tiny --until generator --root ROOT`"
        )


def subject(question: Question) -> dict[str, Any]:
    """What the numbers are about: evidence, cohort, and which weights."""
    path = question.of_the_run
    measured = "autoencoder" if question.table == 2 else "generator"
    found = sorted(path.glob(f"{measured}/*/{RECORD}"))
    prints = {p.parent.name: record.fingerprint for p in found if (record := read_record(p.parent))}
    return {**subject_of(path / PAIRS), "scale": "nominal", f"{measured}s": prints}


def said(about: Mapping[str, Any], question: Question) -> tuple[str, ...]:
    """Under the table: how far the numbers carry."""
    prints = about.get("generators") or about.get("autoencoders") or {"none": ""}
    weights = ", ".join(" ".join(named).strip() for named in prints.items())
    return (
        f"* Evidence: {about['evidence']}. Trained on and measured with {about['trained_on']}, "
        "patients apart; millimetres are nominal.",
        f"* {drawn(question)} {question.seed}. Weights: {weights}.",
        *(
            ("* Quoted numbers were measured on real CT of adults: compare no phantom with them.",)
            if about["evidence"] == "phantom"
            else ()
        ),
    )


def drawn(question: Question) -> str:
    """What the seed was for: an autoencoder draws nothing, and Table 3 compares single samples."""
    if question.table == 2:
        return "Intervals by seed"
    samples = 1 if question.table == 3 else question.samples
    return f"{samples} {'sample' if samples == 1 else 'samples'} a radiograph, seed"


def held_out(question: Question) -> HeldOut:
    """The test part, or as much of it as was asked for."""
    pairs = open_pairs(question.of_the_run / PAIRS)
    numbers = pairs.of("test")[: question.cases]
    patients = len({pairs.rows[n].patient for n in numbers})
    if patients < 2:
        raise ValueError(
            f"{patients} patients are held out; a mean over them says nothing: "
            "make the cohort larger"
        )
    return HeldOut(pairs=pairs, numbers=numbers, samples=question.samples, seed=question.seed)


# ---- measures ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What needs a file of weights."""

    lpips: LpipsDistance | None
    extractor: Extractor | None
    absent: Mapping[str, str]
    """Why there is none, by metric."""


def measures(question: Question) -> Measures:
    """Opened and tried before any volume is made, for that takes long."""
    place, absent, extractor = torch.device(device()), dict[str, str](), None
    lpips = local_lpips("alexnet", question.lpips, place).measure
    if lpips is None:
        absent["lpips"] = NO_TRUNK
    if question.extractor is None:
        absent |= dict.fromkeys(("fid", "kid"), NO_EXTRACTOR)
    else:
        extractor = load_extractor(question.extractor, place)
        pairs = open_pairs(question.of_the_run / PAIRS)
        volume_features(extractor, pairs.volumes_NXYZ[:1], pairs.size, place)
    return Measures(lpips=lpips, extractor=extractor, absent=absent)


# ---- tables ------------------------------------------------------------------------------------


def table1(question: Question, using: Measures) -> tuple[list[Row], list[Pairing]]:
    """One generator beside what must be beaten and what cannot be."""
    generator = opened(question, question.root)
    held = held_out(question)
    with progress("volumes", (2 * held.samples + 2) * len(held.numbers)) as tick:
        made = systems(generator, held, tick)
    described = {name: _described(name, generator) for name in made}
    return scored(question, using, held, made, described, ("hu1500", "x2ct"))


def table2(question: Question, using: Measures) -> tuple[list[Row], list[Pairing]]:
    """Every autoencoder below the root, on the true CT."""
    held = held_out(question)
    made, described = with_references(held)
    usage: dict[str, Estimate] = {}
    folders = sorted(p.parent for p in question.of_the_run.glob(f"autoencoder/*/{RECORD}"))
    if not folders:
        raise ValueError(f"no autoencoder is finished below {question.of_the_run}; train some")
    with progress("reconstructions", len(folders) * len(held.numbers)) as tick:
        for folder in folders:
            recipe = recipe_of(folder, AutoencoderRecipe)
            model = load_autoencoder(recipe, folder, torch.device(device()))
            rebuilt = autoencoded(model, recipe.sizes.quantiser, held, tick)
            made[folder.name] = rebuilt.volumes
            described[folder.name] = System(name=folder.name, views=None, params=weights_of(model))
            if rebuilt.code_usage is not None:
                usage[folder.name] = Estimate(rebuilt.code_usage, None, None, None)
    rows, paired = scored(question, using, held, made, described)
    return [
        row.with_metrics({"code_usage": usage[row.system.name]})
        if row.system.name in usage
        else row
        for row in rows
    ], paired


def table3(question: Question, using: Measures) -> tuple[list[Row], list[Pairing]]:
    """Every generator below the root, one sample a radiograph."""
    held = replace(held_out(question), samples=1)
    folders = sorted(p.parent for p in question.of_the_run.glob(f"generator/*/{RECORD}"))
    if not folders:
        raise ValueError(f"no generator is finished below {question.of_the_run}; train some")
    made, described = with_references(held)
    with progress("volumes", len(folders) * len(held.numbers)) as tick:
        for folder in folders:
            generator = opened(question, folder)
            made[folder.name] = sampled(generator.models, held, tick).single
            described[folder.name] = _described(folder.name, generator)
    return scored(question, using, held, made, described)


def with_references(held: HeldOut) -> tuple[dict[str, Volumes], dict[str, System]]:
    """What every table is read against."""
    made = dict(references(held))
    return made, {name: _reference(name) for name in made}


def scored(
    question: Question,
    using: Measures,
    held: HeldOut,
    made: Mapping[str, Volumes],
    described: Mapping[str, System],
    protocols: tuple[str, ...] = ("hu1500",),
) -> tuple[list[Row], list[Pairing]]:
    """Every system under every protocol; pairs under the first."""
    truth, patients = held.truth(), held.patients()
    rows: list[Row] = []
    first: dict[str, Scores] = {}
    for name in protocols:
        protocol = PROTOCOLS[name]
        for system, volumes in made.items():
            scores = score(volumes, truth, protocol, using.lpips)
            row = summarise(
                described[system], protocol, scores, patients, question.seed, using.absent
            )
            if name == protocols[0]:
                first[system] = scores
                row = row.with_metrics(of_the_set(using.extractor, held, volumes))
            rows.append(row)
    return rows, compare(first, PROTOCOLS[protocols[0]], patients, question.seed)


def of_the_set(extractor: Extractor | None, held: HeldOut, made: Volumes) -> dict[str, Estimate]:
    """FID and KID, where an extractor was given."""
    if extractor is None:
        return {}
    place = torch.device(device())
    cases = sorted(made)
    truth, patients = held.truth(), held.patients()
    ours, theirs = (
        volume_features(extractor, (volumes[case] for case in cases), SLICES_APART, place)
        for volumes in (made, truth)
    )
    return set_distances(ours, theirs, [patients[case] for case in cases])


def opened(question: Question, path: Path) -> Generator:
    """A generator on this machine's device, if the patients held out are strangers to it."""
    folder = find_generator(path)
    learnt, ours = read_record(folder), read_record(question.of_the_run / PAIRS)
    if learnt and ours and learnt.inputs.get(PAIRS) != ours.fingerprint:
        raise ValueError(
            f"{folder} learnt from other pairs than {question.of_the_run / PAIRS}, so that it may "
            "know the patients held out here; measure it below the root it was made in"
        )
    return open_generator(folder, torch.device(device()))


def weights_of(*networks: torch.nn.Module | None) -> int:
    """How many parameters."""
    return sum(p.numel() for network in networks if network for p in network.parameters())


def _reference(system: str) -> System:
    return System(name=system, views=1 if system == "nearest_case" else None)


def _described(system: str, generator: Generator) -> System:
    """How many films a system reads, its size, and its arithmetic for one volume."""
    models = generator.models
    if system in ("mean_volume", "nearest_case"):
        return _reference(system)
    if system == "autoencoder_ceiling":
        return System(name=system, views=None, params=weights_of(models.autoencoder))
    if system == "prior_only":
        models = replace(models, denoiser=None)
    decoder = models.autoencoder if models.denoiser else models.prior_decoder or models.autoencoder
    params = weights_of(models.prior, models.denoiser, decoder)
    return System(name=system, params=params, tmacs=tmacs_of(models, generator.about.recipe.size))


def tmacs_of(models: XctDiff, size: int) -> float:
    """10^-12 multiply-adds of one sample, all evaluations and the decoding included."""
    with FlopCounterMode(display=False) as counter:
        generate(models, torch.zeros(1, 1, size, size), [0])
    return float(counter.get_total_flops() / 2e12 / models.micro_batch)


# ---- figures -----------------------------------------------------------------------------------


def figure2(question: Question, file: Path) -> None:
    """Real radiographs, DRRs of other patients, and the radiographs restyled."""
    generator, held = opened(question, question.root), held_out(question)
    cohort = Cohort.open(question.of_the_run / "cohorts/radiographs")
    unseen = [case for case in cohort.cases if case.split != "train"]
    cases = sorted(unseen, key=lambda case: not case.finding.startswith("NORMAL"))[:SHOWN]
    if not cases:
        raise ValueError(
            f"every radiograph of {cohort.folder} was trained on, so there is none to show; "
            "make the cohort larger"
        )
    with progress("radiographs", len(cases)) as tick:
        films = framed_films(cohort, cases, held.pairs.size, tick)
    styled = restyled(generator.models, torch.from_numpy(films[:, None]))[:, 0].numpy()
    rows = [
        Triptych(
            name=case.id,
            real_UV=films[n],
            drr_UV=held.pairs.films_NUV[held.numbers[n % len(held.numbers)]],
            styled_UV=styled[n],
        )
        for n, case in enumerate(cases)
    ]
    style_figure(rows, file)


def figure3(question: Question, file: Path) -> None:
    """The truth and every system in three planes: best, median and worst by PSNR of xctdiff."""
    generator, held = opened(question, question.root), held_out(question)
    with progress("volumes", (2 * held.samples + 2) * len(held.numbers)) as tick:
        made = systems(generator, held, tick)
    scores = score(made["xctdiff"], held.truth(), PROTOCOLS["hu1500"])
    chosen = chosen_cases({case: values["psnr"] for case, values in scores.items()})
    rule = f"{', '.join(one.why for one in chosen)} of {len(scores)} held out by PSNR of xctdiff"
    reconstruction_figure(made, held.truth(), chosen, rule, file)


TABLES: Mapping[int, Callable[[Question, Measures], tuple[list[Row], list[Pairing]]]] = {
    1: table1,
    2: table2,
    3: table3,
}
FIGURES: Mapping[int, Callable[[Question, Path], None]] = {2: figure2, 3: figure3}

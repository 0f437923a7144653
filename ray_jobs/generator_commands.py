"""The commands of a finished generator: radiographs to CT, and how good it is."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ray_jobs.console import MAX_QUARANTINE, Tolerance, finish, tell
from ray_jobs.options import CORES, AsJson, Seed, Share, Strict

if TYPE_CHECKING:
    from synth_ct.generator import About
    from synth_ct.kit.quarantine import SetAside
    from synth_ct.reconstruct import Written


class Gate(StrEnum):
    """What becomes of a volume that fails a check of quality."""

    enforce = "enforce"
    record = "record"


Model = Annotated[Path, typer.Option(help="A generator, or the root of a run that made one.")]


def reconstruct(
    radiographs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RADIOGRAPH...",
            help="JPEG, PNG, TIFF or DICOM; one at least.",
            default_factory=list,
            show_default=False,
        ),  # an empty list is refused below, in words that fit a forgotten OUT
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write to.")],
    model: Model,
    samples: Annotated[int, typer.Option(min=1, max=64, help="Volumes a radiograph.")] = 1,
    seed: Seed = 0,
    drr: Annotated[
        bool, typer.Option("--drr", help="The films are DRRs already: no style transfer.")
    ] = False,
    max_quarantine: Share = MAX_QUARANTINE,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """From radiographs to synthetic CT: NIfTI, a three-plane picture and a sidecar each.

    Several samples of a radiograph also give their mean, and a map of where they differ.

    Example: synth-ct reconstruct a.jpeg b.dcm out/ --model runs/tiny --samples 4
    """
    import torch

    from synth_ct import reconstruct as stage
    from synth_ct.generator import open_generator
    from synth_ct.kit.numerics import device
    from synth_ct.kit.progress import progress

    _demand_arguments(radiographs, out)
    tolerance = Tolerance(max_quarantine=max_quarantine, strict=strict)
    with progress("loading the generator", 1) as tick:
        generator = open_generator(model, torch.device(device()))
        tick(1)
    with progress("reading radiographs", len(radiographs)) as tick:
        films, set_aside = stage.read_films(radiographs, generator.about.recipe.size, tick)
    stage.report(set_aside, radiographs, out)
    written = stage.Written([], [])
    if films:
        with progress("volumes", len(films) * samples) as tick:
            sampling = stage.Sampling(samples, seed, drr)
            written = stage.reconstruct(generator, films, out, sampling, tick)
    result, lines = _told(generator.about, written, set_aside, out)
    tell(result, lines, as_json)
    finish(tolerance.exit_code(len(radiographs), len(set_aside), 0), len(set_aside))


def _told(
    about: "About", written: "Written", set_aside: list["SetAside"], out: Path
) -> tuple[dict[str, Any], list[str]]:
    """The answer for machines and for people."""
    from synth_ct.reconstruct import as_json, as_lines

    result = as_json(written, set_aside)
    result |= {"out": str(out), "scale": about.scale, "trained_on": about.trained_on}
    lines = as_lines(written, set_aside, out)
    if written.volumes:
        lines.append(
            f"SYNTHETIC. scale: {about.scale} (a radiograph has no millimetres); "
            f"trained_on: {about.trained_on}"
        )
    return result, lines


def _demand_arguments(radiographs: list[Path], out: Path) -> None:
    """Before minutes are spent on loading."""
    from synth_ct.kit.artifact import RECORD

    if out.exists() and not out.is_dir():
        raise typer.BadParameter(
            f"{out} is a file, and the last argument is OUT, the folder to write to: "
            "synth-ct reconstruct RADIOGRAPH... OUT --model ROOT"
        )
    if (out / RECORD).exists():
        raise typer.BadParameter(
            f"{out} is a finished cohort or model, which never changes; write to another folder"
        )
    if not radiographs:
        raise typer.BadParameter(f"no RADIOGRAPH is given before the output folder, {out}")


def generate(
    radiographs: Annotated[
        Path,
        typer.Argument(metavar="RADIOGRAPHS", exists=True, help="A folder or cohort of them."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The corpus to make.")],
    model: Model,
    actors: Annotated[
        str, typer.Option(metavar="N|MIN:MAX", help="Size of the pool.")
    ] = f"{CORES}",
    gpus_per_actor: Annotated[
        float | None, typer.Option(min=0, help="[1 where the cluster has GPUs, else 0]")
    ] = None,
    wait_gpus: Annotated[int, typer.Option(min=0, help="Wait until there are so many GPUs.")] = 0,
    local: Annotated[
        bool, typer.Option("--local", help="Processes of this machine in place of Ray's actors.")
    ] = False,
    samples: Annotated[int, typer.Option(min=1, max=64, help="Volumes a radiograph.")] = 1,
    seed: Seed = 0,
    gate: Annotated[
        Gate, typer.Option(help="A volume that fails a check: no file, or kept and noted.")
    ] = Gate.enforce,
    retry_quarantined: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Try these again; may be repeated.")
    ] = None,
    max_quarantine: Share = MAX_QUARANTINE,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """A corpus of synthetic CT from a folder of radiographs, on Ray; run again to continue.

    Example: synth-ct generate films/ corpus/ --model runs/tiny --actors 2
    """
    from ray_jobs.generate import Asked, Pool, generate_corpus
    from synth_ct.production.order import CorpusRecipe

    tolerance = Tolerance(max_quarantine=max_quarantine, strict=strict)
    least, most = _pool_size(actors)
    asked = Asked(
        radiographs=radiographs,
        out=out,
        model=model,
        recipe=CorpusRecipe(samples=samples, seed=seed, gate=gate.value),
        pool=Pool(least=least, most=most, gpus=gpus_per_actor),
        wait_gpus=wait_gpus,
        local=local,
        retry=frozenset(retry_quarantined or ()),
    )
    result, lines = generate_corpus(asked)
    tell(result, lines, as_json)
    counts = (result["total"], result["quarantined"], result["duplicates"])
    finish(tolerance.exit_code(*counts), result["quarantined"])


def _pool_size(text: str) -> tuple[int, int]:
    """`4` is 4 to 4; `2:8` is elastic."""
    least, colon, most = text.partition(":")
    try:
        bounds = (int(least), int(most if colon else least))
    except ValueError:
        raise typer.BadParameter(f"--actors is a number, or MIN:MAX, not {text!r}") from None
    if not 1 <= bounds[0] <= bounds[1]:
        raise typer.BadParameter(f"--actors {text}: at least 1, and MIN not above MAX")
    return bounds


def evaluate(
    root: Annotated[Path, typer.Argument(metavar="ROOT", exists=True, help="The root of a run.")],
    table: Annotated[int | None, typer.Option(min=1, max=3, help="Of the paper.")] = None,
    figure: Annotated[int | None, typer.Option(min=2, max=4, help="Of the paper.")] = None,
    samples: Annotated[int, typer.Option(min=1, max=100, help="Volumes a radiograph.")] = 8,
    cases: Annotated[int | None, typer.Option(min=2, help="At most so many [all].")] = None,
    lpips: Annotated[
        Path | None, typer.Option(help="Trunk weights for LPIPS; without them it is not measured.")
    ] = None,
    extractor: Annotated[
        Path | None, typer.Option(help="Inception weights for FID and KID; else not measured.")
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """The paper's tables and figures, on what was made here and on patients held out.

    Example: synth-ct evaluate runs/tiny --table 1
    """
    from ray_jobs.evaluate import Question, answer

    if (table is None) == (figure is None):
        raise typer.BadParameter("give either --table 1, 2 or 3, or --figure 2, 3 or 4")
    question = Question(
        root=root,
        table=table,
        figure=figure,
        samples=samples,
        cases=cases,
        lpips=lpips,
        extractor=extractor,
        seed=seed,
    )
    found = answer(question)
    tell(found.json, found.lines, as_json)

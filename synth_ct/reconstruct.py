"""Radiograph files to CT files: volumes, pictures and sidecars for a person with a few films.

Every output is named by what it depends on: the radiograph's bytes, the generator, the sampler, the
seed and the sample's number. Sidecars carry that id and no path; `sources.csv`, which says which
file became which volume, is local.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from synth_ct.generate import XctDiff, generate, restyled
from synth_ct.generator import Generator
from synth_ct.kit.artifact import code_hash
from synth_ct.kit.axes import FilmArray, FilmBatch
from synth_ct.kit.durable import sha256_of_file, write_bytes, write_text
from synth_ct.kit.numerics import numerics
from synth_ct.kit.progress import Tick
from synth_ct.kit.quarantine import (
    REPORT,
    Refused,
    SetAside,
    printable,
    read_report,
    write_report,
)
from synth_ct.kit.volume import Volume, save, to_int16
from synth_ct.production.maker import described, files_of
from synth_ct.production.order import seed_of, volume_id, way_of
from synth_ct.quality import Verdict, judge
from synth_ct.quality.explain import explained, remedy
from synth_ct.xray.frame import frame
from synth_ct.xray.pose import read_radiograph

SOURCES = "sources.csv"
SYNTHETIC = "SYNTHETIC: made by a network from one radiograph. Not a measurement, not diagnostic."


class Film(NamedTuple):
    """A radiograph that could be read."""

    path: Path
    sha256: str
    film_UV: FilmArray
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One written volume, and what was thought of it."""

    id: str
    source: Path
    seed: int
    sample: int
    verdict: Verdict
    why: str
    """It was rejected, with what was measured and the limit; empty for one accepted."""

    @property
    def file(self) -> str | None:
        """The volume, below the output folder; None where it has no finite values."""
        return None if self.verdict.reason == "not_finite" else f"{self.id}.nii.gz"


class Spread(NamedTuple):
    """The files about all samples of one radiograph, below the output folder."""

    source: Path
    samples: int
    mean: str
    sd: str


class Written(NamedTuple):
    """All that a run wrote."""

    volumes: list[Made]
    spreads: list[Spread]


def read_films(paths: Sequence[Path], size: int, tick: Tick) -> tuple[list[Film], list[SetAside]]:
    """Read and frame; what cannot be trusted is set aside, under the path that was given."""
    films, set_aside = [], []
    for path in paths:
        try:
            decoded = read_radiograph(path)
        except Refused as refused:
            set_aside.append(refused.row(printable(path)))
        except OSError as error:
            cause = f"the file cannot be read ({error.strerror})"
            row = SetAside(code="E_UNREADABLE", file=printable(path), cause=cause)
            set_aside.append(replace(row, remedy="check its name and its rights"))
        else:
            framed = frame(decoded.pixels_UV, size)
            notes = (*decoded.notes, *framed.notes)
            films.append(Film(path, sha256_of_file(path), framed.film_UV, notes))
        tick(1)
    return films, set_aside


class Sampling(NamedTuple):
    """How a radiograph is sampled."""

    samples: int = 1
    seed: int = 0
    drr: bool = False
    """The film is a DRR already and keeps its style."""


def reconstruct(
    generator: Generator, films: Sequence[Film], out: Path, sampling: Sampling, tick: Tick
) -> Written:
    """Write the samples of each film, and of several their mean and their spread."""
    out.mkdir(parents=True, exist_ok=True)
    together = max(1, generator.models.micro_batch // sampling.samples)
    made: list[Made] = []
    spreads: list[Spread] = []
    for start in range(0, len(films), together):
        part = films[start : start + together]
        film_B1UV = torch.from_numpy(np.stack([film.film_UV for film in part])[:, None])
        styled = film_B1UV if sampling.drr else restyled(generator.models, film_B1UV)
        ids = _ids(generator, part, sampling)
        seeds = [seed_of(sampling.seed, i) for i in ids]
        volumes: list[Volume] = []
        for n, volume in enumerate(_volumes(generator.models, styled, seeds)):
            film, k = each(part, sampling)[n]
            # Against the training films, not its companions: a verdict is a volume's own.
            seen_UV = styled[n // sampling.samples, 0].numpy()
            verdict = judge(volume, seen_UV, [], generator.reference)
            why = explained(verdict, generator.reference)
            one = Made(
                id=ids[n], source=film.path, seed=seeds[n], sample=k, verdict=verdict, why=why
            )
            _write(generator, one, film, volume, sampling, out)
            made.append(one)
            volumes.append(volume)
            tick(1)
        ours = made[-len(volumes) :]
        for first in range(0, len(volumes), sampling.samples):
            of_one_film = volumes[first : first + sampling.samples]
            spreads += _write_spread(generator, of_one_film, ours[first], out)
        _note_sources(ours, out / SOURCES)
    return Written(made, spreads)


def _volumes(models: XctDiff, film_B1UV: FilmBatch, seeds: Sequence[int]) -> Iterator[Volume]:
    """A film's volumes beside one another, a micro-batch at a time, so that progress is seen."""
    film_B1UV = film_B1UV.repeat_interleave(len(seeds) // len(film_B1UV), 0)
    for start in range(0, len(seeds), models.micro_batch):
        now = slice(start, start + models.micro_batch)
        yield from generate(models, film_B1UV[now], seeds[now])


def each(films: Sequence[Film], sampling: Sampling) -> list[tuple[Film, int]]:
    """Every film with every sample's number, film after film."""
    return [(film, k) for film in films for k in range(sampling.samples)]


def _ids(generator: Generator, part: Sequence[Film], sampling: Sampling) -> list[str]:
    """As `generate` names them: the same film, generator, seed and sample is the same volume."""
    way = _way(generator, sampling)
    return [
        volume_id(film.sha256, generator.fingerprint, way, sampling.seed, k)
        for film, k in each(part, sampling)
    ]


def _way(generator: Generator, sampling: Sampling) -> dict[str, Any]:
    prior_only = generator.models.denoiser is None
    return way_of(generator.about.recipe, restyled=not sampling.drr, prior_only=prior_only)


# ---- files -------------------------------------------------------------------------------------


def _write(
    generator: Generator, made: Made, film: Film, volume: Volume, sampling: Sampling, out: Path
) -> None:
    sha256 = ""
    if made.file:
        files = files_of(made.id, volume)
        sha256 = write_bytes(out / made.file, files.volume)
        write_bytes(out / f"{made.id}.png", files.preview)
    sidecar = {
        "id": made.id,
        **_origin(generator),
        "radiograph_sha256": film.sha256,
        "radiograph_notes": list(film.notes),
        **_way(generator, sampling),
        "sample": made.sample,
        "seed": made.seed,
        "file_sha256": sha256,
        "accepted": made.verdict.accepted,
        "reason": made.verdict.reason,
        "quality": made.verdict.figures,
    }
    write_text(out / f"{made.id}.json", json.dumps(sidecar, indent=1, allow_nan=False))


def _origin(generator: Generator) -> dict[str, Any]:
    """What stands beside everything that is written."""
    return {
        "what": SYNTHETIC,
        "model": generator.fingerprint,
        "scale": generator.about.scale,
        "trained_on": generator.about.trained_on,
        "code": code_hash(),
        "numerics": numerics(str(generator.models.device)),
    }


def _write_spread(
    generator: Generator, volumes: Sequence[Volume], first: Made, out: Path
) -> list[Spread]:
    """The mean of a radiograph's samples, and their standard deviation in HU: where they differ.

    Nothing where fewer than two samples are finite.
    """
    stack = [to_int16(v.array_XYZ) for v in volumes if np.isfinite(v.array_XYZ).all()]
    if len(stack) < 2:
        return []
    mean, sd = np.mean(stack, axis=0), np.std(stack, axis=0, ddof=1)
    affine, name = volumes[0].affine, f"{first.id}-of{len(volumes)}"
    spread = Spread(first.source, len(stack), f"{name}-mean.nii.gz", f"{name}-sd.nii.gz")
    files = {
        what: save(Volume(np.asarray(array), affine), out / file, described(f"{name}-{what}"))
        for what, array, file in (("mean", mean, spread.mean), ("sd", sd, spread.sd))
    }
    sidecar = {**_origin(generator), "first": first.id, "samples": len(stack), "file_sha256": files}
    write_text(out / f"{name}.json", json.dumps(sidecar, indent=1, allow_nan=False))
    return [spread]


def _note_sources(made: Sequence[Made], file: Path) -> None:
    """Add to what earlier films, and earlier runs into the same folder, noted."""
    rows: dict[str, str] = {}
    if file.exists():
        with file.open(newline="", errors="surrogateescape") as table:
            rows = {row["id"]: row["path"] for row in csv.DictReader(table)}
    rows |= {one.id: str(one.source.resolve()) for one in made}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("id", "path"))
    writer.writerows(rows.items())
    write_bytes(file, text.getvalue().encode("utf-8", "surrogateescape"))


def report(set_aside: Sequence[SetAside], paths: Sequence[Path], out: Path) -> None:
    """Beside the volumes: which radiographs were not read, and why.

    What earlier runs into the same folder reported stays, but for files that were given again.
    """
    out.mkdir(parents=True, exist_ok=True)
    whole = {printable(path): printable(os.path.abspath(path)) for path in paths}
    earlier = [row for row in _reported(out) if row.file not in whole.values()]
    write_report(out, earlier + [replace(row, file=whole[row.file]) for row in set_aside])


def _reported(out: Path) -> list[SetAside]:
    if not (out / REPORT).exists():
        return []
    try:
        return read_report(out)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{out / REPORT} is damaged or none of ours, and would be lost; "
            "move it away or choose another folder"
        ) from error


# ---- the answer --------------------------------------------------------------------------------


def as_json(written: Written, set_aside: Sequence[SetAside]) -> dict[str, Any]:
    """What was written and what was not, for machines."""
    return {
        "volumes": [
            {
                "source": printable(one.source),
                "file": one.file,
                "seed": one.seed,
                "accepted": one.verdict.accepted,
                "reason": one.verdict.reason,
                "why": one.why,
                "quality": one.verdict.figures,
            }
            for one in written.volumes
        ],
        "spreads": [
            spread._asdict() | {"source": printable(spread.source)} for spread in written.spreads
        ],
        "quarantined": [
            {"code": row.code, "file": row.file, "cause": row.cause, "remedy": row.remedy}
            for row in set_aside
        ],
    }


def as_lines(written: Written, set_aside: Sequence[SetAside], out: Path) -> list[str]:
    """The same for people."""
    lines = []
    for one in written.volumes:
        where = printable(out / one.file) if one.file else "nothing written"
        verdict = f"rejected: {one.why}" if one.why else "accepted"
        lines.append(f"{printable(one.source)} -> {where}  {verdict}")
    for spread in written.spreads:
        mean, sd = printable(out / spread.mean), printable(out / spread.sd)
        lines.append(f"{printable(spread.source)} -> {mean}, {sd}  of {spread.samples} samples")
    for row in set_aside:
        next_step = f"; {row.remedy}" if row.remedy else ""
        lines.append(f"{row.file} set aside: {row.code}, {row.cause}{next_step}")
    reasons = {one.verdict.reason for one in written.volumes if one.why}
    lines += [f"where {reason} is the reason: {remedy(reason)}" for reason in sorted(reasons)]
    return lines if written.volumes else [*lines, "no volume was made"]

"""Radiograph files to CT files: volumes, pictures and sidecars for a person with a few films.

Every output is named by what it depends on: the radiograph's bytes, the generator, the sampler, the
seed and the sample's number. Sidecars carry that id and no path; `sources.csv`, which says which
file became which volume, is local.
"""

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from synth_ct.generate import generate, restyled
from synth_ct.generator import Generator
from synth_ct.kit.artifact import code_hash
from synth_ct.kit.axes import FilmArray
from synth_ct.kit.durable import sha256_of_file, write_bytes, write_text
from synth_ct.kit.numerics import numerics
from synth_ct.kit.progress import Tick
from synth_ct.kit.quarantine import Refused, SetAside, printable, write_report
from synth_ct.kit.seeds import seed_for
from synth_ct.kit.volume import Volume, save, to_int16
from synth_ct.preview import preview
from synth_ct.quality import Verdict, judge
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

    @property
    def file(self) -> str | None:
        """The volume, below the output folder; None where it has no finite values."""
        return None if self.verdict.reason == "not_finite" else f"{self.id}.nii.gz"


def read_films(paths: Sequence[Path], size: int) -> tuple[list[Film], list[SetAside]]:
    """Read and frame; what cannot be trusted is set aside."""
    films, set_aside = [], []
    for path in paths:
        try:
            decoded = read_radiograph(path)
        except Refused as refused:
            set_aside.append(refused.row(printable(path.name)))
        except OSError as error:
            cause = f"the file cannot be read ({error.strerror})"
            row = SetAside(code="E_UNREADABLE", file=printable(path.name), cause=cause)
            set_aside.append(replace(row, remedy="check its name and its rights"))
        else:
            framed = frame(decoded.pixels_UV, size)
            notes = (*decoded.notes, *framed.notes)
            films.append(Film(path, sha256_of_file(path), framed.film_UV, notes))
    return films, set_aside


class Sampling(NamedTuple):
    """How a radiograph is sampled."""

    samples: int = 1
    seed: int = 0
    drr: bool = False
    """The film is a DRR already and keeps its style."""


def reconstruct(
    generator: Generator, films: Sequence[Film], out: Path, sampling: Sampling, tick: Tick
) -> list[Made]:
    """Write the samples of each film, and of several their mean and their spread."""
    out.mkdir(parents=True, exist_ok=True)
    together = max(1, generator.models.micro_batch // sampling.samples)
    made: list[Made] = []
    for start in range(0, len(films), together):
        part = films[start : start + together]
        film_B1UV = torch.from_numpy(np.stack([film.film_UV for film in part])[:, None])
        styled = film_B1UV if sampling.drr else restyled(generator.models, film_B1UV)
        ids = [volume_id(film.sha256, generator, sampling, k) for film, k in each(part, sampling)]
        seeds = [seed_for(sampling.seed, "volume", i) for i in ids]
        volumes = generate(generator.models, styled.repeat_interleave(sampling.samples, 0), seeds)
        for n, (film, k) in enumerate(each(part, sampling)):
            # Against the training films, not its companions: a verdict is a volume's own.
            seen_UV = styled[n // sampling.samples, 0].numpy()
            verdict = judge(volumes[n], seen_UV, [], generator.reference)
            one = Made(id=ids[n], source=film.path, seed=seeds[n], sample=k, verdict=verdict)
            _write(generator, one, film, volumes[n], sampling, out)
            made.append(one)
            tick(1)
        for first in range(0, len(volumes), sampling.samples):
            _write_spread(generator, volumes[first : first + sampling.samples], ids[first], out)
        _note_sources(made[-len(volumes) :], out / SOURCES)
    return made


def each(films: Sequence[Film], sampling: Sampling) -> list[tuple[Film, int]]:
    """Every film with every sample's number, film after film."""
    return [(film, k) for film in films for k in range(sampling.samples)]


def volume_id(radiograph_sha256: str, generator: Generator, sampling: Sampling, sample: int) -> str:
    """Sixteen digits of sha256(radiograph, model, way, root seed, sample number)."""
    way = json.dumps(_way(generator, sampling), sort_keys=True)
    text = f"{radiograph_sha256}/{generator.fingerprint}/{way}/{sampling.seed}/{sample}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _way(generator: Generator, sampling: Sampling) -> dict[str, Any]:
    """How the model was used: all that sets two volumes of one film and seed apart."""
    models = generator.models
    return {
        "sampler": models.sampler.model_dump(mode="json") if models.denoiser else "prior",
        "restyled": not sampling.drr,
        "micro_batch": models.micro_batch,
    }


# ---- files -------------------------------------------------------------------------------------


def _write(
    generator: Generator, made: Made, film: Film, volume: Volume, sampling: Sampling, out: Path
) -> None:
    sha256 = save(volume, out / made.file) if made.file else ""
    if made.file:
        write_bytes(out / f"{made.id}.png", preview(volume, made.id))
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


def _write_spread(generator: Generator, volumes: Sequence[Volume], first: str, out: Path) -> None:
    """The mean of a radiograph's samples, and their standard deviation in HU: where they differ."""
    stack = [to_int16(v.array_XYZ) for v in volumes if np.isfinite(v.array_XYZ).all()]
    if len(stack) < 2:
        return
    mean, spread = np.mean(stack, axis=0), np.std(stack, axis=0, ddof=1)
    affine, name = volumes[0].affine, f"{first}-of{len(volumes)}"
    files = {
        what: save(Volume(np.asarray(array), affine), out / f"{name}-{what}.nii.gz")
        for what, array in (("mean", mean), ("sd", spread))
    }
    sidecar = {**_origin(generator), "first": first, "samples": len(stack), "file_sha256": files}
    write_text(out / f"{name}.json", json.dumps(sidecar, indent=1, allow_nan=False))


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


def as_json(made: Made) -> dict[str, Any]:
    """One of `volumes` in the answer of the command."""
    return {
        "source": printable(str(made.source)),
        "file": made.file,
        "seed": made.seed,
        "accepted": made.verdict.accepted,
        "reason": made.verdict.reason,
        "quality": made.verdict.figures,
    }


def report(set_aside: Sequence[SetAside], out: Path) -> None:
    """Beside the volumes: which radiographs were not read, and why."""
    out.mkdir(parents=True, exist_ok=True)
    write_report(out, list(set_aside))

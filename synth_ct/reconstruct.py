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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from synth_ct.evaluation.figures import upright
from synth_ct.generate import generate, restyled
from synth_ct.generator import Generator
from synth_ct.kit.axes import FilmArray
from synth_ct.kit.durable import sha256_of_file, write_bytes, write_text
from synth_ct.kit.progress import Tick
from synth_ct.kit.quarantine import Refused, SetAside, printable, write_report
from synth_ct.kit.seeds import seed_for
from synth_ct.kit.volume import Volume, save
from synth_ct.quality import Verdict, judge
from synth_ct.xray.frame import frame
from synth_ct.xray.pose import read_radiograph

SOURCES = "sources.csv"
SHOWN_HU = (-1000.0, 500.0)
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
    def file(self) -> str:
        """The volume, below the output folder."""
        return f"{self.id}.nii.gz"


def read_films(paths: Sequence[Path], size: int) -> tuple[list[Film], list[SetAside]]:
    """Read and frame; what cannot be trusted is set aside."""
    films, set_aside = [], []
    for path in paths:
        try:
            decoded = read_radiograph(path)
        except Refused as refused:
            set_aside.append(refused.row(printable(path.name)))
            continue
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
    shown = torch.from_numpy(np.stack([film.film_UV for film in films])[:, None])
    styled = shown if sampling.drr else restyled(generator.models, shown)
    samples, seed = sampling.samples, sampling.seed
    made: list[Made] = []
    for film, styled_1UV in zip(films, styled, strict=True):
        ids = [volume_id(film.sha256, generator, seed, k) for k in range(samples)]
        seeds = [seed_for(seed, "volume", i) for i in ids]
        film_B1UV = styled_1UV.expand(samples, 1, -1, -1)
        volumes = generate(generator.models, film_B1UV, seeds)
        for k, volume in enumerate(volumes):
            # Against the training films, not its companions: a verdict is a volume's own.
            verdict = judge(volume, styled_1UV[0].numpy(), [], generator.reference)
            made.append(Made(id=ids[k], source=film.path, seed=seeds[k], sample=k, verdict=verdict))
            _write(generator, made[-1], film, volume, out)
            tick(1)
        if samples > 1:
            _write_spread(volumes, out / ids[0])
    _write_sources(made, out / SOURCES)
    return made


def volume_id(radiograph_sha256: str, generator: Generator, seed: int, sample: int) -> str:
    """Sixteen digits of sha256(radiograph, model, sampler, root seed, sample number)."""
    sampler = generator.models.sampler.model_dump_json()
    text = f"{radiograph_sha256}/{generator.fingerprint}/{sampler}/{seed}/{sample}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ---- files -------------------------------------------------------------------------------------


def _write(generator: Generator, made: Made, film: Film, volume: Volume, out: Path) -> None:
    finite = bool(np.isfinite(volume.array_XYZ).all())
    sha256 = save(volume, out / made.file) if finite else ""
    if finite:
        write_bytes(out / f"{made.id}.png", preview(volume))
    sidecar = {
        "id": made.id,
        "what": SYNTHETIC,
        "radiograph_sha256": film.sha256,
        "radiograph_notes": list(film.notes),
        "model": generator.fingerprint,
        "sampler": generator.models.sampler.model_dump(mode="json"),
        "sample": made.sample,
        "seed": made.seed,
        "scale": generator.about.scale,
        "trained_on": generator.about.trained_on,
        "file_sha256": sha256,
        "accepted": made.verdict.accepted,
        "reason": made.verdict.reason,
        "quality": made.verdict.figures,
    }
    write_text(out / f"{made.id}.json", json.dumps(sidecar, indent=1, allow_nan=False))


def _write_spread(volumes: Sequence[Volume], stem: Path) -> None:
    """The mean of a radiograph's samples, and their standard deviation in HU: where they differ."""
    stack = np.stack([volume.array_XYZ for volume in volumes]).astype(np.float32)
    affine = volumes[0].affine
    save(Volume(stack.mean(0), affine), stem.with_name(f"{stem.name}-mean.nii.gz"))
    save(Volume(stack.std(0, ddof=1), affine), stem.with_name(f"{stem.name}-sd.nii.gz"))


def preview(volume: Volume) -> bytes:
    """Axial, coronal and sagittal slice through the middle, side by side, as PNG."""
    from PIL import Image

    low, high = SHOWN_HU
    planes = [upright(volume.array_XYZ, plane) for plane in ("axial", "coronal", "sagittal")]
    grey = np.clip((np.concatenate(planes, axis=1) - low) / (high - low), 0, 1)
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * grey).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _write_sources(made: Sequence[Made], file: Path) -> None:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(("id", "path"))
    for volume in made:
        rows.writerow((volume.id, str(volume.source.resolve())))
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

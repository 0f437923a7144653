"""Product: a finished generator. Four weights, what made them, and what its volumes should be like.

The folder stands alone and may be moved: weights are hard links to those of the trainings, or
copies where the file system has none.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import safetensors.numpy
import torch
from pydantic import AfterValidator, Field, ValidationError, model_validator

from synth_ct.diffusion import SamplerRecipe, demand_match
from synth_ct.generate import XctDiff
from synth_ct.kit.artifact import PARTIAL, Record, folder_name, read_record
from synth_ct.kit.durable import link_or_copy, sha256_of_file, write_bytes, write_text
from synth_ct.kit.effort import Effort
from synth_ct.kit.progress import Tick
from synth_ct.kit.recipe import Recipe
from synth_ct.learners.autoencoder import AutoencoderRecipe, load_autoencoder
from synth_ct.learners.denoiser import DenoiserRecipe, load_denoiser
from synth_ct.learners.prior import PriorRecipe, load_auxiliary_decoder, load_prior
from synth_ct.learners.style import StyleRecipe, load_style
from synth_ct.pairs.arrays import Pairs
from synth_ct.quality import QualityReference, reference_of

ABOUT = "generator.json"
REFERENCE = "quality.safetensors"


FolderName = Annotated[str, AfterValidator(folder_name)]


class GeneratorRecipe(Recipe):
    """XctDiff: how its four parts are trained and sampled."""

    name: FolderName
    """Of the folders below the root."""
    size: int = Field(ge=32, le=128, multiple_of=16)
    """Voxels, and pixels, a side."""
    autoencoder: AutoencoderRecipe
    prior: PriorRecipe
    denoiser: DenoiserRecipe
    style: StyleRecipe
    sampler: SamplerRecipe
    micro_batch: int = Field(default=4, ge=1)
    """Films that go through the networks together."""

    @model_validator(mode="after")
    def _fit_together(self) -> "GeneratorRecipe":
        if self.prior.sizes.film != self.size:
            raise ValueError(
                f"prior.sizes.film is {self.prior.sizes.film} and size {self.size}; make them equal"
            )
        self.autoencoder.demand_fit(self.size)
        channels = {
            "autoencoder": self.autoencoder.sizes.embedded_channels,
            "prior": self.prior.sizes.latent_channels,
            "denoiser": self.denoiser.sizes.latent_channels,
        }
        if len(set(channels.values())) > 1:
            raise ValueError(
                f"channels of the latent differ: {channels}; make latent_channels equal "
                "(with fsq: to the number of levels)"
            )
        if self.denoiser.diffusion.start == "prior" and self.prior.target != "latent":
            raise ValueError(
                "denoiser.diffusion.start is 'prior', and a prior with target 'ct' has "
                "coordinates of its own: choose prior.target 'latent', or start 'noise'"
            )
        demand_match(self.denoiser.diffusion, self.sampler)
        return self


class About(Recipe):
    """`generator.json`."""

    recipe: GeneratorRecipe
    evidence: Literal["phantom", "real"]
    trained_on: str
    """`phantoms`, or the title of the CT cohort."""
    scale: Literal["nominal"] = "nominal"
    """A radiograph has no knowable millimetres; the grid's are a convention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """What `--model` names."""

    models: XctDiff
    about: About
    reference: QualityReference
    fingerprint: str
    """Of the weights and recipes: part of every volume's id."""


def write_generator(
    about: About, parts: Iterable[Path], pairs: Pairs, workspace: Path, effort: Effort
) -> None:
    """Collect the weights of finished trainings, and measure what volumes should be like."""
    for folder in parts:
        for file in sorted(folder.glob("*.safetensors*")):
            link_or_copy(file, workspace / file.name)
    train = pairs.of("train")
    volumes = _told_of([pairs.volumes_NXYZ[n] for n in train], effort.begin(len(train)))
    reference = reference_of(volumes, pairs.films_NUV[train])
    write_bytes(workspace / REFERENCE, safetensors.numpy.save(reference.to_arrays()))
    write_text(workspace / ABOUT, about.model_dump_json(indent=1))


def _told_of(volumes: Sequence[np.ndarray], tick: Tick) -> Iterator[np.ndarray]:
    """Each volume, and a word when the next one is asked for."""
    for volume in volumes:
        yield volume
        tick()


def find_generator(path: Path) -> Path:
    """The folder itself, or the only one below a root or its `generator/`; `ABOUT` names it too."""
    if path.name == ABOUT and path.is_file():
        return path.parent
    if (path / ABOUT).exists():
        return path
    files = list(path.glob(f"generator/*/{ABOUT}")) or list(path.glob(f"*/{ABOUT}"))
    found = sorted(file.parent for file in files)
    unfinished = [p for p in found if p.name.endswith(PARTIAL)]
    found = [p for p in found if p not in unfinished]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(p.relative_to(path)) for p in found)
        raise ValueError(f"{path} holds several generators ({names}); name one of them")
    if unfinished:
        raise ValueError(f"{unfinished[0]} is not finished; run its recipe to the end")
    what = "holds no generator" if path.is_dir() else "is no folder of a generator"
    raise ValueError(
        f"{path} {what}: neither {ABOUT} nor generator/*/{ABOUT} is there; "
        "train one, e.g. `synth-ct run tiny --until generator --root ROOT`, and give its ROOT"
    )


class Found(NamedTuple):
    """A finished generator on disk, its files checked, nothing loaded."""

    folder: Path
    about: About
    fingerprint: str


def read_generator(path: Path) -> Found:
    """What a generator is, for whoever does not need its networks."""
    folder = find_generator(path)
    record = read_record(folder)
    if record is None:
        raise ValueError(f"{folder} is not finished (no record.json); run its recipe to the end")
    for name, sha256 in record.files.items():
        if not (folder / name).exists():
            raise ValueError(f"{folder / name} is missing; {_remedy(folder, record, name)}")
        if sha256_of_file(folder / name) != sha256:
            remedy = _remedy(folder, record, name)
            raise ValueError(f"{folder / name} was changed after it was written; {remedy}")
    try:
        about = About.model_validate(json.loads((folder / ABOUT).read_text()))
    except ValidationError as error:
        raise ValueError(
            f"{folder} was written by another version of synth-ct ({error}); "
            f"{_remedy(folder, record, ABOUT)}"
        ) from error
    return Found(folder, about, record.fingerprint)


def open_generator(path: Path, device: torch.device, *, prior_only: bool = False) -> Generator:
    """Load a finished generator, every file checked; `prior_only` leaves the diffusion out."""
    found = read_generator(path)
    return Generator(
        models=_models(found.about.recipe, found.folder, device, prior_only),
        about=found.about,
        reference=_reference(found.folder / REFERENCE),
        fingerprint=found.fingerprint,
    )


def _remedy(folder: Path, record: Record, file: str) -> str:
    """How to come by a generator again of which one file is bad."""
    at_home = folder.absolute().parent.name == "generator"
    root = str(folder.parent.parent) if at_home else "ROOT"
    # Weights are often one file on disk with those of their training, and then both are bad.
    trained = [i for i in record.inputs if i.split("/")[0] == file.partition(".")[0]]
    places = [str(folder), *(f"{root}/{training}" for training in trained)]
    return (
        f"restore it from a copy, or delete {' and '.join(places)} and make them again: "
        f"`synth-ct run {record.recipe['name']} --until generator --root {root}`"
    )


def _reference(file: Path) -> QualityReference:
    return QualityReference.from_arrays(safetensors.numpy.load(file.read_bytes()))


def _models(
    recipe: GeneratorRecipe, folder: Path, device: torch.device, prior_only: bool
) -> XctDiff:
    own = recipe.prior.target == "ct"
    return XctDiff(
        style=load_style(recipe.style, folder, device),
        prior=load_prior(recipe.prior, folder, device),
        denoiser=None if prior_only else load_denoiser(recipe.denoiser, folder, device),
        prior_decoder=load_auxiliary_decoder(recipe.prior, folder, device) if own else None,
        autoencoder=load_autoencoder(recipe.autoencoder, folder, device),
        diffusion=recipe.denoiser.diffusion,
        sampler=recipe.sampler,
        micro_batch=recipe.micro_batch,
    )

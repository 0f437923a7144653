"""What is to be made: which items, by which generator, how. Says nothing of where or how fast."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from synth_ct.generator import GeneratorRecipe
from synth_ct.kit.recipe import Recipe
from synth_ct.kit.seeds import seed_for


class CorpusRecipe(Recipe):
    """How a generator is used to make a corpus."""

    samples: int = Field(default=1, ge=1, le=64)
    """Volumes a radiograph."""
    seed: int = Field(default=0, ge=0)
    """The root of every volume's own seed."""
    gate: Literal["enforce", "record"] = "enforce"
    """A volume that fails a quality check: without a file, or kept with its reason noted."""
    restyled: bool = True
    """False: the films are DRRs already and keep their style."""
    prior_only: bool = False
    """True: decode the prior, without diffusion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One volume to be made."""

    id: str
    sample: int
    seed: int
    radiograph_sha256: str
    patient: str
    finding: str
    path: str
    """Of the radiograph, on this machine: leaves it in no file but `sources.csv`."""


def sampler_of(generator: GeneratorRecipe, prior_only: bool) -> str:
    """Name and evaluations, as a row says it."""
    sampler = generator.sampler
    return "prior" if prior_only else f"{sampler.name}/{sampler.evaluations}"


def way_of(generator: GeneratorRecipe, *, restyled: bool, prior_only: bool) -> dict[str, Any]:
    """How the model is used: all that sets two volumes of one film, model and seed apart."""
    return {
        "sampler": "prior" if prior_only else generator.sampler.model_dump(mode="json"),
        "restyled": restyled,
        "micro_batch": generator.micro_batch,
    }


def volume_id(
    radiograph_sha256: str, model: str, way: dict[str, Any], seed: int, sample: int
) -> str:
    """Sixteen digits of sha256(radiograph, model, way, root seed, sample number)."""
    text = f"{radiograph_sha256}/{model}/{json.dumps(way, sort_keys=True)}/{seed}/{sample}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seed_of(root: int, volume: str) -> int:
    """A volume's own seed: no other item, missing or refused, can shift it."""
    return seed_for(root, "volume", volume)

"""The stages that train: from finished folders to the weights of one network.

Each takes its recipe, the workspace to fill, its inputs by name, and how fast to work. What an
input was made by stands in its own record, so a folder is all that a stage needs to be given.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import Field, ValidationError

from synth_ct.cohort import Cohort
from synth_ct.kit.artifact import read_record
from synth_ct.kit.effort import Effort, place_of
from synth_ct.kit.recipe import AnyRecipe, Recipe
from synth_ct.learners.autoencoder import AutoencoderRecipe, load_autoencoder, train_autoencoder
from synth_ct.learners.denoiser import DenoiserRecipe, train_denoiser
from synth_ct.learners.prior import PriorRecipe, load_prior, train_prior
from synth_ct.learners.style import StyleRecipe, train_style
from synth_ct.models.autoencoder import Autoencoder
from synth_ct.pairs.arrays import Pairs
from synth_ct.pairs.disk import open_pairs
from synth_ct.pairs.films import framed_films
from synth_ct.sources.chest_xray2017 import STYLE_IMAGES, paper_selection

Inputs = Mapping[str, Path]
"""Names below the root, such as `autoencoder/tiny`, and where they are."""


class StyleStage(Recipe):
    """Style transfer, and which of the normal films it learns from."""

    style: StyleRecipe
    films: int = Field(default=STYLE_IMAGES, ge=2)
    """The paper's 1,000; where there are fewer, all."""
    seed: int = Field(default=0, ge=0)
    """Chooses them."""


def autoencoder_stage(
    recipe: AutoencoderRecipe, workspace: Path, inputs: Inputs, effort: Effort
) -> None:
    """CT to latent, and back."""
    place = place_of(workspace, recipe.training.steps, effort)
    train_autoencoder(recipe, _pairs(inputs), place)


def prior_stage(recipe: PriorRecipe, workspace: Path, inputs: Inputs, effort: Effort) -> None:
    """Film to prior; the autoencoder is an input where the prior learns its latents."""
    place = place_of(workspace, recipe.training.steps, effort)
    model = _autoencoder(inputs, place.device) if recipe.target == "latent" else None
    train_prior(recipe, _pairs(inputs), model, place)


def denoiser_stage(recipe: DenoiserRecipe, workspace: Path, inputs: Inputs, effort: Effort) -> None:
    """Noise and prior to latent."""
    place = place_of(workspace, recipe.training.steps, effort)
    folder = input_of(inputs, "prior")
    prior = load_prior(recipe_of(folder, PriorRecipe), folder, place.device)
    train_denoiser(recipe, _pairs(inputs), _autoencoder(inputs, place.device), prior, place)


def style_stage(recipe: StyleStage, workspace: Path, inputs: Inputs, effort: Effort) -> None:
    """Real film to DRR style."""
    pairs = _pairs(inputs)
    cohort = Cohort.open(input_of(inputs, "cohorts/radiographs"))
    chosen = paper_selection(cohort.cases, recipe.seed, recipe.films)
    real = framed_films(cohort, chosen, pairs.size, effort.begin(len(chosen)))
    drr = pairs.films_NUV[pairs.of("train")]
    place = place_of(workspace, recipe.style.training.steps, effort)
    train_style(recipe.style, real, drr, place)


# ---- what stages share -------------------------------------------------------------------------


def input_of(inputs: Inputs, kind: str) -> Path:
    """The one input of a kind, whatever its recipe is called."""
    found = [path for name, path in inputs.items() if name == kind or name.startswith(f"{kind}/")]
    assert len(found) == 1, f"{kind} is no input: {sorted(inputs)}"
    return found[0]


def recipe_of(folder: Path, kind: type[AnyRecipe]) -> AnyRecipe:
    """What a finished folder says it was made by."""
    record = read_record(folder)
    if record is None:
        raise ValueError(f"{folder} is not finished (no record.json); make it first")
    try:
        return kind.model_validate(record.recipe)
    except ValidationError as error:
        raise ValueError(
            f"{folder} was made by another version of synth-ct ({error}); make it anew"
        ) from error


def _pairs(inputs: Inputs) -> Pairs:
    return open_pairs(input_of(inputs, "cohorts/pairs"))


def _autoencoder(inputs: Inputs, device: torch.device) -> Autoencoder:
    folder = input_of(inputs, "autoencoder")
    return load_autoencoder(recipe_of(folder, AutoencoderRecipe), folder, device)

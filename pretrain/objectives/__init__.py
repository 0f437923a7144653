"""What a backbone is taught without labels: one file an objective, one dictionary of all."""

from typing import Annotated

import torch
from pydantic import Discriminator, Tag
from torch import nn

from pretrain.backbones import Backbone
from pretrain.objectives.genesis import Genesis, GenesisRecipe
from pretrain.objectives.mae import Mae, MaeRecipe
from pretrain.objectives.swin3 import Swin3, Swin3Recipe
from pretrain.objectives.volume_fusion import VolumeFusion, VolumeFusionRecipe
from synth_ct.kit.recipe import kind_of
from synth_ct.kit.seeds import seed_for

ObjectiveRecipe = Annotated[
    Annotated[Swin3Recipe, Tag("swin3")]
    | Annotated[MaeRecipe, Tag("mae")]
    | Annotated[GenesisRecipe, Tag("genesis")]
    | Annotated[VolumeFusionRecipe, Tag("volume_fusion")],
    Discriminator(kind_of),
]
OBJECTIVES: dict[str, type[nn.Module]] = {
    "swin3": Swin3,
    "mae": Mae,
    "genesis": Genesis,
    "volume_fusion": VolumeFusion,
}


def build_objective(
    recipe: ObjectiveRecipe, backbone: Backbone, crop_XYZ: tuple[int, int, int], seed: int
) -> nn.Module:
    """The heads of an objective, whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed accelerators too.
        torch.default_generator.manual_seed(seed_for(seed, f"{recipe.kind} heads"))
        return OBJECTIVES[recipe.kind](recipe, backbone, crop_XYZ)


def decoder_used(recipe: ObjectiveRecipe) -> bool:
    """Whether the backbone's decoder is trained too, and so is worth transferring."""
    return not isinstance(recipe, Swin3Recipe) and recipe.decoder == "backbone"


def out_channels(recipe: ObjectiveRecipe) -> int:
    """Channels of the backbone's decoder for this objective."""
    return recipe.levels + 1 if isinstance(recipe, VolumeFusionRecipe) else 1

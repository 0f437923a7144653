"""How networks are pretrained at each size, and on which arms. One function a recipe."""

from collections.abc import Mapping

from pydantic import Field, model_validator

from pretrain.alarms import Alarms
from pretrain.arms import Arm
from pretrain.backbones import SwinSizes, UNetSizes
from pretrain.objectives.genesis import GenesisRecipe
from pretrain.objectives.mae import MaeRecipe
from pretrain.objectives.swin3 import OFFICIAL, Swin3Recipe
from pretrain.stage import Network
from synth_ct.kit.loop import Training
from synth_ct.kit.recipe import Recipe, changed
from synth_ct.kit.schedule import Rate

SOFT_TISSUE_HU = (-175.0, 250.0)
"""The window of Swin UNETR's code for BTCV."""


class Pretraining(Recipe):
    """Which encoders a run makes: every network on every arm with every seed."""

    arms: tuple[Arm, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    """Seed s drives pretraining and fine-tuning together."""
    networks: Mapping[str, Network] = Field(min_length=1)
    """By their name in folders. Their training's seed is replaced."""
    volumes: int | None = Field(default=None, ge=1)
    """The same number of training volumes in every arm."""
    fewer: Mapping[str, int] = Field(default_factory=dict)
    """Networks that see another number: how much does the size of a corpus matter?"""

    def volumes_of(self, network: str) -> int | None:
        """How many training volumes a network sees."""
        return self.fewer.get(network, self.volumes)

    @model_validator(mode="after")
    def _fewer_for_whom(self) -> "Pretraining":
        if unknown := sorted(self.fewer.keys() - self.networks.keys()):
            raise ValueError(
                f"fewer names {', '.join(unknown)}; networks are {', '.join(sorted(self.networks))}"
            )
        return self


def tiny_pretraining() -> Pretraining:
    """A few steps of two small networks: that everything is connected."""
    return Pretraining(
        arms=("scratch", "primitives", "real", "synthetic"),
        seeds=(0,),
        networks={
            "swin": Network(
                backbone=SwinSizes(
                    feature_size=12, depths=(1, 1, 1, 1), heads=(1, 2, 4, 8), window=4
                ),
                objective=Swin3Recipe(embedding=32),
                crop=(32, 32, 64),  # square across the axis of rotation
                probe_crops=0,
                training=_short(6, 2),
            ),
            "unet": Network(
                backbone=UNetSizes(width=4, levels=3, norm="instance"),
                objective=MaeRecipe(),
                transfer="all_but_head",
                crop=(32, 32, 32),
                probe_crops=0,
                rate=1e-3,
                training=_short(20, 2),
            ),
        },
        volumes=8,
    )


def study_pretraining() -> Pretraining:
    """One narrow U-Net, the headline arms, three seeds: two cores, minutes."""
    small = small_pretraining()
    unet = changed(
        small.networks["unet"],
        backbone=UNetSizes(width=4, norm="instance"),
        crop=(32, 32, 32),
        window_hu=SOFT_TISSUE_HU,
        rate=1e-3,
        training=changed(_short(300, 2), rate=Rate(shape="cosine", warmup_steps=20)),
    )
    return changed(small, networks={"unet": unet}, volumes=200)


def small_pretraining() -> Pretraining:
    """64 voxels: a GPU for minutes."""
    return Pretraining(
        arms=("scratch", "primitives", "real", "synthetic", "drr"),
        seeds=(0, 1, 2),
        networks={
            "swin": Network(
                backbone=SwinSizes(feature_size=24),
                objective=MaeRecipe(decoder="head"),
                crop=(64, 64, 64),
                training=_cosine(10_000, 8, 100),
            ),
            "unet": Network(
                backbone=UNetSizes(width=16),
                objective=MaeRecipe(),
                transfer="all_but_head",
                crop=(64, 64, 64),
                rate=1e-3,
                training=_cosine(10_000, 8, 100),
            ),
        },
        volumes=250,
    )


def paper_pretraining() -> Pretraining:
    """The paper's pair: Swin UNETR by its own code's objective, UNet by restoration; 50,000 steps.

    Which objective the UNet had, the paper does not say.
    """
    return Pretraining(
        arms=("scratch", "primitives", "real", "synthetic", "real_degraded", "drr", "prior_only"),
        seeds=(0, 1, 2),
        networks={
            "swin": Network(
                backbone=SwinSizes(),
                objective=OFFICIAL,
                rate=4e-4,
                weight_decay=0.1,
                alarms=Alarms(after=10_000),
                training=_cosine(50_000, 4, 500),
            ),
            "unet": Network(
                backbone=UNetSizes(),
                objective=GenesisRecipe(),
                transfer="all_but_head",
                rate=1e-3,
                training=_cosine(50_000, 4, 500),
            ),
        },
        volumes=700,
    )


def sized(pretraining: Pretraining, network: str, sizes: Mapping[str, int | None]) -> Pretraining:
    """One network under several names, each with so many volumes of the corpus; None: all."""
    return changed(
        pretraining,
        networks=dict.fromkeys(sizes, pretraining.networks[network]),
        volumes=None,
        fewer={name: volumes for name, volumes in sizes.items() if volumes is not None},
    )


def _short(steps: int, batch: int) -> Training:
    return Training(
        seed=0,
        steps=steps,
        global_batch=batch,
        micro_batch=batch,
        clip_norm=1.0,
        average_decay=0.0,
    )


def _cosine(steps: int, batch: int, warmup: int) -> Training:
    return Training(
        seed=0,
        steps=steps,
        global_batch=batch,
        micro_batch=batch,
        rate=Rate(shape="cosine", warmup_steps=warmup),
        clip_norm=1.0,
        average_decay=0.0,
        precision="bfloat16",
    )

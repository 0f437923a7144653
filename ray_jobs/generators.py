"""How XctDiff is trained at each size: one function a recipe. Every number the paper gives is here.

What it does not give is assumed; `docs/fidelity.md` lists which.
"""

from typing import Literal

from synth_ct.diffusion import DiffusionRecipe, SamplerRecipe
from synth_ct.generator import GeneratorRecipe
from synth_ct.kit.loop import Training
from synth_ct.kit.recipe import changed
from synth_ct.kit.schedule import Rate
from synth_ct.learners.autoencoder import Adversary, AutoencoderRecipe
from synth_ct.learners.denoiser import DenoiserRecipe
from synth_ct.learners.prior import PriorRecipe
from synth_ct.learners.style import StyleRecipe
from synth_ct.models.autoencoder import AutoencoderSizes, SuperResolution
from synth_ct.models.denoiser import DenoiserSizes
from synth_ct.models.progressive_encoder import PriorSizes
from synth_ct.models.quantizers import QuantiserSizes
from synth_ct.models.style import StyleSizes

Book = Literal["homogeneous", "plain"]


def paper_generator() -> GeneratorRecipe:
    """The paper's sizes, steps, batches and rates on 128 voxels."""
    return GeneratorRecipe(
        name="paper",
        size=128,
        autoencoder=AutoencoderRecipe(
            perceptual="lpips",
            adversary=Adversary(start=20_000),
            training=Training(seed=0, steps=80_000, global_batch=2, micro_batch=1),
        ),
        prior=PriorRecipe(training=Training(seed=0, steps=50_000, global_batch=16, micro_batch=4)),
        denoiser=DenoiserRecipe(
            training=Training(
                seed=0, steps=100_000, global_batch=8, micro_batch=4, average_decay=0.9999
            )
        ),
        style=StyleRecipe(
            sizes=StyleSizes(upsampling="transposed"),
            training=_half_falling(200_000, batch=1),
        ),
        sampler=SamplerRecipe(name="ddim", evaluations=50),
    )


def small_generator() -> GeneratorRecipe:
    """64 voxels, a continuous latent, a flow: one GPU, under an hour."""
    channels = 4
    return GeneratorRecipe(
        name="small",
        size=64,
        autoencoder=AutoencoderRecipe(
            sizes=AutoencoderSizes(
                channels=(16, 32, 64),
                latent_channels=channels,
                bottleneck=None,
                quantiser=QuantiserSizes(kind="kl"),
                reduce_first=True,
            ),
            codebook_weight=1e-4,
            rate=5e-4,
            training=_short(12_000, batch=4),
        ),
        prior=PriorRecipe(
            sizes=PriorSizes(
                film=64, channels=(32, 64, 256), latent_channels=channels, quantiser=None
            ),
            target="latent",
            rate=5e-4,
            film_noise=0.5,
            training=_short(8_000, batch=16),
        ),
        denoiser=DenoiserRecipe(
            sizes=DenoiserSizes(
                latent_channels=channels,
                width=64,
                multipliers=(1, 2, 4),
                conditioning="concat",
                heads=4,
                longest=16,
            ),
            diffusion=DiffusionRecipe(objective="flow"),
            loss="l2",
            rate=5e-4,
            training=_short(20_000, batch=16),
        ),
        style=StyleRecipe(
            sizes=StyleSizes(width=32, judge_width=32, judge_layers=2),
            training=_half_falling(10_000, batch=4),
        ),
        sampler=SamplerRecipe(name="heun", evaluations=20),
    )


def small_cpu_generator() -> GeneratorRecipe:
    """`small` made narrow: two cores, an hour and a half."""
    small = small_generator()
    autoencoder, prior, denoiser = small.autoencoder, small.prior, small.denoiser
    return changed(
        small,
        name="small_cpu",
        autoencoder=changed(
            autoencoder,
            sizes=changed(autoencoder.sizes, channels=(16, 32), fold=1),
            crop=32,
            rate=1e-3,
            training=_short(3_000, batch=4),
        ),
        prior=changed(
            prior,
            sizes=changed(prior.sizes, channels=(16, 32, 128), blocks=1),
            rate=1e-3,
            training=_short(2_500, batch=8),
        ),
        denoiser=changed(
            denoiser,
            sizes=changed(denoiser.sizes, width=24, heads=2, head_width=16),
            diffusion=DiffusionRecipe(objective="flow", start="prior"),
            rate=1e-3,
            training=_short(2_400, batch=4),
        ),
        style=changed(small.style, kind="histogram"),
        sampler=SamplerRecipe(name="heun", evaluations=10),
    )


def study_generator() -> GeneratorRecipe:
    """`small_cpu` at 32 voxels with fewer steps: two cores, minutes."""
    cpu = small_cpu_generator()
    prior = changed(cpu.prior, sizes=changed(cpu.prior.sizes, film=32))
    return changed(
        cpu,
        name="phantom_study",
        size=32,
        autoencoder=changed(cpu.autoencoder, training=_short(700, batch=2)),
        prior=changed(prior, training=_short(600, batch=4)),
        denoiser=changed(cpu.denoiser, training=_short(800, batch=4)),
    )


def tiny_generator() -> GeneratorRecipe:
    """32 voxels and a few steps of everything the paper has: shows that all is connected."""
    return GeneratorRecipe(
        name="tiny",
        size=32,
        autoencoder=AutoencoderRecipe(
            sizes=AutoencoderSizes(
                channels=(8, 16, 16),
                blocks=1,
                latent_channels=4,
                bottleneck=None,
                quantiser=QuantiserSizes(codes=256),
                reduce_first=True,
            ),
            adversary=Adversary(start=60, width=8, layers=2),
            rate=2e-3,
            training=_short(120, batch=2),
        ),
        prior=PriorRecipe(
            sizes=PriorSizes(
                film=32,
                channels=(16, 16, 64),
                blocks=1,
                anatomy_channels=8,
                latent_channels=4,
                quantiser=None,
            ),
            target="latent",
            rate=2e-3,
            training=_short(120, batch=4),
        ),
        denoiser=DenoiserRecipe(
            sizes=DenoiserSizes(
                latent_channels=4, width=16, multipliers=(1, 2), heads=2, head_width=8, longest=8
            ),
            rate=2e-3,
            training=_short(200, batch=4),
        ),
        style=StyleRecipe(
            sizes=StyleSizes(width=8, blocks=2, judge_width=8, judge_layers=1),
            training=Training(seed=0, steps=60, global_batch=2, micro_batch=2),
        ),
        sampler=SamplerRecipe(name="dpmpp_2m", evaluations=8, spacing="karras"),
        micro_batch=2,
    )


# ---- the paper's variations --------------------------------------------------------------------


def table2(base: GeneratorRecipe) -> dict[str, AutoencoderRecipe]:
    """Autoencoders of Table 2, by quantiser, super-resolution, and codes x channels."""
    homogeneous: Book = "homogeneous"
    plain: Book = "plain"
    return {
        "plain_4096x3": varied(base, plain, 4096, 3, "none"),
        "plain_8192x3": varied(base, plain, 8192, 3, "none"),
        "homogeneous_8192x3": varied(base, homogeneous, 8192, 3, "none"),
        "plain_sr_8192x3": varied(base, plain, 8192, 3, "residual"),
        "homogeneous_sr_8192x3": varied(base, homogeneous, 8192, 3, "residual"),
        "homogeneous_sr_4096x8": varied(base, homogeneous, 4096, 8, "residual"),
        "homogeneous_sr_4096x16": varied(base, homogeneous, 4096, 16, "residual"),
        "homogeneous_sr_8192x8": varied(base, homogeneous, 8192, 8, "residual"),
        "homogeneous_sr_8192x16": varied(base, homogeneous, 8192, 16, "residual"),
    }


def table3(base: GeneratorRecipe) -> tuple[GeneratorRecipe, ...]:
    """Frameworks of Table 3: with and without the progressive encoder and the new autoencoder."""
    plain = varied(base, "plain", 8192, base.prior.sizes.latent_channels, "none")
    flat = changed(base.prior, sizes=changed(base.prior.sizes, progressive=False))
    return (
        changed(base, name="framework_both"),
        changed(base, name="framework_none", autoencoder=plain, prior=flat),
        changed(base, name="framework_prior", autoencoder=plain),
        changed(base, name="framework_autoencoder", prior=flat),
    )


def varied(
    base: GeneratorRecipe,
    kind: Book,
    codes: int,
    channels: int,
    super_resolution: SuperResolution,
) -> AutoencoderRecipe:
    """The autoencoder with another codebook and another end of its decoder."""
    sizes = base.autoencoder.sizes
    quantiser = changed(sizes.quantiser, kind=kind, codes=codes)
    return changed(
        base.autoencoder,
        sizes=changed(
            sizes,
            latent_channels=channels,
            quantiser=quantiser,
            super_resolution=super_resolution,
        ),
    )


def _short(steps: int, batch: int) -> Training:
    """A cosine after a short warm-up, for runs too short for the paper's constant rate."""
    return Training(
        seed=0,
        steps=steps,
        global_batch=batch,
        micro_batch=batch,
        rate=Rate(shape="cosine", warmup_steps=min(100, steps // 10)),
        clip_norm=1.0,
        average_decay=0.99,
    )


def _half_falling(steps: int, batch: int) -> Training:
    """CycleGAN's: constant, then a straight line to nothing over the second half."""
    rate = Rate(shape="linear", hold_steps=steps // 2)
    return Training(seed=0, steps=steps, global_batch=batch, micro_batch=batch, rate=rate)

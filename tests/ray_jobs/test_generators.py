"""The recipes of XctDiff: the paper's numbers, and its variations one line each."""

import pytest

from ray_jobs.generators import (
    paper_generator,
    small_cpu_generator,
    small_generator,
    table2,
    table3,
    tiny_generator,
)
from reports.quoted import by_system, of_table, read_quotes
from synth_ct.generator import GeneratorRecipe
from synth_ct.kit.loop import Training
from synth_ct.kit.schedule import rate_factor

PAPER = "Bai et al., XctDiff"


def quoted(table: int) -> set[str]:
    return set(by_system(of_table(read_quotes(), PAPER, str(table))))


def test_the_paper_recipe_has_the_papers_rates_steps_and_batches() -> None:
    paper = paper_generator()

    def of(training: Training, rate: float) -> tuple[float, int, int]:
        return rate, training.steps, training.global_batch

    assert of(paper.autoencoder.training, paper.autoencoder.rate) == (2e-4, 80_000, 2)
    assert of(paper.prior.training, paper.prior.rate) == (1e-4, 50_000, 16)
    assert of(paper.denoiser.training, paper.denoiser.rate) == (1e-4, 100_000, 8)
    assert of(paper.style.training, paper.style.learning_rate) == (2e-4, 200_000, 1)


def test_the_paper_recipe_asks_for_what_the_paper_names() -> None:
    paper = paper_generator()
    book = paper.autoencoder.sizes.quantiser
    assert (paper.size, book.kind, book.codes) == (128, "homogeneous", 8192)
    assert paper.autoencoder.sizes.latent_channels == 8
    assert paper.autoencoder.perceptual == "lpips"
    assert paper.autoencoder.adversary is not None
    assert paper.autoencoder.adversary.start < paper.autoencoder.training.steps
    assert paper.denoiser.sizes.conditioning == "cross"
    assert (paper.denoiser.diffusion.objective, paper.denoiser.diffusion.places) == (
        "epsilon",
        1000,
    )


ASSUMED = {
    "autoencoder.reconstruction_weight": 1.0,
    "autoencoder.perceptual_weight": 1.0,
    "autoencoder.codebook_weight": 1.0,
    "autoencoder.adversarial_weight": 1.0,
    "autoencoder.adversary.form": "log",
    "autoencoder.adversary.slice_weight": 1.0,
    "autoencoder.adversary.volume_weight": 1.0,
    "autoencoder.adversary.start": 20_000,
    "autoencoder.sizes.quantiser.commitment": 0.25,
    "autoencoder.sizes.quantiser.normalise": "vector",
    "autoencoder.training.average_decay": 0.999,
    "prior.target": "ct",
    "prior.weight_decay": 1e-5,
    "denoiser.loss": "l1",
    "denoiser.sizes.plane": "axial",
    "denoiser.diffusion.first_beta": 0.0015,
    "denoiser.diffusion.last_beta": 0.0125,
    "denoiser.training.average_decay": 0.9999,
    "sampler.name": "ddim",
    "sampler.evaluations": 50,
    "style.kind": "cyclegan",
    "style.sizes.blocks": 6,
    "style.cycle_weight": 10.0,
    "style.identity_weight": 5.0,
    "style.pool": 50,
}
"""What `docs/fidelity.md` says of recipe `paper` where the paper itself gives no value."""


@pytest.mark.parametrize("field", ASSUMED)
def test_what_is_assumed_of_the_paper_is_what_the_fidelity_table_says(field: str) -> None:
    value: object = paper_generator()
    for name in field.split("."):
        value = getattr(value, name)
    assert value == ASSUMED[field]


def test_styles_rate_falls_over_the_second_half() -> None:
    training = paper_generator().style.training
    rates = [rate_factor(training.rate, step, training.steps) for step in (0, 99_999, 150_000)]
    assert rates == [1.0, 1.0, 0.5]


@pytest.mark.parametrize(("table", "rows"), [(2, table2), (3, table3)])
def test_every_row_of_the_papers_tables_is_a_recipe_of_that_name(table: int, rows: object) -> None:
    made = rows(paper_generator())  # type: ignore[operator]
    names = {row.name for row in made} if table == 3 else set(made)
    columns = {"with super-resolution", "without super-resolution"}
    assert names == quoted(table) - columns


def test_a_row_of_table_2_changes_the_codebook_and_the_decoders_end_alone() -> None:
    base = paper_generator()
    for name, recipe in table2(base).items():
        kind, *_, size = name.split("_")
        quantiser = recipe.sizes.quantiser
        assert quantiser.kind == kind
        assert f"{quantiser.codes}x{recipe.sizes.latent_channels}" == size
        assert recipe.sizes.super_resolution == ("residual" if "_sr_" in name else "none")
        same = {"sizes"} ^ set(type(recipe).model_fields)
        assert all(getattr(recipe, f) == getattr(base.autoencoder, f) for f in same)


def test_the_default_of_table_2_is_the_paper_recipe() -> None:
    assert table2(paper_generator())["homogeneous_sr_8192x8"] == paper_generator().autoencoder


def test_a_row_of_table_3_leaves_out_what_its_name_does_not_say() -> None:
    rows = {row.name.removeprefix("framework_"): row for row in table3(paper_generator())}
    for name, row in rows.items():
        assert row.prior.sizes.progressive == (name in ("prior", "both"))
        kind = "homogeneous" if name in ("autoencoder", "both") else "plain"
        assert row.autoencoder.sizes.quantiser.kind == kind


@pytest.mark.parametrize("make", [tiny_generator, small_generator, small_cpu_generator])
def test_short_runs_end_with_a_rate_near_nothing(make: object) -> None:
    recipe: GeneratorRecipe = make()  # type: ignore[operator]
    for part in (recipe.autoencoder, recipe.prior, recipe.denoiser):
        training = part.training
        assert rate_factor(training.rate, training.steps - 1, training.steps) < 0.01


def test_nothing_tiny_runs_one_volume_at_a_time() -> None:
    """One volume with few channels takes a slow convolution on CPUs."""
    recipe = tiny_generator()
    parts = (recipe.autoencoder, recipe.prior, recipe.denoiser)
    assert all(part.training.micro_batch >= 2 for part in parts)
    assert recipe.micro_batch >= 2

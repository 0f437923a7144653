import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from synth_ct.models.style import (
    HistogramMatch,
    ImagePool,
    PatchDiscriminator,
    StyleGenerator,
    StyleSizes,
    initialise,
    least_squares,
    mean_quantiles,
    shares,
)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# ---- networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "pixels", "millions", "gflop"), [(9, 256, 11.4, 97.5), (6, 128, 7.8, 17.1)]
)
def test_generators_are_as_large_as_cyclegans(
    blocks: int, pixels: int, millions: float, gflop: float
) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        generator = StyleGenerator(StyleSizes(blocks=blocks, upsampling="transposed"))
        generator(torch.zeros(1, 1, pixels, pixels))
    assert parameters(generator) / 1e6 == pytest.approx(millions, rel=0.01)
    assert counted.get_total_flops() / 1e9 == pytest.approx(gflop, rel=0.01)


def test_resizing_instead_of_transposing_costs_no_parameter() -> None:
    nearest, transposed = (
        StyleGenerator(StyleSizes(width=8, upsampling=way)) for way in ("nearest", "transposed")
    )
    assert parameters(nearest) == parameters(transposed)


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
def test_a_film_keeps_its_size_and_range(upsampling: str, random: torch.Generator) -> None:
    sizes = StyleSizes.model_validate({"width": 4, "blocks": 1, "upsampling": upsampling})
    styled = StyleGenerator(sizes)(torch.rand(2, 1, 32, 48, generator=random))
    assert styled.shape == (2, 1, 32, 48)
    assert styled.abs().max() <= 1


def test_a_film_that_would_change_its_size_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        StyleGenerator(StyleSizes(width=4, blocks=1))(torch.zeros(1, 1, 30, 32))


def test_a_film_is_styled_the_same_whatever_its_companions(random: torch.Generator) -> None:
    generator = StyleGenerator(StyleSizes(width=4, blocks=2))
    films = torch.rand(3, 1, 32, 32, generator=random)
    torch.testing.assert_close(generator(films)[1:2], generator(films[1:2]))


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_score_sees_its_patch_and_no_more(layers: int, patch: int) -> None:
    judge = PatchDiscriminator(width=2, layers=layers)
    for layer in judge.modules():
        if isinstance(layer, nn.InstanceNorm2d):
            layer.forward = lambda x: x  # it alone sees the whole film
    film = torch.randn(1, 1, 160, 160, requires_grad=True)
    scores = judge(film)
    middle = scores.shape[-1] // 2
    (reach,) = torch.autograd.grad(scores[0, 0, middle, middle], film)
    rows = reach[0, 0].abs().sum(1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == patch


def test_the_same_seed_begins_with_the_same_weights() -> None:
    first, second, other = (StyleGenerator(StyleSizes(width=4, blocks=1)) for _ in range(3))
    for network, seed in ((first, 1), (second, 1), (other, 2)):
        initialise(network, torch.Generator().manual_seed(seed))
    w1, w2, w3 = (next(n.parameters()) for n in (first, second, other))
    assert torch.equal(w1, w2)
    assert not torch.equal(w1, w3)
    assert all(p.std() < 0.03 for p in first.parameters() if p.ndim == 4)


def test_a_block_adds_to_what_it_is_given(random: torch.Generator) -> None:
    generator = StyleGenerator(StyleSizes(width=4, blocks=2))
    for layer in generator.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == layer.out_channels:
            nn.init.zeros_(layer.weight)  # only the blocks have such
    assert generator(torch.rand(1, 1, 32, 32, generator=random)).std() > 1e-3


def test_a_generator_can_learn_to_change_nothing(random: torch.Generator) -> None:
    generator = StyleGenerator(StyleSizes(width=8, blocks=2))
    initialise(generator, random)
    film = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 6, generator=random) - 0.5, 24)
    optimiser = torch.optim.Adam(generator.parameters(), lr=5e-3)
    for _ in range(150):
        loss = (generator(film) - film).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.2 * float(film.abs().mean())


def test_the_loss_is_zero_where_the_score_is_the_target() -> None:
    assert float(least_squares(torch.tensor([1.0, 1.0]), 1.0)) == 0
    assert float(least_squares(torch.tensor([0.0, 3.0]), 1.0)) == 2.5


# ---- pool --------------------------------------------------------------------------------------


def numbered(first: int, count: int) -> Tensor:
    return torch.arange(first, first + count).float().reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4)


def test_a_pool_lets_the_first_films_through_and_then_half_of_them(random: torch.Generator) -> None:
    pool = ImagePool(size=10, pixels=4)
    assert torch.equal(pool(numbered(0, 10), random), numbered(0, 10))
    films = numbered(10, 400)
    seen = pool(films, random)
    old = (seen != films).flatten(1).all(1)
    assert 0.4 < old.float().mean() < 0.6
    assert (seen <= films).all()
    assert seen[old].flatten(1)[:, 0].unique().numel() == int(old.sum()), "each comes back once"


def test_a_pool_is_saved_and_found_again() -> None:
    pool, found = ImagePool(size=3, pixels=4), ImagePool(size=3, pixels=4)
    pool(numbered(5, 3), torch.Generator().manual_seed(0))
    found.load_state_dict(pool.state_dict())
    draws = [torch.Generator().manual_seed(4) for _ in range(2)]
    first, second = (p(numbered(8, 20), d) for p, d in zip((pool, found), draws, strict=True))
    assert torch.equal(first, second)


def test_what_comes_out_of_a_pool_is_no_longer_being_learnt(random: torch.Generator) -> None:
    film = torch.ones(1, 1, 4, 4, requires_grad=True)
    assert not ImagePool(size=2, pixels=4)(film, random).requires_grad


# ---- histogram ---------------------------------------------------------------------------------


def test_a_share_counts_ties_half() -> None:
    assert shares(torch.tensor([[3.0, 1.0, 3.0, 5.0]])).tolist() == [[0.5, 0.125, 0.5, 0.875]]


def test_quantiles_are_numpys(rng: np.random.Generator) -> None:
    films = rng.normal(size=(3, 1, 40, 40)).astype(np.float32)
    at = (np.arange(50) + 0.5) / 50
    wanted = np.quantile(films.reshape(3, -1), at, axis=1, method="hazen").mean(1)
    np.testing.assert_allclose(mean_quantiles(torch.from_numpy(films), 50), wanted, atol=1e-5)


def test_a_matched_film_has_the_quantiles_of_the_reference(random: torch.Generator) -> None:
    match = HistogramMatch(1024)
    match.quantiles_Q = mean_quantiles(torch.randn(5, 1, 32, 32, generator=random) ** 3, 1024)
    matched = match(torch.rand(2, 1, 32, 32, generator=random))
    for film in matched:
        found = film.flatten().sort().values
        torch.testing.assert_close(found, match.quantiles_Q, atol=1e-3, rtol=1e-3)


def test_matching_keeps_order_and_equal_values(random: torch.Generator) -> None:
    match = HistogramMatch(64)
    film = torch.randint(-5, 6, (1, 1, 32, 32), generator=random).float()
    order = film.flatten().argsort(stable=True)
    before, after = film.flatten()[order], match(film).flatten()[order]
    assert (after.diff() >= 0).all()
    assert ((before.diff() == 0) == (after.diff() == 0)).all()


def test_matching_a_film_to_itself_changes_nothing(random: torch.Generator) -> None:
    film = torch.rand(1, 1, 32, 32, generator=random)
    match = HistogramMatch(32 * 32)
    match.quantiles_Q = mean_quantiles(film, 32 * 32)
    torch.testing.assert_close(match(film), film)

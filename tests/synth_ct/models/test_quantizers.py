import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from synth_ct.models.codebook import Tally, nearest_code, use_of, z_score
from synth_ct.models.quantizers import (
    CodebookQuantiser,
    Latent,
    Quantiser,
    QuantiserSizes,
    build_quantiser,
)

KINDS = {
    "by vector": QuantiserSizes(codes=32),
    "by channel": QuantiserSizes(codes=32, normalise="channel"),
    "plain": QuantiserSizes(kind="plain", codes=32),
    "fsq": QuantiserSizes(kind="fsq", levels=(4, 3, 5, 2)),
    "fsq projected": QuantiserSizes(kind="fsq", levels=(4, 3, 5)),
    "kl": QuantiserSizes(kind="kl"),
}
CODEBOOKS = ("by vector", "by channel", "plain")


def built(sizes: QuantiserSizes, channels: int = 4) -> Quantiser:
    torch.manual_seed(0)
    return build_quantiser(sizes, channels)


def codebook(**settings: Any) -> CodebookQuantiser:
    torch.manual_seed(0)
    quantiser = build_quantiser(QuantiserSizes(**settings), 4)
    assert isinstance(quantiser, CodebookQuantiser)
    return quantiser


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(quantiser: Quantiser, h_BCXYZ: Tensor) -> Latent:
    latent = quantiser(h_BCXYZ, torch.Generator().manual_seed(0))
    assert isinstance(latent, Latent)
    return latent


# ---- the nearest code --------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 7, None])
@pytest.mark.parametrize("codes", [2, 64, 300])
def test_the_nearest_code_is_that_of_brute_force(rows: int | None, codes: int) -> None:
    z_NC, codes_KC = features(500, 8), 3 * features(codes, 8, seed=1) + 2
    brute = (z_NC[:, None] - codes_KC[None]).square().sum(2).argmin(1)
    assert torch.equal(nearest_code(z_NC, codes_KC, rows), brute)


def test_of_equal_codes_the_first_is_the_nearest() -> None:
    z_NC, codes_KC = features(200, 8), features(100, 8, seed=1)
    twice_KC = torch.cat([codes_KC, codes_KC, codes_KC])
    assert torch.equal(nearest_code(z_NC, twice_KC), nearest_code(z_NC, codes_KC))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_diverged_vector_still_gets_an_index(value: float) -> None:
    z_NC = features(3, 8)
    z_NC[:, 0] = value
    found = nearest_code(z_NC, features(300, 8))
    assert found.min() >= 0
    assert found.max() < 300


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation makes."""

    bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = out if isinstance(out, tuple | list) else [out]
        made = [t.nbytes for t in tensors if isinstance(t, Tensor)]
        self.bytes = max([self.bytes, *made])
        return out


def test_the_lookup_never_holds_more_than_32_mb_at_the_paper_s_size() -> None:
    with LargestTensor() as largest, torch.device("meta"):
        nearest_code(torch.empty(32**3, 8), torch.empty(8192, 8))
    assert 2**20 < largest.bytes <= 32 * 2**20


# ---- what every quantiser promises -------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_snapping_the_embedding_gives_what_forward_gives_the_decoder(kind: str) -> None:
    quantiser, h = built(KINDS[kind]), features(2, 4, 3, 4, 5)
    for step in range(3):
        quantiser.begin_step(step, seed=0)
        run(quantiser, 2 * h + 1)
    quantiser.eval()
    embedded = quantiser.embed(h)
    latent = run(quantiser, h)
    assert embedded.shape == (2, quantiser.latent_channels, 3, 4, 5)
    assert latent.z_BCXYZ.shape == h.shape
    assert torch.equal(quantiser.snap(embedded), latent.z_BCXYZ)


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedding_depends_on_no_companion(kind: str) -> None:
    quantiser, h = built(KINDS[kind]), features(4, 4, 3, 3, 3)
    quantiser.begin_step(0, seed=0)
    run(quantiser, 3 * h)
    quantiser.begin_step(1, seed=0)
    quantiser.eval()
    torch.testing.assert_close(quantiser.embed(h)[1:2], quantiser.embed(h[1:2]))
    torch.testing.assert_close(run(quantiser, h).z_BCXYZ[1:2], run(quantiser, h[1:2]).z_BCXYZ)


@pytest.mark.parametrize("kind", [*CODEBOOKS, "fsq"])
def test_half_precision_around_a_quantiser_changes_no_code(kind: str) -> None:
    quantiser = built(KINDS[kind]).eval()
    h = features(2, 4, 5, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        half = run(quantiser, h)
    assert torch.equal(half.z_BCXYZ, run(quantiser, h).z_BCXYZ)


# ---- codebooks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("normalise", "dim"), [("vector", 1), ("channel", 0)])
def test_n_gives_mean_0_and_deviation_1(normalise: str, dim: int) -> None:
    quantiser = codebook(codes=32, normalise=normalise)
    h = 7 * features(2, 4, 6, 6, 6) - 3
    run(quantiser, h)
    quantiser.begin_step(1, seed=0)
    for rows in (
        quantiser.embed(h).movedim(1, -1).reshape(-1, 4),
        z_score(quantiser.codes_KC.detach(), dim),
    ):
        torch.testing.assert_close(
            rows.mean(dim), torch.zeros(rows.shape[1 - dim]), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            rows.std(dim, correction=0), torch.ones(rows.shape[1 - dim]), atol=1e-4, rtol=0
        )


def test_the_decoder_reads_normalised_codes() -> None:
    quantiser = codebook(codes=32)
    latent = run(quantiser, features(2, 4, 3, 3, 3))
    assert latent.indices_BXYZ is not None
    expected = z_score(quantiser.codes_KC, 1)[latent.indices_BXYZ].movedim(-1, 1)
    torch.testing.assert_close(latent.z_BCXYZ, expected)


def test_homogeneous_codes_ignore_scale_and_offset_of_every_vector() -> None:
    h = features(2, 4, 5, 5, 5)
    scale, offset = features(2, 1, 5, 5, 5, seed=1).exp(), features(2, 1, 5, 5, 5, seed=2)
    quantiser = codebook(codes=32)
    indices, moved = (run(quantiser, x).indices_BXYZ for x in (h, scale * h + 5 * offset))
    assert indices is not None
    assert moved is not None
    assert torch.equal(indices, moved)
    plain = codebook(codes=32, kind="plain")
    plain.codes_KC.data = features(32, 4, seed=3)
    assert not torch.equal(*(run(plain, x).indices_BXYZ for x in (h, scale * h + 5 * offset)))


@pytest.mark.parametrize("kind", CODEBOOKS)
def test_the_gradient_of_the_decoder_passes_straight_to_the_normalised_encoder(kind: str) -> None:
    quantiser, h = built(KINDS[kind]).eval(), features(2, 4, 3, 3, 3).requires_grad_()
    weights = features(2, 4, 3, 3, 3, seed=1)
    (straight,) = torch.autograd.grad((run(quantiser, h).z_BCXYZ * weights).sum(), h)
    (direct,) = torch.autograd.grad((quantiser.embed(h) * weights).sum(), h)
    torch.testing.assert_close(straight, direct)
    assert isinstance(quantiser, CodebookQuantiser)
    z_BCXYZ = run(quantiser, h).z_BCXYZ
    (codes,) = torch.autograd.grad(z_BCXYZ.sum(), quantiser.codes_KC, allow_unused=True)
    assert codes is None  # only Eq. 2 moves codes


def test_the_weight_is_on_the_encoder_s_side_of_equation_2() -> None:
    h = features(2, 4, 3, 3, 3).requires_grad_()
    gradients = []
    for commitment in (0.25, 1.0):
        quantiser = codebook(kind="plain", codes=32, commitment=commitment)
        latent = run(quantiser, h)
        codes, encoder = torch.autograd.grad(latent.loss, (quantiser.codes_KC, h))
        gradients.append((codes, encoder))
        towards = 2 * commitment * (h - latent.z_BCXYZ) / h.numel()
        torch.testing.assert_close(encoder, towards.detach())
    (codes, _), (codes_again, _) = gradients
    torch.testing.assert_close(codes, codes_again)  # the codes' term has weight 1
    assert codes.abs().sum() > 0


def test_gradient_steps_on_the_loss_move_codes_to_the_vectors() -> None:
    quantiser = codebook(codes=16, restart_below=0)
    h = features(2, 4, 4, 4, 4)
    optimiser = torch.optim.Adam(quantiser.parameters(), 0.05)
    first = run(quantiser, h).loss.item()
    for _ in range(50):
        optimiser.zero_grad()
        run(quantiser, h).loss.backward()
        optimiser.step()
    assert run(quantiser, h).loss.item() < 0.6 * first


# ---- use, and dead codes -----------------------------------------------------------------------


def test_use_and_perplexity_of_known_counts() -> None:
    even = use_of(torch.tensor([5.0, 5, 5, 5, 0, 0, 0, 0]))
    assert even["usage"].item() == 0.5
    assert even["perplexity"].item() == pytest.approx(4)
    skewed = use_of(torch.tensor([3.0, 1]))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert skewed["perplexity"].item() == pytest.approx(math.exp(entropy))
    assert use_of(torch.zeros(4))["usage"].item() == 0


def test_counts_decay_by_step_and_enter_once() -> None:
    tally = Tally((1,), decay=0.5)
    tally.add(torch.tensor([3.0]))
    tally.add(torch.tensor([5.0]))
    seen = []
    for _ in range(3):
        tally.fold()
        seen.append(tally.recent.item())
    assert seen == [8, 4, 2]


def clusters(seed: int) -> Tensor:
    """Vectors near 24 fixed points."""
    centres_KC = functional.normalize(features(24, 4, seed=99)) * 4
    random = torch.Generator().manual_seed(seed)
    which = torch.randint(24, (2 * 4**3,), generator=random)
    h_NC = centres_KC[which] + 0.05 * torch.randn(128, 4, generator=random)
    return h_NC.view(2, 4, 4, 4, 4).movedim(-1, 1)


@pytest.mark.parametrize(
    ("kind", "left"), [("by vector", 0.6), ("by channel", 0.95), ("plain", 0.2)]
)
def test_dead_codes_come_to_life_and_the_error_falls(kind: str, left: float) -> None:
    fast = {"restart_every": 2, "usage_decay": 0.8}
    quantiser = codebook(**(KINDS[kind].model_dump() | fast))
    quantiser.codes_KC.data = 5 + 0.01 * features(32, 4)  # all in one corner
    history = []
    for step in range(60):
        quantiser.begin_step(step, seed=0)
        loss = run(quantiser, clusters(step)).loss.item()
        history.append((quantiser.usage()["usage"].item(), loss))
    (_, early_loss), (early_use, _), *_, (late_use, late_loss) = history
    assert late_use > 0.5
    assert late_use > 0.2 + early_use
    assert late_loss < left * early_loss


def test_no_code_restarts_where_that_is_switched_off() -> None:
    quantiser = codebook(codes=32, restart_below=0)
    before = quantiser.codes_KC.detach().clone()
    for step in range(30):
        quantiser.begin_step(step, seed=0)
        run(quantiser, clusters(step))
    assert torch.equal(quantiser.codes_KC, before)


def test_codes_in_use_stay_where_they_are_and_the_restarted_get_time() -> None:
    quantiser = codebook(codes=32, restart_every=1, usage_decay=0.9)
    quantiser.begin_step(0, seed=0)
    indices = run(quantiser, clusters(0)).indices_BXYZ
    assert indices is not None
    used = indices.unique()
    before = quantiser.codes_KC.detach().clone()
    quantiser.begin_step(1, seed=0)
    after = quantiser.codes_KC.detach().clone()
    moved = (before != after).any(1)
    assert not moved[used].any()
    assert moved.sum() == 32 - len(used)
    quantiser.begin_step(2, seed=0)  # nothing was counted since: their grace still holds
    assert torch.equal(quantiser.codes_KC, after)


@pytest.mark.parametrize("kind", CODEBOOKS)
def test_two_processes_restart_the_codes_that_one_does(kind: str) -> None:
    """Each sees half of the micro-batches; the loop averages buffers at the end of a step."""
    settings = KINDS[kind].model_dump() | {"restart_every": 2, "usage_decay": 0.9}
    alone, first, second = (codebook(**settings) for _ in range(3))
    for step in range(12):
        for quantiser in (alone, first, second, alone):  # a second call does nothing
            quantiser.begin_step(step, seed=3)
        halves = clusters(2 * step), clusters(2 * step + 1)
        for half in halves:
            run(alone, half)
        for quantiser, half in zip((first, second), halves, strict=True):
            run(quantiser, half)
        for one, other in zip(first.buffers(), second.buffers(), strict=True):
            mean = (one + other) / 2
            one.copy_(mean)
            other.copy_(mean)
    assert torch.equal(first.codes_KC, second.codes_KC)
    torch.testing.assert_close(alone.codes_KC, first.codes_KC, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(alone.usage(), first.usage())
    h = clusters(100)
    torch.testing.assert_close(alone.embed(h), first.embed(h))


def test_evaluation_counts_nothing() -> None:
    for kind, sizes in KINDS.items():
        quantiser = built(sizes).eval()
        before = [b.clone() for b in quantiser.buffers()]
        run(quantiser, features(2, 4, 3, 3, 3))
        assert all(torch.equal(a, b) for a, b in zip(before, quantiser.buffers(), strict=True)), (
            kind
        )


# ---- fsq and kl --------------------------------------------------------------------------------


def test_fsq_reaches_every_level_and_numbers_every_combination_once() -> None:
    quantiser = built(QuantiserSizes(kind="fsq", levels=(4, 3)), 2)
    line = torch.linspace(-4, 4, 40)
    h = torch.stack(torch.meshgrid(line, line, indexing="ij"))[None, ..., None]
    latent = run(quantiser, h)
    assert latent.z_BCXYZ[:, 0].unique().tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1])
    assert latent.z_BCXYZ[:, 1].unique().tolist() == [-1, 0, 1]
    assert latent.indices_BXYZ is not None
    assert latent.indices_BXYZ.unique().tolist() == list(range(12))
    assert len(latent.z_BCXYZ.flatten(2)[0].T.unique(dim=0)) == 12
    quantiser.begin_step(1, seed=0)
    assert quantiser.usage()["usage"].item() == 1


def test_fsq_rounds_to_the_nearest_level_with_a_straight_gradient() -> None:
    quantiser = built(QuantiserSizes(kind="fsq", levels=(5,)), 1)
    h = features(1, 1, 4, 4, 4).requires_grad_()
    z = run(quantiser, h).z_BCXYZ
    assert (z - torch.tanh(h)).abs().max() <= 0.25 + 1e-6
    (gradient,) = torch.autograd.grad(z.sum(), h)
    torch.testing.assert_close(gradient, 1 - torch.tanh(h).square())


def test_fsq_snaps_what_a_sampler_overshoots() -> None:
    quantiser = built(QuantiserSizes(kind="fsq", levels=(5,)), 1)
    z = torch.tensor([-7.0, 1.3]).view(1, 1, 2, 1, 1)
    assert quantiser.snap(z).flatten().tolist() == [-1, 1]


def test_kl_keeps_the_mean_and_samples_around_it_in_training() -> None:
    quantiser, h = built(KINDS["kl"]), features(1, 4, 3, 3, 3)
    samples = torch.cat(
        [quantiser(h, torch.Generator().manual_seed(s)).z_BCXYZ for s in range(400)]
    )
    mean, log_variance = quantiser.moments(h).chunk(2, 1)
    torch.testing.assert_close(quantiser.embed(h), mean)
    deviation = (0.5 * log_variance).exp()
    error = (samples.mean(0) - mean[0]) / (deviation[0] / 20)
    assert error.abs().max() < 5
    assert (samples.std(0) / deviation[0] - 1).abs().max() < 0.2
    torch.testing.assert_close(run(quantiser.eval(), h).z_BCXYZ, mean)


def test_the_divergence_is_that_of_torch() -> None:
    quantiser, h = built(KINDS["kl"]), features(2, 4, 3, 3, 3)
    mean, log_variance = quantiser.moments(h).chunk(2, 1)
    normal = torch.distributions.Normal
    reference = torch.distributions.kl_divergence(
        normal(mean, (0.5 * log_variance).exp()), normal(0.0, 1.0)
    )
    torch.testing.assert_close(run(quantiser, h).loss, reference.mean())


@pytest.mark.parametrize("levels", [(), (5, 1)])
def test_levels_that_tell_nothing_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two values or more"):
        QuantiserSizes(kind="fsq", levels=levels)

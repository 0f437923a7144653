"""The denoiser: what it sees and what it does not, its equations, and what it costs a device."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from synth_ct.models.denoiser import (
    AXIS,
    Attention,
    Denoiser,
    DenoiserSizes,
    fold,
    sinusoids,
    sliding,
    unfold,
)

SMALL = DenoiserSizes(
    latent_channels=4,
    width=8,
    multipliers=(1, 2),
    attend_from=0,
    heads=2,
    head_width=4,
    groups=4,
    longest=8,
)
SYNCS = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal"}


def alive(sizes: DenoiserSizes) -> Denoiser:
    """A net in which nothing is zero any more, as after training."""
    torch.manual_seed(0)
    net = Denoiser(sizes).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return net


def latent(random: torch.Generator, items: int = 2, sides: Sequence[int] = (8, 8, 8)) -> Tensor:
    return torch.randn(items, 4, *sides, generator=random)


@torch.no_grad()
def run(net: Denoiser, z: Tensor, prior: Tensor, time: float = 500.0) -> Tensor:
    out: Tensor = net(z, torch.full((len(z),), time), prior)
    return out


def with_(**fields: Any) -> DenoiserSizes:
    return DenoiserSizes.model_validate(SMALL.model_dump() | fields)


# ---- what it sees ------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_only_attention_crosses_the_plane(plane: str, random: torch.Generator) -> None:
    net, axis = alive(with_(plane=plane)), AXIS[plane]
    z, prior = latent(random), latent(random)
    other = z.clone()
    other.select(axis, 3).add_(1)

    def touched() -> list[int]:
        change = (run(net, z, prior) - run(net, other, prior)).abs().movedim(axis, 0)
        return [n for n, slice_ in enumerate(change) if slice_.max() > 0]

    assert touched() == list(range(8))
    for name, module in net.named_modules():
        if name.endswith(("across.attention", "entry.attention", "exit.attention")):
            assert isinstance(module, Attention)
            nn.init.zeros_(module.out.weight)
    assert touched() == [3]


def test_each_plane_is_the_axial_one_turned(random: torch.Generator) -> None:
    z, prior = latent(random, sides=(8, 4, 6)), latent(random, sides=(8, 4, 6))
    axial = run(alive(with_(plane="axial")), z, prior)
    for plane, order in (("coronal", (0, 1, 2, 4, 3)), ("sagittal", (0, 1, 4, 2, 3))):
        turned = run(alive(with_(plane=plane)), z.permute(order), prior.permute(order))
        torch.testing.assert_close(turned, axial.permute(order))


@pytest.mark.parametrize("conditioning", ["cross", "concat"])
def test_prior_and_time_matter(conditioning: str, random: torch.Generator) -> None:
    net = alive(with_(conditioning=conditioning))
    z, prior = latent(random), latent(random)
    out = run(net, z, prior)
    assert (run(net, z, prior.flip(0)) - out).abs().mean() > 1e-3
    assert (run(net, z, prior, time=499) - out).abs().mean() > 1e-4


def test_where_in_the_prior_something_is_matters(random: torch.Generator) -> None:
    net = alive(with_(attend_from=1))
    z, prior = latent(random), latent(random)
    assert (run(net, z, prior.flip(2)) - run(net, z, prior)).abs().mean() > 1e-3


def test_companions_in_the_batch_do_not_matter(random: torch.Generator) -> None:
    net, z, prior = alive(SMALL), latent(random, 3), latent(random, 3)
    torch.testing.assert_close(run(net, z[1:2], prior[1:2]), run(net, z, prior)[1:2])


def test_an_untrained_net_predicts_zero(random: torch.Generator) -> None:
    net = Denoiser(SMALL)
    assert not run(net, latent(random), latent(random)).any()


@pytest.mark.parametrize("conditioning", ["cross", "concat"])
def test_every_parameter_learns(conditioning: str, random: torch.Generator) -> None:
    net = alive(with_(conditioning=conditioning))
    net(latent(random), torch.tensor([3.0, 900.0]), latent(random)).square().sum().backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


# ---- equations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", AXIS.values())
def test_folding_comes_undone(axis: int, random: torch.Generator) -> None:
    z = latent(random, sides=(2, 3, 4))
    folded = fold(z, axis)
    assert folded.shape[0] == 2 * z.shape[axis]
    torch.testing.assert_close(folded[1], z.select(axis, 1)[0])
    torch.testing.assert_close(unfold(folded, axis, 2), z)


def test_attention_is_its_equation(random: torch.Generator) -> None:
    layer = Attention(SMALL, 8, 6, (5, 4))
    for parameter in layer.parameters():
        parameter.data.normal_(generator=random)
    x, context = torch.randn(3, 12, 8, generator=random), torch.randn(3, 12, 6, generator=random)
    q = layer.query(layer.norm(x)).reshape(3, 12, 2, 4)
    k, v = layer.key_value(context).reshape(3, 12, 2, 2, 4).unbind(2)
    rows, columns = (table.detach() for table in layer.distances)
    score = torch.einsum("nihd,njhd->nhij", q, k) / 2
    for i in range(12):
        for j in range(12):
            (iu, iv), (ju, jv) = divmod(i, 4), divmod(j, 4)
            score[:, :, i, j] += rows[:, ju - iu + 4] + columns[:, jv - iv + 3]
    wanted = layer.out(torch.einsum("nhij,njhd->nihd", score.softmax(-1), v).flatten(2))
    torch.testing.assert_close(layer(x, (3, 4), context), wanted, rtol=1e-4, atol=1e-4)


def test_sliding_windows_hold_distances() -> None:
    table = torch.arange(-4.0, 5)[None]
    distance = torch.arange(3)[None, :] - torch.arange(3)[:, None]
    assert sliding(table, 3).flip(1)[0].tolist() == distance.tolist()


def test_times_are_told_apart() -> None:
    waves = sinusoids(torch.arange(1000.0), 64)
    nearest = torch.cdist(waves.double(), waves.double()).fill_diagonal_(9).min()
    assert nearest > 0.05
    assert waves[0].tolist() == [0.0] * 32 + [1.0] * 32


# ---- sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "levels"), [(8, 3), (16, 4), (32, 4)])
def test_latents_of_all_working_sizes_fit(side: int, levels: int) -> None:
    with torch.device("meta"):
        net = Denoiser(with_(multipliers=(1,) * levels, longest=32))
        z = torch.zeros(2, 4, side, side, side)
        assert net(z, torch.zeros(2), z).shape == z.shape


@pytest.mark.parametrize(
    ("multipliers", "sides", "said"),
    [
        ((1, 1, 1, 1), (8, 8, 8), "cannot be halved 3 times"),
        ((1, 1), (6, 5, 8), "a plane of 6x5 cannot be halved 1 times"),
        ((1, 1), (8, 8, 10), "larger than longest 8"),
    ],
)
def test_latents_that_do_not_fit_are_refused(
    multipliers: tuple[int, ...], sides: tuple[int, ...], said: str, random: torch.Generator
) -> None:
    z = latent(random, sides=sides)
    with pytest.raises(ValueError, match=said):
        Denoiser(with_(multipliers=multipliers))(z, torch.zeros(2), z)


def test_a_prior_of_another_size_is_refused(random: torch.Generator) -> None:
    with pytest.raises(ValueError, match="one size"):
        Denoiser(SMALL)(latent(random), torch.zeros(2), latent(random, sides=(8, 8, 4)))


def test_sizes_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of groups"):
        with_(groups=3)
    with pytest.raises(ValueError, match="would never be seen"):
        with_(attend_from=2)


# ---- what it costs a device --------------------------------------------------------------------


class Kernels(TorchDispatchMode):
    """Counts what would be launched: every operation that is not a view."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and name != "_unsafe_view":
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def kernels(conditioning: str) -> Counter[str]:
    """Of one step of the paper's net, on a latent of few voxels."""
    net = Denoiser(DenoiserSizes.model_validate({"conditioning": conditioning})).eval()
    z = torch.zeros(1, 8, 16, 16, 2)
    with torch.no_grad(), Kernels() as seen:
        net(z, torch.zeros(1), z)
    return seen.counts


@pytest.mark.parametrize(("conditioning", "most"), [("concat", 365), ("cross", 430)])
def test_a_step_launches_few_kernels_and_never_waits_for_the_device(
    conditioning: str, most: int
) -> None:
    counts = kernels(conditioning)
    assert sum(counts.values()) <= most
    assert not SYNCS & counts.keys()

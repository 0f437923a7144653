import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from synth_ct.kit.recipe import changed
from synth_ct.kit.volume import Volume, centred_affine
from synth_ct.models.progressive_encoder import (
    Attention,
    AuxiliaryDecoder,
    BackProjection,
    Lift,
    PriorSizes,
    ProgressiveEncoder,
    in_body,
    magnifications,
)
from synth_ct.models.quantizers import QuantiserSizes
from synth_ct.xray.geometry import Geometry
from synth_ct.xray.project import drr

BOOK = QuantiserSizes(kind="homogeneous", codes=64)
SMALL = PriorSizes(film=32, channels=(8, 16, 32), blocks=1, anatomy_channels=8, quantiser=None)
FIELD_PER_SOURCE = SMALL.field_mm / SMALL.source_mm


def seeded(sizes: PriorSizes) -> ProgressiveEncoder:
    torch.manual_seed(0)
    return ProgressiveEncoder(sizes).eval()


def cost(module: nn.Module, *shape: int) -> tuple[float, float]:
    """Millions of parameters and GFLOP (two a multiply-add) of one forward pass."""
    with FlopCounterMode(display=False) as counter:
        module(torch.empty(shape, device="meta"))
    return sum(p.numel() for p in module.parameters()) / 1e6, counter.get_total_flops() / 1e9


# ---- size --------------------------------------------------------------------------------------


def test_the_papers_sizes_cost_what_was_measured_of_them() -> None:
    with torch.device("meta"):
        encoder = ProgressiveEncoder(PriorSizes(quantiser=None))
        decoder = AuxiliaryDecoder()
    assert cost(encoder, 1, 1, 128, 128) == pytest.approx((17.2, 69.8), rel=0.02)
    assert cost(decoder, 1, 8, 32, 32, 32) == pytest.approx((0.47, 72.5), rel=0.03)


@pytest.mark.parametrize(("film", "last"), [(32, 32), (64, 32), (128, 64)])
def test_any_film_becomes_a_cube_of_a_quarter_of_its_side(film: int, last: int) -> None:
    sizes = SMALL.model_copy(update={"film": film, "channels": (8, 8, last)})
    with torch.no_grad():
        y_BCXYZ = seeded(sizes)(torch.zeros(2, 1, film, film)).y_BCXYZ
    assert y_BCXYZ.shape == (2, 8, *3 * (film // 4,))
    assert AuxiliaryDecoder()(y_BCXYZ[..., :2, :2, :2]).shape == (2, 1, 8, 8, 8)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"film": 64, "channels": (8, 16, 24)}, "a multiple of 16"),
        ({"quantiser": {"kind": "kl"}}, "no quantiser `kl` of its own"),
        ({"quantiser": {"kind": "fsq"}}, "no quantiser `fsq` of its own"),
        ({"source_mm": 150.0}, "stands inside it"),
    ],
)
def test_sizes_that_cannot_be_are_refused(wrong: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        PriorSizes.model_validate(wrong)


def test_a_film_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1 x 32 x 32, not 1 x 64 x 64; frame them to 32"):
        seeded(SMALL)(torch.zeros(1, 1, 64, 64))


# ---- rays --------------------------------------------------------------------------------------


def lifted(c_BCUV: Tensor) -> Tensor:
    """Back on the film's axes: BFYUV."""
    torch.manual_seed(1)
    with torch.no_grad():
        return Lift(depth=8)(c_BCUV).flip(2, 4).permute(0, 1, 3, 4, 2)


@pytest.mark.parametrize("axis", [2, 3])
def test_rays_that_change_places_take_depths_along(random: torch.Generator, axis: int) -> None:
    c_BCUV = torch.randn(2, 24, 6, 6, generator=random)
    order = torch.randperm(6, generator=random)
    moved = lifted(c_BCUV.index_select(axis, order))
    torch.testing.assert_close(moved, lifted(c_BCUV).index_select(axis + 1, order))


def test_features_are_lifted_alike(random: torch.Generator) -> None:
    c_BCUV = torch.randn(1, 24, 4, 4, generator=random)
    swapped = c_BCUV.unflatten(1, (3, 8))[:, [2, 0, 1]].flatten(1, 2)
    torch.testing.assert_close(lifted(swapped), lifted(c_BCUV)[:, [2, 0, 1]])


def test_a_ray_tells_all_its_depths_and_no_other_ray(random: torch.Generator) -> None:
    c_BCUV = torch.randn(1, 8, 4, 4, generator=random)
    touched = c_BCUV.clone()
    touched[0, 3, 1, 2] += 1
    changed_YUV = (lifted(touched) != lifted(c_BCUV))[0, 0]
    assert changed_YUV[:, 1, 2].all()
    assert changed_YUV.sum() == 8


def test_every_pixel_asks_every_other(random: torch.Generator) -> None:
    attention = Attention(8)
    x_BCUV = torch.randn(2, 8, 3, 4, generator=random)
    q, k, v = attention.qkv(attention.norm(x_BCUV)).reshape(2, 3, 8, 12).unbind(1)
    weights_BPQ = torch.softmax(torch.einsum("bcp,bcq->bpq", q, k) / 8**0.5, dim=-1)
    seen = torch.einsum("bpq,bcq->bcp", weights_BPQ, v).reshape(x_BCUV.shape)
    torch.testing.assert_close(attention(x_BCUV), x_BCUV + attention.out(seen))


# ---- which way is up ---------------------------------------------------------------------------


def test_the_films_upper_left_is_the_patients_upper_right_at_every_depth() -> None:
    film_B1UV = torch.full((1, 1, 64, 64), -1.0)
    film_B1UV[..., 8:12, 12:16] = 1
    smeared_XYZ = BackProjection(16, FIELD_PER_SOURCE)(film_B1UV)[0, 0]
    for slice_XZ in smeared_XYZ.unbind(1):
        x, z = divmod(int(slice_XZ.argmax()), 16)
        assert x >= 11
        assert z >= 12
    assert in_body(torch.arange(8.0).reshape(1, 1, 2, 2, 2))[0, 0, 1, 0, 1] == 0


@pytest.mark.parametrize("voxel", [(29, 27, 4), (3, 4, 28), (20, 30, 22), (2, 2, 2)])
def test_back_projection_meets_what_cast_the_shadow(voxel: tuple[int, int, int]) -> None:
    x, y, z = voxel
    hu_XYZ = np.full((64, 64, 64), -1000, np.int16)
    hu_XYZ[2 * x : 2 * x + 2, 2 * y : 2 * y + 2, 2 * z : 2 * z + 2] = 1000
    lines_UV = drr(Volume(hu_XYZ, centred_affine((64, 64, 64), (5.0, 5.0, 5.0))), Geometry())
    film_B1UV = torch.from_numpy(lines_UV)[None, None]
    smeared_XYZ = BackProjection(32, FIELD_PER_SOURCE)(film_B1UV)[0, 0]
    brightest = divmod(int(smeared_XYZ[:, y].argmax()), 32)
    assert brightest == (x, z)


def test_what_is_nearer_to_the_source_looks_larger() -> None:
    m_Y = magnifications(4, FIELD_PER_SOURCE)
    assert (m_Y.diff() > 0).all()
    assert float(m_Y[-1]) == pytest.approx(850 / (850 - 120))


def test_the_anatomy_stage_reads_the_back_projection() -> None:
    encoder = seeded(SMALL.model_copy(update={"back_projection": True}))
    nn.init.zeros_(encoder.anatomy[0].weight[:, :-1])  # all but the back-projection
    with torch.no_grad():
        dark, bright = encoder(torch.stack([-torch.ones(1, 32, 32), torch.ones(1, 32, 32)])).y_BCXYZ
    assert (dark - bright).abs().max() > 1e-3
    assert all("points" not in name for name in encoder.state_dict())


# ---- the latent space --------------------------------------------------------------------------


@pytest.fixture
def film(random: torch.Generator) -> Tensor:
    return torch.rand(2, 1, 32, 32, generator=random) * 2 - 1


def test_a_quantised_prior_lies_in_the_homogeneous_space(film: Tensor) -> None:
    prior = seeded(SMALL.model_copy(update={"quantiser": BOOK}))(film)
    mean, deviation = prior.y_BCXYZ.mean(1), prior.y_BCXYZ.std(1, correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-4, rtol=0)
    torch.testing.assert_close(deviation, torch.ones_like(deviation), atol=1e-2, rtol=0)
    distinct = prior.y_BCXYZ.movedim(1, -1).reshape(-1, 8).unique(dim=0)
    assert len(distinct) <= 64
    assert prior.loss > 0


def test_gradients_pass_the_quantiser(film: Tensor) -> None:
    encoder = seeded(SMALL.model_copy(update={"quantiser": BOOK}))
    encoder(film).y_BCXYZ.square().sum(1).diff(dim=1).abs().sum().backward()
    encoder.zero_grad()
    encoder(film).y_BCXYZ[:, 0].sum().backward()
    first = encoder.shape.layers[0].weight.grad
    assert first is not None
    assert first.abs().sum() > 0


def test_a_prior_without_a_quantiser_may_say_how_sure_it_is(film: Tensor) -> None:
    prior = seeded(SMALL)(film)
    assert prior.loss == 0
    assert prior.y_BCXYZ.std(1).std() > 1e-3


def test_without_its_stages_the_film_is_laid_out_as_depth_and_convolved_once() -> None:
    stages, flat = (ProgressiveEncoder(changed(SMALL, progressive=p)) for p in (True, False))
    assert list(flat.lift.parameters()) == []
    convolutions = [m for m in flat.anatomy.modules() if isinstance(m, nn.Conv3d)]
    assert len(convolutions) == 2
    assert len(list(stages.anatomy.parameters())) > len(list(flat.anatomy.parameters()))

import numpy as np
import pytest

from synth_ct.phantom.anatomy import draw_anatomy
from synth_ct.phantom.scan import draw_noise, path_noise
from synth_ct.phantom.shapes import draw_form

EDGE_MM = 2.5


def noise_of(family: str) -> np.ndarray:
    anatomy = draw_anatomy(0, "A" if family == "A" else "B")
    blank = np.zeros((48, 48, 48), np.float32)
    return draw_noise(anatomy, np.random.default_rng(1), blank, EDGE_MM)


def correlation(noise: np.ndarray, steps: int, axis: int = 0) -> float:
    return float((noise * np.roll(noise, steps, axis)).mean() / (noise**2).mean())


@pytest.mark.parametrize("family", ["A", "B"])
def test_the_kernel_correlates_neighbours_as_in_real_ct(family: str) -> None:
    noise = noise_of(family)
    assert noise.std() == pytest.approx(1, abs=1e-3)
    assert 0.3 < correlation(noise, 1) < 0.7
    assert correlation(noise, 1, axis=2) > correlation(noise, 1)


def test_family_b_has_the_sharper_kernel() -> None:
    soft, sharp = noise_of("A"), noise_of("B")
    assert correlation(sharp, 1) < correlation(soft, 1) - 0.05
    assert correlation(sharp, 3) < -0.01 < correlation(soft, 3)


def test_family_a_is_squared_off_and_family_b_is_star_shaped(rng: np.random.Generator) -> None:
    first, second = draw_form(rng, "A"), draw_form(rng, "B")
    assert first.exponent > 2
    assert not first.harmonics
    assert second.exponent == 2
    assert any(second.harmonics)


def test_noise_grows_with_what_the_rays_cross() -> None:
    x, y, _ = np.meshgrid(*[np.linspace(-160, 160, 32)] * 3, indexing="ij")
    body = np.where(x**2 + y**2 < 120**2, 0.0, -1000.0).astype(np.float32)
    shoulders = body.copy()
    shoulders[:, 12:20, 16:] = 0
    plain, strong = (path_noise(hu, (10.0, 10.0, 10.0)) for hu in (body, shoulders))
    assert plain[16, 16, 4] > 1.3 * plain[8, 8, 4]
    assert strong[16, 16, 20] > 1.2 * strong[16, 16, 4]

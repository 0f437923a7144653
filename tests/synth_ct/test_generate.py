"""One radiograph and a seed become a volume: always the same one, whoever goes along."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from synth_ct.generate import XctDiff, generate, padded, restyled
from synth_ct.generator import open_generator
from synth_ct.kit.volume import spacing_mm
from synth_ct.pairs.arrays import FIELD_MM
from synth_ct.pairs.disk import open_pairs

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(generator_root: Path) -> XctDiff:
    return open_generator(generator_root, CPU).models


@pytest.fixture(scope="module")
def films(generator_root: Path) -> torch.Tensor:
    return open_pairs(generator_root / "cohorts/pairs").film(range(5), CPU)


def test_a_volume_is_hounsfield_units_on_the_nominal_grid(
    models: XctDiff, films: torch.Tensor
) -> None:
    (volume,) = generate(models, films[:1], [7])
    assert volume.array_XYZ.dtype == np.float32
    assert np.isfinite(volume.array_XYZ).all()
    assert volume.array_XYZ.shape == (32, 32, 32)
    assert spacing_mm(volume.affine) == (FIELD_MM / 32,) * 3
    assert volume.affine[0, 3] == -(32 - 1) / 2 * FIELD_MM / 32


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3], indirect=True)
def test_companions_and_places_change_no_bit(
    models: XctDiff, films: torch.Tensor, threads: int
) -> None:
    assert models.micro_batch == 2
    alone = generate(models, films[:1], [7])[0].array_XYZ
    first = generate(models, films[:3], [7, 8, 9])[0].array_XYZ
    second = generate(models, films[[2, 0, 1]], [9, 7, 8])[1].array_XYZ
    np.testing.assert_array_equal(alone, first)
    np.testing.assert_array_equal(alone, second)
    assert torch.get_num_threads() == threads


def test_other_films_and_other_seeds_give_other_volumes(
    models: XctDiff, films: torch.Tensor
) -> None:
    shaken = replace(models, denoiser=deepcopy(models.denoiser), prior=deepcopy(models.prior))
    assert shaken.denoiser is not None
    random = torch.Generator().manual_seed(0)
    for network in (shaken.denoiser, shaken.prior):  # two steps of training hardly read a film
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.2, generator=random)
    a, b, c = (v.array_XYZ for v in generate(shaken, films[[0, 0, 1]], [1, 2, 1]))
    assert (a != b).any()
    assert (a != c).any()


def test_without_a_denoiser_the_prior_is_decoded_and_no_seed_matters(
    models: XctDiff, films: torch.Tensor
) -> None:
    control = replace(models, denoiser=None)
    a, b = (v.array_XYZ for v in generate(control, films[[0, 0]], [1, 2]))
    np.testing.assert_array_equal(a, b)


def test_each_film_needs_its_seed(models: XctDiff, films: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="2 films but 1 seeds"):
        generate(models, films[:2], [1])


def test_style_treats_each_film_as_if_it_were_alone(models: XctDiff, films: torch.Tensor) -> None:
    together = restyled(models, films)
    assert together.shape == films.shape
    torch.testing.assert_close(together[3:4], restyled(models, films[3:4]), rtol=0, atol=0)


def test_a_short_batch_is_filled_with_its_last_film(films: torch.Tensor) -> None:
    full = padded(films[:2], 4)
    assert len(full) == 4
    assert torch.equal(full[3], films[1])

"""Random bodies: from a seed, of every density, and nothing anatomical about them."""

import numpy as np

from pretrain.primitives import DENSITIES_HU, primitive_volume
from synth_ct.kit.seeds import numpy_random


def volume(index: int, side: int = 24) -> np.ndarray:
    return primitive_volume(numpy_random(0, "primitives", index), (side, side, side))


def test_equal_seeds_give_equal_volumes_and_others_differ() -> None:
    assert np.array_equal(volume(1), volume(1))
    assert not np.array_equal(volume(1), volume(2))


def test_every_density_comes_and_most_of_the_border_is_air() -> None:
    volumes = np.stack([volume(n) for n in range(20)])
    for low, high in DENSITIES_HU:
        assert ((volumes > low) & (volumes < high)).mean() > 0.005
    assert np.median(volumes[:, 0]) < -900
    assert volumes.dtype == np.int16


def test_bodies_have_no_preferred_place_or_direction() -> None:
    """Anatomy would: left is not right, and up is not down."""
    mean_XYZ = np.mean([volume(n, 12) for n in range(150)], axis=0)
    for axis in range(3):
        assert np.abs(mean_XYZ - np.flip(mean_XYZ, axis)).mean() < 60

"""No data at all: random geometric bodies in HU. The control for "is anatomy needed?".

A volume is a soft cuboid of tissue in air, filled with ellipsoids, boxes, tubes and shells of
random place, size, turn and density, painted one over another. Everything comes from one seed.
"""

import numpy as np

from synth_ct.kit.axes import Grid, HuArray

AIR_HU, TISSUE_HU = -1000.0, 40.0
DENSITIES_HU = ((-950.0, -700.0), (-120.0, -60.0), (-20.0, 120.0), (200.0, 1200.0))
"""Ranges as of lung, fat, soft tissue and bone, each equally likely."""
NOISE_HU = 15.0
SHAPES = 24
"""Painted into each volume."""
SIZES = (0.05, 0.35)
"""Half-axes, in sides of the volume, log-uniform."""


def primitive_volume(random: np.random.Generator, shape: Grid) -> HuArray:
    """One volume of random bodies, int16 HU."""
    place_3XYZ = _places(shape)
    hu = np.full(shape, AIR_HU, np.float32)
    trunk = random.uniform(0.6, 0.95, 3)
    hu[(np.abs(place_3XYZ) ** 4 / trunk[:, None, None, None] ** 4).sum(0) < 1] = TISSUE_HU
    for _ in range(SHAPES):
        low, high = DENSITIES_HU[random.integers(len(DENSITIES_HU))]
        hu[_body(random, place_3XYZ)] = random.uniform(low, high)
    hu += random.normal(0, NOISE_HU, shape).astype(np.float32)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def _places(shape: Grid) -> np.ndarray:
    """Coordinates of the voxel centres in [-1, 1]."""
    axes = [(np.arange(n, dtype=np.float32) + 0.5) * 2 / n - 1 for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _body(random: np.random.Generator, place_3XYZ: np.ndarray) -> np.ndarray:
    """Where one random shape is."""
    centre, turn = random.uniform(-0.7, 0.7, 3), _rotation(random)
    low, high = np.log(SIZES)
    half = 2 * np.exp(random.uniform(low, high, 3))
    local = np.einsum("ij,jxyz->ixyz", turn, place_3XYZ - centre[:, None, None, None])
    local = np.abs(local) / half[:, None, None, None]
    kind = random.integers(4)
    radius = np.sqrt((local**2).sum(0))
    if kind == 0:  # ellipsoid
        return np.asarray(radius < 1)
    if kind == 1:  # box
        return np.asarray(local.max(0) < 1)
    if kind == 2:  # tube: an elliptic cylinder
        return np.asarray((np.hypot(local[0], local[1]) < 1) & (local[2] < 1))
    return np.asarray((radius < 1) & (radius > random.uniform(0.6, 0.9)))  # shell


def _rotation(random: np.random.Generator) -> np.ndarray:
    """A uniform rotation: the Q of a normal matrix, with the signs of R's diagonal."""
    q, r = np.linalg.qr(random.normal(size=(3, 3)))
    return np.asarray(q * np.sign(np.diag(r)))

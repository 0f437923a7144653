"""Digitally reconstructed radiographs (DRR): line integrals of attenuation along a cone beam.

Two forms of Joseph's method (walk the slices across the beam, interpolate bilinearly in each,
weigh by the length of the ray from slice to slice). Where the detector is parallel to the slices
interpolation separates into two matrix products per slice, and the matrices depend on geometry
and grid alone; `March` samples any other pose. Both are differentiable in the volume. Build a
projector once and use it for a whole cohort.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from synth_ct.kit.axes import Affine, FilmArray, FilmBatch, Grid
from synth_ct.kit.volume import Volume, to_ras
from synth_ct.xray.geometry import Geometry, Rays, View, centre_of, covering, rays

HuTensor = Float[Tensor, "*any"]
MuBatch = Float[Tensor, "b 1 x y z"]
"""Linear attenuation, 1/mm."""

WATER_PER_MM = 0.0206
"""Water at 60 keV (0.2059 cm2/g), about the mean energy of a filtered chest beam."""
WHITE_PERCENTILE = 99.5


# ---- attenuation -------------------------------------------------------------------------------


def attenuation(hu: HuTensor) -> HuTensor:
    """mu = mu_water * max(0, 1 + HU / 1000), in 1/mm.

    The definition of HU, taken at one energy for all tissues: bone keeps the contrast it has in
    CT, which a softer beam would raise by about a quarter.
    """
    return WATER_PER_MM * (1 + hu / 1000).clamp(min=0)


# ---- projectors: the constants of a pose on a grid ---------------------------------------------


@dataclass(frozen=True, slots=True)
class Separable:
    """Detector parallel to the slices: I = mm * sum_k A_k V_k B_k^T, where V_k is a slice HW."""

    axes_KHW: Grid
    """Which voxel axes lie across the film, along its rows' order U, and along V."""
    rows_KUH: Float[Tensor, "k u h"]
    columns_KVW: Float[Tensor, "k v w"]
    mm_UV: Float[Tensor, "u v"]

    def __call__(self, mu_BCXYZ: MuBatch) -> FilmBatch:
        """Attenuation -> line integrals. One volume at a time: faster than a broadcast on CPU."""
        return torch.stack([self._one(mu_XYZ) for mu_XYZ in mu_BCXYZ[:, 0]])[:, None]

    def _one(self, mu_XYZ: Float[Tensor, "x y z"]) -> Float[Tensor, "u v"]:
        slices_KHW = mu_XYZ.permute(self.axes_KHW)
        return (self.rows_KUH @ slices_KHW @ self.columns_KVW.mT).sum(0) * self.mm_UV


@dataclass(frozen=True, slots=True)
class March:
    """Any pose: sample each slice where the rays cross it, weigh by the ray's length in it."""

    slice_axis: int
    points_KUV2: Float[Tensor, "k u v 2"]
    """Crossings in grid_sample's units (W, H)."""
    mm_KUV: Float[Tensor, "k u v"]

    def __call__(self, mu_BCXYZ: MuBatch) -> FilmBatch:
        """Attenuation -> line integrals. The volumes of a batch are the channels of one image."""
        slices_KBHW = mu_BCXYZ[:, 0].movedim(1 + self.slice_axis, 0)
        samples_KBUV = F.grid_sample(slices_KBHW, self.points_KUV2, align_corners=False)
        return torch.einsum("kbuv,kuv->buv", samples_KBUV, self.mm_KUV)[:, None]


def projector(
    geometry: Geometry,
    shape: Grid,
    affine: Affine,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Separable | March:
    """The fastest projector that is exact for this pose and grid."""
    world = rays(geometry, centre_of(shape, affine))
    axes = parallel_axes(world.in_voxels(affine))
    if axes is None:
        return march(world, shape, affine, dtype, device)
    return separable(world, shape, affine, dtype, device)


def parallel_axes(voxel_rays: Rays) -> Grid | None:
    """Voxel axes (across the film, along U, along V) if rows and columns run along voxel axes."""
    steps = np.abs(np.stack([voxel_rays.row_step, voxel_rays.column_step]))
    h, w = (int(axis) for axis in steps.argmax(1))
    off_axis = steps.sum(1) - steps.max(1)
    if h == w or (off_axis > 1e-9 * steps.max(1)).any():
        return None
    return 3 - h - w, h, w


def separable(
    world: Rays, shape: Grid, affine: Affine, dtype: torch.dtype, device: torch.device | str
) -> Separable:
    """The matrices of a pose whose detector is parallel to the slices.

    r_k = (k - s_k) / (t_k - s_k)
    h_k(u) = s_h + r_k (t_h(u) - s_h)      A_k[u, i] = tent(h_k(u) - i)
    w_k(v) = s_w + r_k (t_w(v) - s_w)      B_k[v, j] = tent(w_k(v) - j)
    """
    beams = world.in_voxels(affine)
    axes = parallel_axes(beams)
    assert axes is not None, "this pose needs `march`"
    k, h, w = axes
    s, t_UV3 = beams.source, beams.targets()
    r_K = (np.arange(shape[k]) - s[k]) / (t_UV3[0, 0, k] - s[k])
    h_KU = s[h] + r_K[:, None] * (t_UV3[:, 0, h] - s[h])
    w_KV = s[w] + r_K[:, None] * (t_UV3[0, :, w] - s[w])
    rows_KUH = tent(h_KU, shape[h]) * _between(r_K)[:, None, None]
    mm_UV = ray_lengths(world) / abs(t_UV3[0, 0, k] - s[k])
    constants = (rows_KUH, tent(w_KV, shape[w]), mm_UV)
    return Separable(axes, *(torch.as_tensor(c, dtype=dtype, device=device) for c in constants))


def march(
    world: Rays, shape: Grid, affine: Affine, dtype: torch.dtype, device: torch.device | str
) -> March:
    """Where each ray crosses each slice, for any pose, and its length (mm) from slice to slice."""
    beams = world.in_voxels(affine)
    k = steepest_axis(beams)
    h, w = (axis for axis in range(3) if axis != k)
    s, way_UV3 = beams.source, beams.targets() - beams.source
    r_KUV = (np.arange(shape[k])[:, None, None] - s[k]) / way_UV3[..., k]
    crossings = [(s[a] + r_KUV * way_UV3[..., a], shape[a]) for a in (w, h)]
    points_KUV2 = np.stack([(2 * x + 1) / n - 1 for x, n in crossings], axis=-1)
    mm_KUV = ray_lengths(world) / np.abs(way_UV3[..., k]) * _between(r_KUV)
    return March(
        k,
        torch.as_tensor(points_KUV2, dtype=dtype, device=device),
        torch.as_tensor(mm_KUV, dtype=dtype, device=device),
    )


def steepest_axis(voxel_rays: Rays) -> int:
    """The voxel axis along which even the most slanted ray advances most."""
    way_UV3 = voxel_rays.targets() - voxel_rays.source
    one_way = (way_UV3 > 0).all((0, 1)) | (way_UV3 < 0).all((0, 1))
    return int((np.abs(way_UV3).min((0, 1)) * one_way).argmax())


def ray_lengths(world: Rays) -> Float[ndarray, "u v"]:
    """|t(u, v) - s|, in mm."""
    lengths: Float[ndarray, "u v"] = np.linalg.norm(world.targets() - world.source, axis=-1)
    return lengths


def tent(position: Float[ndarray, "k n"], size: int) -> Float[ndarray, "k n size"]:
    """Linear interpolation onto voxels i: max(0, 1 - |x - i|); nothing lies outside the grid."""
    weights: Float[ndarray, "k n size"] = 1 - np.abs(position[..., None] - np.arange(size))
    return weights.clip(min=0)


def _between(r: Float[ndarray, "*any"]) -> Float[ndarray, "*any"]:
    """1 between source (r = 0) and detector (r = 1): what lies behind casts no shadow."""
    inside: Float[ndarray, "*any"] = ((r > 0) & (r <= 1)).astype(np.float64)
    return inside


# ---- films -------------------------------------------------------------------------------------


def drr(volume: Volume, geometry: Geometry) -> FilmArray:
    """Line integrals (dimensionless) of a CT; its world position and any affine are honoured."""
    grid: Grid = volume.array_XYZ.shape
    hu_XYZ = torch.from_numpy(volume.array_XYZ.astype(np.float32))
    exposure = projector(geometry, grid, volume.affine)
    film: FilmArray = exposure(attenuation(hu_XYZ)[None, None])[0, 0].numpy()
    return film


def to_film(lines_UV: FilmArray) -> FilmArray:
    """Line integrals -> [0, 1], dense is bright (bone white): I / its 99.5th percentile.

    The log domain is kept: equal steps are equal tissue, 0 is air. A film without matter is black.
    """
    white = np.percentile(lines_UV, WHITE_PERCENTILE)
    if white <= 0:
        return np.zeros_like(lines_UV)
    film: FilmArray = (lines_UV / white).clip(0, 1)
    return film


def film_of(volume: Volume, view: View) -> FilmArray:
    """A picture of a whole CT in pixels of its own voxel size, in [0, 1]; see `to_film`."""
    upright = to_ras(volume)
    geometry = covering(Geometry(view), upright.array_XYZ.shape, upright.affine)
    return to_film(drr(upright, geometry))

"""Digitally reconstructed radiographs (DRR): line integrals of attenuation along a cone beam.

Two forms of Joseph's method (walk the slices across the beam, interpolate bilinearly in each,
weigh by the length of the ray from slice to slice). Where the detector is parallel to the slices
interpolation separates into two sparse matrix products, and the matrices depend on geometry and
grid alone; `March` samples any other pose. Both are differentiable in the volume. Build a
projector once and use it for a whole cohort.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from synth_ct.kit.axes import Affine, FilmArray, FilmBatch, Grid
from synth_ct.kit.volume import Volume, to_ras
from synth_ct.xray.geometry import Geometry, Rays, View, centre_of, covering, rays

HuTensor = Float[Tensor, "..."]
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
class WeightedRows:
    """A sparse matrix with equally many entries in each row: out[n] = sum_m w[n, m] table[i[n, m]].

    Rows are read whole and in order, which makes this four times as fast as the dense products.
    """

    index_NM: Int64[Tensor, "n m"]
    weight_NM: Float[Tensor, "n m"]

    def __call__(self, table: Float[Tensor, "rows columns"]) -> Float[Tensor, "n columns"]:
        """The matrix times a table."""
        return F.embedding_bag(self.index_NM, table, per_sample_weights=self.weight_NM, mode="sum")


@dataclass(frozen=True, slots=True)
class Separable:
    """Detector parallel to the slices: I = mm * sum_k A_k V_k B_k^T, where V_k is slice k, HW."""

    shape: Grid
    axes: Grid
    """The voxel axes, that of the film's rows (H) last: first W and K, in their order in memory."""
    across_W: WeightedRows
    """All B_k at once: (W and K) x H -> (V K) x H."""
    down_KH: WeightedRows
    """All A_k at once, and the sum over k: (K H) x V -> U x V."""
    mm_UV: Float[Tensor, "u v"]

    def __call__(self, mu_BCXYZ: MuBatch) -> FilmBatch:
        """Attenuation -> line integrals, one volume at a time: the tables then stay in cache."""
        same_grid(mu_BCXYZ, self.shape)
        return torch.stack([self._one(mu_XYZ) for mu_XYZ in mu_BCXYZ[:, 0]])[:, None]

    def _one(self, mu_XYZ: Float[Tensor, "x y z"]) -> Float[Tensor, "u v"]:
        height = mu_XYZ.shape[self.axes[-1]]
        lines_VKxH = self.across_W(mu_XYZ.permute(self.axes).reshape(-1, height))
        lines_KHxV = lines_VKxH.reshape(self.mm_UV.shape[1], -1).T.contiguous()
        return self.down_KH(lines_KHxV) * self.mm_UV


@dataclass(frozen=True, slots=True)
class March:
    """Any pose: sample each slice where the rays cross it, weigh by the ray's length in it."""

    shape: Grid
    slice_axis: int
    points_KUV2: Float[Tensor, "k u v 2"]
    """Crossings in grid_sample's units (W, H)."""
    mm_KUV: Float[Tensor, "k u v"]

    def __call__(self, mu_BCXYZ: MuBatch) -> FilmBatch:
        """Attenuation -> line integrals. The volumes of a batch are the channels of one image."""
        same_grid(mu_BCXYZ, self.shape)
        slices_KBHW = mu_BCXYZ[:, 0].movedim(1 + self.slice_axis, 0)
        samples_KBUV = F.grid_sample(slices_KBHW, self.points_KUV2, align_corners=False)
        return torch.einsum("kbuv,kuv->buv", samples_KBUV, self.mm_KUV)[:, None]


def same_grid(mu_BCXYZ: MuBatch, shape: Grid) -> None:
    """Refuse a volume of another size: its rays would pass other voxels than it seems."""
    if tuple(mu_BCXYZ.shape[2:]) != shape:
        raise ValueError(
            f"a projector for {shape} voxels was given {tuple(mu_BCXYZ.shape[2:])}; "
            "make one for this grid"
        )


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
    h_k(u) = s_h + r_k (t_h(u) - s_h)      A_k[u, i] = max(0, 1 - |h_k(u) - i|)
    w_k(v) = s_w + r_k (t_w(v) - s_w)      B_k[v, j] = max(0, 1 - |w_k(v) - j|)
    """
    beams = world.in_voxels(affine)
    axes = parallel_axes(beams)
    assert axes is not None, "this pose needs `march`"
    k, h, w = axes
    s, t_UV3 = beams.source, beams.targets()
    slices_K = np.arange(shape[k])
    r_K = (slices_K - s[k]) / (t_UV3[0, 0, k] - s[k])
    i_UK2, a_UK2 = neighbours(s[h] + np.outer(t_UV3[:, 0, h] - s[h], r_K), shape[h])
    j_VK2, b_VK2 = neighbours(s[w] + np.outer(t_UV3[0, :, w] - s[w], r_K), shape[w])
    k_K1 = slices_K[:, None]
    row_VK2 = j_VK2 * shape[k] + k_K1 if w < k else k_K1 * shape[w] + j_VK2
    row_UK2 = k_K1 * shape[h] + i_UK2
    mm_UV = ray_lengths(world) / abs(t_UV3[0, 0, k] - s[k])
    return Separable(
        shape=shape,
        axes=(min(w, k), max(w, k), h),
        across_W=weighted_rows(row_VK2, b_VK2 * between(r_K)[:, None], 2, dtype, device),
        down_KH=weighted_rows(row_UK2, a_UK2, 2 * shape[k], dtype, device),
        mm_UV=torch.as_tensor(mm_UV, dtype=dtype, device=device),
    )


def weighted_rows(
    index: Int64[ndarray, "n k 2"],
    weight: Float[ndarray, "n k 2"],
    entries: int,
    dtype: torch.dtype,
    device: torch.device | str,
) -> WeightedRows:
    """A sparse matrix on its device, `entries` to a row."""
    return WeightedRows(
        torch.as_tensor(index.reshape(-1, entries), device=device),
        torch.as_tensor(weight.reshape(-1, entries), dtype=dtype, device=device),
    )


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
    mm_KUV = ray_lengths(world) / np.abs(way_UV3[..., k]) * between(r_KUV)
    return March(
        shape=shape,
        slice_axis=k,
        points_KUV2=torch.as_tensor(points_KUV2, dtype=dtype, device=device),
        mm_KUV=torch.as_tensor(mm_KUV, dtype=dtype, device=device),
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


def neighbours(
    position: Float[ndarray, "n k"], size: int
) -> tuple[Int64[ndarray, "n k 2"], Float[ndarray, "n k 2"]]:
    """Linear interpolation: voxels floor(x), floor(x) + 1 and their weights; 0 outside the grid."""
    low = np.floor(position)
    voxel = np.stack([low, low + 1], axis=-1)
    weight = 1 - np.abs(position[..., None] - voxel)
    weight[(voxel < 0) | (voxel > size - 1)] = 0
    return voxel.clip(0, size - 1).astype(np.int64), weight


def between(r: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """1 between source (r = 0) and detector (r = 1): what lies behind casts no shadow."""
    return np.where((r > 0) & (r <= 1), 1.0, 0.0)


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

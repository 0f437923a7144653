"""One CT becomes a pair: its framed film, and the part of the body that the film shows.

A film says nothing of absolute size, and framing takes away where the patient stood. So the volume
is cut to the film's window: X and Z span exactly what the frame shows at the depth of the
isocentre, Y their mean extent around the middle of the body. Film and volume are then aligned,
for real radiographs alike, and millimetres are nominal: every cube is said to be equally wide.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from synth_ct.kit.axes import FilmArray, HuArray
from synth_ct.kit.volume import AIR_HU, Volume, spacing_mm, to_int16, to_ras
from synth_ct.pairs.arrays import working_affine
from synth_ct.xray.frame import Box, Framed, frame
from synth_ct.xray.geometry import Geometry, centre_of, covering
from synth_ct.xray.project import drr

BODY_HU = -300
"""Denser than this is body, or couch; the middle of the body is the median of its voxels."""

Centre = Float[np.ndarray, "3"]
Extent = Float[np.ndarray, "3"]


@dataclass(frozen=True, slots=True)
class MadePair:
    """A working volume and the film it is aligned with."""

    hu_XYZ: HuArray
    film_UV: FilmArray
    framed: Framed


def make_pair(volume: Volume, size: int) -> MadePair:
    """Project, frame, and cut the CT to the frame."""
    upright = to_ras(volume)
    geometry = covering(Geometry(), upright.array_XYZ.shape, upright.affine)
    framed = frame(drr(upright, geometry), size)
    part = cut_to_film(upright, framed.box, geometry, size)
    return MadePair(part.array_XYZ, framed.film_UV, framed)


def cut_to_film(volume: Volume, box: Box, geometry: Geometry, size: int) -> Volume:
    """Resample what a window of the film shows to `size` voxels a side; air beyond the scan."""
    centre, extent = shown(volume, box, geometry)
    cut = resampled_box(volume, centre, extent, size)
    return Volume(to_int16(cut), working_affine(size))


def shown(volume: Volume, box: Box, geometry: Geometry) -> tuple[Centre, Extent]:
    """World centre and extent (mm) of a film's window at the isocentre; U is -Z and V is -X."""
    rows, columns = geometry.pixels
    height, width = (n * geometry.pitch_mm / geometry.magnification for n in (rows, columns))
    middle = centre_of(volume.array_XYZ.shape, volume.affine)
    x = middle[0] + width * (0.5 - (box.left + box.right) / 2)
    z = middle[2] + height * (0.5 - (box.top + box.bottom) / 2)
    dx, dz = width * (box.right - box.left), height * (box.bottom - box.top)
    extent = np.array([dx, np.sqrt(dx * dz), dz])
    return np.array([x, _middle_of_body(volume), z]), extent


def _middle_of_body(volume: Volume) -> float:
    """World Y of the median body voxel: a thin couch hardly moves it."""
    per_row = (volume.array_XYZ > BODY_HU).sum((0, 2)).cumsum()
    row = int(np.searchsorted(per_row, per_row[-1] / 2)) if per_row[-1] else len(per_row) // 2
    return float(volume.affine[1, 3] + volume.affine[1, 1] * row)


def resampled_box(volume: Volume, centre: Centre, extent: Extent, size: int) -> HuArray:
    """Linear interpolation at the centres of `size`^3 cells of a box along the voxel axes."""
    from scipy import ndimage

    spacing = np.array(spacing_mm(volume.affine))
    step = extent / size / spacing
    corner = (centre - extent / 2 - volume.affine[:3, 3]) / spacing
    hu = volume.array_XYZ.astype(np.float32)
    if (step > 1).any():  # else fine noise would alias
        hu = ndimage.gaussian_filter(hu, np.where(step > 1, step / 4, 0), mode="nearest")
    first = corner + step / 2
    cut: HuArray = ndimage.affine_transform(
        hu, step, first, output_shape=(size,) * 3, order=1, mode="constant", cval=AIR_HU
    )
    return cut

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from synth_ct.kit.axes import Affine, FilmArray, Grid, Millimetres3
from synth_ct.kit.volume import Volume, centred_affine
from synth_ct.xray.geometry import Geometry, Rays, centre_of, rays, rotation
from synth_ct.xray.project import (
    WATER_PER_MM,
    March,
    Separable,
    attenuation,
    drr,
    film_of,
    march,
    projector,
    steepest_axis,
    to_film,
)

SMALL = Geometry(pixels=(40, 48), pitch_mm=6.0)
AP, PA, LATERAL = SMALL, replace(SMALL, beam="PA"), replace(SMALL, view="lateral")
UPRIGHT = [AP, PA, LATERAL]
TURNED = [
    replace(AP, rotation_deg=(5.0, -8.0, 12.0), translation_mm=(4.0, -6.0, 9.0)),
    replace(PA, rotation_deg=(-20.0, 10.0, 40.0)),
    replace(LATERAL, rotation_deg=(15.0, 0.0, -25.0)),
]


def relative_l2(found: FilmArray, wanted: FilmArray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def positions(shape: Grid, affine: Affine) -> np.ndarray:
    """World position of every voxel."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def lines(array: np.ndarray, affine: Affine, geometry: Geometry) -> FilmArray:
    """Line integrals of an array of attenuations."""
    project = projector(geometry, array.shape, affine, torch.float64)
    return project(torch.from_numpy(array.astype(np.float64))[None, None])[0, 0].numpy()


def world_of(geometry: Geometry, shape: Grid, affine: Affine) -> Rays:
    return rays(geometry, centre_of(shape, affine))


def noise(shape: Grid, rng: np.random.Generator) -> np.ndarray:
    return 0.02 * rng.random(shape)


# ---- the two projectors are one ----------------------------------------------------------------


@pytest.mark.parametrize("geometry", UPRIGHT)
@pytest.mark.parametrize("spacing", [(4.0, 4.0, 4.0), (3.0, 5.0, 7.0)])
@pytest.mark.parametrize("moved", [(0.0, 0.0, 0.0), (13.0, -7.0, 21.0)])
def test_separable_and_march_agree(
    geometry: Geometry, spacing: Millimetres3, moved: Millimetres3, rng: np.random.Generator
) -> None:
    shape = (30, 26, 22)
    affine = centred_affine(shape, spacing)
    mu = torch.from_numpy(noise(shape, rng)).float()[None, None]
    geometry = replace(geometry, translation_mm=moved)

    fast = projector(geometry, shape, affine)
    slow = march(world_of(geometry, shape, affine), shape, affine, torch.float32, "cpu")

    assert isinstance(fast, Separable)
    assert relative_l2(fast(mu).numpy(), slow(mu).numpy()) < 1e-5


def test_separable_is_the_sum_of_dense_interpolations(rng: np.random.Generator) -> None:
    shape, geometry = (12, 10, 14), replace(AP, pixels=(7, 9), pitch_mm=7.0)
    affine = centred_affine(shape, (4.0, 5.0, 6.0))
    mu = noise(shape, rng)
    world = world_of(geometry, shape, affine)
    beams = world.in_voxels(affine)
    s, t = beams.source, beams.targets()
    length = np.linalg.norm(world.targets() - world.source, axis=-1) / abs(t[0, 0, 1] - s[1])
    wanted = np.zeros(geometry.pixels)
    for k in range(shape[1]):
        reach = (k - s[1]) / (t[0, 0, 1] - s[1])
        h, w = (s[a] + reach * (t_a - s[a]) for a, t_a in ((2, t[:, 0, 2]), (0, t[0, :, 0])))
        down, across = (
            np.maximum(0, 1 - np.abs(x[:, None] - np.arange(n))) for x, n in ((h, 14), (w, 12))
        )
        wanted += down @ mu[:, k].T @ across.T

    np.testing.assert_allclose(lines(mu, affine, geometry), wanted * length, rtol=1e-12)


@pytest.mark.parametrize("geometry", TURNED)
def test_a_turned_patient_is_marched(geometry: Geometry) -> None:
    shape = (8, 8, 8)
    assert isinstance(projector(geometry, shape, centred_affine(shape, (1.0, 1.0, 1.0))), March)


def test_no_ray_runs_along_the_slices_it_is_summed_over() -> None:
    # 12 degrees of tilt across 0.5 mm slices: the central ray crosses most slices along Z, but
    # the lowest ray would hardly cross any.
    shape = (32, 32, 160)
    affine = centred_affine(shape, (2.5, 2.5, 0.5))
    world = world_of(Geometry(rotation_deg=(12.0, 0.0, 0.0)), shape, affine)
    assert steepest_axis(world.in_voxels(affine)) == 1


# ---- truth -------------------------------------------------------------------------------------


def ball(shape: Grid, affine: Affine, centre: np.ndarray, radius: float) -> np.ndarray:
    """1 inside, 0 outside, the boundary one voxel wide."""
    distance = np.linalg.norm(positions(shape, affine) - centre, axis=-1)
    return (0.5 + (radius - distance) / np.linalg.norm(affine[:3, 0])).clip(0, 1)


def chord_of_ball(world: Rays, centre: np.ndarray, radius: float) -> FilmArray:
    """2 sqrt(R^2 - d^2), d the distance of the ray from the centre."""
    way = world.targets() - world.source
    way /= np.linalg.norm(way, axis=-1, keepdims=True)
    off = centre - world.source
    squared = (off**2).sum() - (way @ off) ** 2
    return 2 * np.sqrt((radius**2 - squared).clip(0))


def chord_of_box(world: Rays, low: np.ndarray, high: np.ndarray) -> FilmArray:
    """The part of each ray between its last entry into a slab and its first exit from one."""
    way = world.targets() - world.source
    with np.errstate(divide="ignore"):
        a, b = (low - world.source) / way, (high - world.source) / way
    share = np.minimum(np.maximum(a, b).min(-1), 1) - np.minimum(a, b).max(-1)
    return share.clip(0) * np.linalg.norm(way, axis=-1)


@pytest.mark.parametrize("geometry", [*UPRIGHT, *TURNED])
def test_a_ball_casts_the_shadow_of_its_chords(geometry: Geometry) -> None:
    shape, centre, radius = (120, 120, 120), np.array([12.0, -9.0, 15.0]), 45.0
    affine = centred_affine(shape, (1.25, 1.25, 1.25))

    found = lines(ball(shape, affine, centre, radius), affine, geometry)
    wanted = chord_of_ball(world_of(geometry, shape, affine), centre, radius)

    inside = wanted > radius
    assert relative_l2(found[inside], wanted[inside]) < 2e-3
    assert relative_l2(found, wanted) < 0.015  # the rim is one voxel wide
    assert found.sum() == pytest.approx(wanted.sum(), rel=2e-3)


@pytest.mark.parametrize("geometry", [*UPRIGHT, *TURNED])
@pytest.mark.parametrize("spacing", [(2.5, 2.5, 2.5), (2.0, 3.0, 4.0)])
def test_a_box_casts_the_shadow_of_its_chords(geometry: Geometry, spacing: Millimetres3) -> None:
    shape = (60, 50, 40)
    affine = centred_affine(shape, spacing)
    box = np.zeros(shape)
    box[15:50, 10:35, 12:30] = 1
    low, high = (affine[:3, :3] @ np.array(c) + affine[:3, 3] for c in
                 ((14.5, 9.5, 11.5), (49.5, 34.5, 29.5)))  # fmt: skip

    found = lines(box, affine, geometry)
    wanted = chord_of_box(world_of(geometry, shape, affine), low, high)

    assert relative_l2(found, wanted) < 0.04  # interpolation blurs the edges by a voxel
    assert found.sum() == pytest.approx(wanted.sum(), rel=0.015)


@pytest.mark.parametrize("geometry", UPRIGHT)
def test_rays_through_both_faces_of_a_slab_are_exact(geometry: Geometry) -> None:
    shape = (60, 60, 60)
    affine = centred_affine(shape, (2.5, 3.0, 3.5))
    found = lines(np.ones(shape), affine, geometry)
    half = np.array(shape) / 2 * [2.5, 3.0, 3.5]
    wanted = chord_of_box(world_of(geometry, shape, affine), -half, half)

    middle = (slice(12, 28), slice(16, 32))
    np.testing.assert_allclose(found[middle], wanted[middle], rtol=1e-12)


def test_what_lies_behind_the_detector_casts_no_shadow() -> None:
    shape = (10, 200, 10)  # 500 mm deep; the detector is 170 mm behind the isocentre
    affine = centred_affine(shape, (2.5, 2.5, 2.5))
    behind = np.zeros(shape)
    behind[:, :30] = 1  # more than 175 mm behind it

    assert not lines(behind, affine, AP).any()
    assert not lines(behind, affine, replace(AP, rotation_deg=(1.0, 1.0, 1.0))).any()
    assert lines(behind, affine, PA).any()


# ---- which way is up ---------------------------------------------------------------------------


def marked(right: float, front: float, up: float) -> Volume:
    """A ball in air, off the centre by these millimetres."""
    shape = (64, 64, 64)
    affine = centred_affine(shape, (4.0, 4.0, 4.0))
    inside = ball(shape, affine, np.array([right, front, up]), 12)
    return Volume((1000 * inside - 1000).astype(np.float32), affine)


def centroid(film: FilmArray) -> tuple[float, float]:
    u, v = (np.arange(n) for n in film.shape)
    return float((film.sum(1) @ u) / film.sum()), float((film.sum(0) @ v) / film.sum())


@pytest.mark.parametrize("geometry", [AP, PA])
def test_a_mark_at_the_patients_right_shoulder_is_at_the_upper_left(geometry: Geometry) -> None:
    u, v = centroid(drr(marked(right=60, front=0, up=60), geometry))
    assert u == pytest.approx(39 / 2 - 60 * 1.2 / 6, abs=0.1)
    assert v == pytest.approx(47 / 2 - 60 * 1.2 / 6, abs=0.1)


@pytest.mark.parametrize("geometry", [AP, PA])
def test_the_heart_is_at_the_viewers_right(geometry: Geometry) -> None:
    _, v = centroid(drr(marked(right=-40, front=30, up=0), geometry))
    assert v > 47 / 2 + 40 / 6


def test_the_breastbone_is_at_the_left_of_a_lateral_film() -> None:
    u, v = centroid(drr(marked(right=0, front=60, up=60), LATERAL))
    assert u < 39 / 2 - 10
    assert v < 47 / 2 - 10


def test_what_is_nearer_to_the_source_is_larger() -> None:
    front = marked(right=0, front=80, up=0)
    fine = replace(AP, pixels=(96, 96), pitch_mm=2.0)
    seen_from = {beam: spread(drr(front, replace(fine, beam=beam))) for beam in ("AP", "PA")}
    # magnification SDD / (SID - y): 1020 / 770 against 1020 / 930
    assert seen_from["AP"] / seen_from["PA"] == pytest.approx(930 / 770, rel=0.01)


def spread(film: FilmArray) -> float:
    """Standard deviation of a shadow along V."""
    v = np.arange(film.shape[1]) - centroid(film)[1]
    return float(np.sqrt(film.sum(0) @ v**2 / film.sum()))


def test_a_turned_patient_is_a_turned_volume() -> None:
    mark = np.array([40.0, 30.0, 50.0])
    still = drr(marked(*(rotation((10.0, 20.0, 30.0)) @ mark)), AP)
    turned = drr(marked(*mark), replace(AP, rotation_deg=(10.0, 20.0, 30.0)))
    np.testing.assert_allclose(centroid(turned), centroid(still), atol=0.05)


@pytest.mark.parametrize("codes", ["LPS", "SAR", "PIR", "ILA"])
@pytest.mark.parametrize("geometry", [AP, LATERAL])
def test_the_voxel_order_on_disk_does_not_matter(
    codes: str, geometry: Geometry, rng: np.random.Generator
) -> None:
    volume = Volume(rng.normal(0, 100, (20, 24, 28)), centred_affine((20, 24, 28), (5.0, 4.0, 3.0)))
    turns = nib.orientations.axcodes2ornt(codes)
    other = Volume(
        nib.orientations.apply_orientation(volume.array_XYZ, turns),
        volume.affine @ nib.orientations.inv_ornt_aff(turns, (20, 24, 28)),
    )
    np.testing.assert_allclose(drr(other, geometry), drr(volume, geometry), atol=1e-4)


def test_an_oblique_scan_of_the_same_patient_gives_the_same_film() -> None:
    shape, centre = (60, 60, 60), np.array([20.0, 10.0, -15.0])
    upright = centred_affine(shape, (3.0, 3.0, 3.0))
    oblique = upright.copy()
    oblique[:3, :] = rotation((12.0, -7.0, 5.0)) @ upright[:3, :]

    a, b = (lines(ball(shape, affine, centre, 40.0), affine, AP) for affine in (upright, oblique))

    assert relative_l2(b, a) < 0.015


# ---- algebra -----------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", [AP, LATERAL, TURNED[0]])
def test_films_are_linear_and_batches_are_films_one_by_one(
    geometry: Geometry, rng: np.random.Generator
) -> None:
    shape = (20, 18, 16)
    project = projector(geometry, shape, centred_affine(shape, (5.0, 5.0, 5.0)), torch.float64)
    mu = torch.from_numpy(noise((3, 1, *shape), rng))  # type: ignore[arg-type]

    films = project(mu)

    assert films.shape == (3, 1, 40, 48)
    torch.testing.assert_close(films, torch.cat([project(one[None]) for one in mu]))
    torch.testing.assert_close(project(2 * mu[:1] + 3 * mu[1:2]), 2 * films[:1] + 3 * films[1:2])


@pytest.mark.parametrize("geometry", [AP, LATERAL, TURNED[0]])
def test_gradients_reach_every_voxel_rightly(geometry: Geometry) -> None:
    shape, coarse = (4, 5, 3), replace(geometry, pixels=(3, 4), pitch_mm=8.0)
    project = projector(coarse, shape, centred_affine(shape, (6.0, 6.0, 6.0)), torch.float64)
    mu = torch.rand(2, 1, *shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(project, mu)


@pytest.mark.parametrize("geometry", [AP, TURNED[0]])
def test_a_volume_of_another_size_is_refused(geometry: Geometry) -> None:
    project = projector(geometry, (8, 8, 8), centred_affine((8, 8, 8), (1.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match="make one for this grid"):
        project(torch.zeros(1, 1, 9, 8, 8))


# ---- intensities -------------------------------------------------------------------------------


def test_attenuation_is_that_of_water_at_0_and_of_nothing_below_minus_1000() -> None:
    mu = attenuation(torch.tensor([-2000.0, -1000, 0, 1000]))
    torch.testing.assert_close(mu / WATER_PER_MM, torch.tensor([0.0, 0, 1, 2]))


def test_200_mm_of_water_is_a_line_integral_of_4_12() -> None:
    water = Volume(np.zeros((80, 80, 80), np.int16), centred_affine((80,) * 3, (2.5,) * 3))
    assert drr(water, AP)[19:21, 23:25].mean() == pytest.approx(200 * 0.0206, rel=1e-4)


def test_a_film_is_black_in_air_and_white_where_dense() -> None:
    film = film_of(marked(right=60, front=0, up=60), "frontal")
    assert film.dtype == np.float32
    assert film.shape == (64, 64)
    assert film.min() == 0
    assert film.max() == 1
    assert film[:32, :32].sum() == pytest.approx(film.sum())


def test_a_film_has_the_same_shape_however_the_voxels_are_stored() -> None:
    volume = marked(right=60, front=0, up=60)
    low = Volume(volume.array_XYZ[:, :, 16:], volume.affine)
    lying = Volume(np.moveaxis(low.array_XYZ, 2, 0), low.affine[:, [2, 0, 1, 3]])

    assert film_of(lying, "frontal").shape == film_of(low, "frontal").shape == (48, 64)


def test_a_film_keeps_ratios_of_line_integrals(rng: np.random.Generator) -> None:
    integrals = rng.random((30, 30)).astype(np.float32)
    film = to_film(integrals)
    grey = film < 1
    np.testing.assert_allclose((film / integrals)[grey], film[0, 0] / integrals[0, 0], rtol=1e-5)


def test_a_film_of_nothing_is_black() -> None:
    assert not to_film(np.zeros((4, 4), np.float32)).any()


# ---- real patients -----------------------------------------------------------------------------


def real_film(path: Path) -> FilmArray:
    image = nib.load(path)
    return film_of(Volume(np.asarray(image.dataobj), image.affine.astype(np.float64)), "frontal")


def right_of_midline(film: FilmArray, rows: tuple[float, float]) -> float:
    """How much brighter the viewer's right is than the left, spine and flanks left out."""
    band = film[int(rows[0] * len(film)) : int(rows[1] * len(film))]
    body = np.flatnonzero((film > 0.2).mean(0) > 0.5)
    middle, half = (body[0] + body[-1]) / 2, (body[-1] - body[0]) / 2
    off = (np.arange(film.shape[1]) - middle) / half
    right, left = ((side * off > 0.15) & (side * off < 0.5) for side in (1, -1))
    return float(band[:, right].mean() - band[:, left].mean())


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name",
    [
        "4DLung-113_HM10395",
        "LIDC-IDRI-0001",
        "LungPETCTDx-A0001_s1",
        "LungPETCTDx-A0002_s1",
    ],
)
def test_real_hearts_are_at_the_viewers_right(real_data: Path, name: str) -> None:
    assert right_of_midline(real_film(real_data / f"ct/{name}.nii.gz"), (0.4, 0.7)) > 0.01


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["ACRIN-FLT-Breast-001", "CPTAC-PDA-C3L-00189"])
def test_real_livers_are_at_the_viewers_left(real_data: Path, name: str) -> None:
    film = real_film(real_data / f"ct/abdomen_{name}.nii.gz")
    assert right_of_midline(film, (0.2, 0.5)) < -0.02


@pytest.mark.real_data
def test_a_segmented_liver_is_at_the_left_and_the_spleen_at_the_right(real_data: Path) -> None:
    image = nib.load(next((real_data / "seg").glob("LIDC-IDRI-0001_btcv13_label*")))
    labels = np.asarray(image.dataobj)
    film = {
        organ: drr(
            Volume(1000 * np.float32(labels == number) - 1000, image.affine.astype(np.float64)), AP
        )
        for organ, number in (("spleen", 1), ("liver", 6))
    }
    assert centroid(film["liver"])[1] < 47 / 2 < centroid(film["spleen"])[1]

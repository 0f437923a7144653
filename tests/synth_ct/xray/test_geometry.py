import numpy as np
import pytest

from synth_ct.kit.volume import centred_affine
from synth_ct.xray.geometry import Geometry, centre_of, covering, rays, rotation

ORIGIN = np.zeros(3)
FRONT, PATIENT_RIGHT = np.array([0.0, 1, 0]), np.array([1.0, 0, 0])


@pytest.mark.parametrize(
    ("geometry", "towards_source"),
    [
        (Geometry(beam="AP"), FRONT),
        (Geometry(beam="PA"), -FRONT),
        (Geometry("lateral"), PATIENT_RIGHT),
    ],
)
def test_the_source_stands_where_the_beam_says(
    geometry: Geometry, towards_source: np.ndarray
) -> None:
    beams = rays(geometry, ORIGIN)

    np.testing.assert_allclose(beams.source, 850 * towards_source)
    np.testing.assert_allclose(beams.targets().mean((0, 1)), -170 * towards_source, atol=1e-9)


@pytest.mark.parametrize("beam", ["AP", "PA"])
def test_a_frontal_film_is_seen_facing_the_patient(beam: str) -> None:
    targets = rays(Geometry(beam=beam), ORIGIN).targets()

    assert targets[0, 0, 0] > 0 > targets[0, -1, 0]  # patient right first
    assert targets[0, 0, 2] > 0 > targets[-1, 0, 2]  # superior first


def test_a_lateral_film_shows_the_patient_facing_the_viewers_left() -> None:
    targets = rays(Geometry("lateral"), ORIGIN).targets()

    assert targets[0, 0, 1] > 0 > targets[0, -1, 1]
    assert targets[0, 0, 2] > 0 > targets[-1, 0, 2]


def test_the_default_detector_is_filled_by_a_320_mm_field() -> None:
    geometry = Geometry()

    assert geometry.pixels[0] * geometry.pitch_mm / geometry.magnification == pytest.approx(320)
    assert covering(geometry, (128,) * 3, centred_affine((128,) * 3, (2.5,) * 3)) == geometry


def test_a_covering_detector_takes_the_shape_of_the_volume() -> None:
    shape, spacing = (40, 30, 20), (2.0, 2.0, 5.0)
    affine = centred_affine(shape, spacing)

    assert covering(Geometry(), shape, affine).pixels == (50, 40)
    assert covering(Geometry("lateral"), shape, affine).pixels == (50, 30)
    assert covering(Geometry(), shape, affine, most_pixels=25).pixels == (25, 20)


def test_turning_the_patient_turns_the_rig_the_other_way() -> None:
    beams = rays(Geometry(rotation_deg=(0.0, 0.0, 90.0), isocentre_mm=(5.0, 6.0, 7.0)), ORIGIN)

    # Seen from above, the patient turned left: the beam from the front now enters from the right.
    np.testing.assert_allclose(beams.source, [855, 6, 7])


def test_a_moved_patient_sees_the_source_moved_back() -> None:
    still, moved = (
        rays(Geometry(translation_mm=t), ORIGIN) for t in ((0.0, 0.0, 0.0), (1.0, 2.0, 3.0))
    )

    np.testing.assert_allclose(moved.source, still.source - [1, 2, 3])
    np.testing.assert_allclose(moved.targets(), still.targets() - [1, 2, 3])


def test_rotations_are_applied_about_x_then_y_then_z() -> None:
    np.testing.assert_allclose(rotation((90.0, 0.0, 90.0)) @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rotation((0.0, 90.0, 90.0)) @ [0, 0, 1], [0, 1, 0], atol=1e-12)


def test_rays_in_voxels_are_the_same_rays() -> None:
    affine = centred_affine((9, 8, 7), (1.0, 2.0, 3.0))
    affine[:3, :3] = rotation((10.0, 20.0, 30.0)) @ affine[:3, :3]
    world = rays(Geometry(pixels=(3, 4)), centre_of((9, 8, 7), affine))

    back = world.in_voxels(affine).targets() @ affine[:3, :3].T + affine[:3, 3]

    np.testing.assert_allclose(back, world.targets())


@pytest.mark.parametrize(
    "wrong",
    [
        {"source_to_isocentre_mm": 1100.0},
        {"source_to_isocentre_mm": 0.0},
        {"pitch_mm": 0.0},
        {"pixels": (0, 4)},
    ],
)
def test_an_impossible_exposure_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"isocentre|detector"):
        Geometry(**wrong)

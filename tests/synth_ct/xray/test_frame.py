"""Films of every kind arrive at the model alike: the same place, the same grey values."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from synth_ct.kit.quarantine import Refused
from synth_ct.kit.volume import Volume, to_ras
from synth_ct.xray.frame import PIXELS, WHOLE, Box, cut, find_thorax, frame, frame_all, template
from synth_ct.xray.geometry import Geometry
from synth_ct.xray.pose import check_pose, read_radiograph
from synth_ct.xray.project import drr


def chest(rows: int = 200, columns: int = 200, lines: float = 5.0) -> np.ndarray:
    """The thorax of the search itself as a film in units of line integrals, with a margin."""
    small = template()[0]
    picture = np.pad(small - small.min(), ((1, 3), (1, 1)), mode="edge")
    zoom = (rows / picture.shape[0], columns / picture.shape[1])
    film = ndimage.zoom(picture, zoom, order=1, mode="nearest", grid_mode=True)
    return (film / film.max() * lines).astype(np.float32)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    high = max(0.0, min(one.bottom, other.bottom) - max(one.top, other.top))
    wide = max(0.0, min(one.right, other.right) - max(one.left, other.left))
    both = high * wide
    areas = [(b.bottom - b.top) * (b.right - b.left) for b in (one, other)]
    return both / (sum(areas) - both)


def test_the_thorax_is_found_where_it_was_put() -> None:
    box, likeness = find_thorax(chest())
    rows, columns = 24, 22
    assert overlap(box, Box(1 / rows, 21 / rows, 1 / columns, 21 / columns)) > 0.9
    assert likeness > 0.97


def test_the_result_is_square_and_inside_minus_one_and_one() -> None:
    framed = frame(chest())
    assert framed.film_UV.shape == (PIXELS, PIXELS)
    assert framed.film_UV.dtype == np.float32
    assert np.abs(framed.film_UV).max() <= 1
    assert framed.notes == ()


def test_line_integrals_and_their_8_bit_png_are_framed_alike() -> None:
    lines = chest()
    picture = np.rint(lines / lines.max() * 255).astype(np.uint8).astype(np.float32)
    one, other = frame(lines), frame(picture)
    assert overlap(one.box, other.box) >= 0.9
    assert np.abs(one.film_UV - other.film_UV).mean() < 0.02


@pytest.mark.parametrize("scale", [0.01, 257.0])
def test_units_do_not_matter(scale: float) -> None:
    one, other = frame(chest()), frame(chest() * np.float32(scale) + 3)
    assert np.allclose(one.film_UV, other.film_UV, atol=1e-3)


def test_a_squashed_film_ends_at_the_same_place() -> None:
    plain, squashed = frame(chest(240, 320)), frame(chest(224, 224))
    assert overlap(plain.box, squashed.box) > 0.95
    assert np.corrcoef(plain.film_UV.ravel(), squashed.film_UV.ravel())[0, 1] > 0.99


def test_a_cropped_film_ends_at_the_same_place() -> None:
    film = chest(240, 240)
    whole, part = frame(film), frame(film[6:, 8:-8])
    assert np.corrcoef(whole.film_UV.ravel(), part.film_UV.ravel())[0, 1] > 0.97


def test_noise_has_no_lung_field_and_says_so() -> None:
    framed = frame(np.random.default_rng(0).random((200, 200)).astype(np.float32))
    assert framed.notes == ("no_lung_field",)
    assert framed.box == WHOLE


def test_shrinking_averages_and_keeps_the_mean() -> None:
    film = np.random.default_rng(0).random((512, 384)).astype(np.float32)
    small = cut(film, WHOLE, 32)
    assert abs(small.mean() - film.mean()) < 0.01
    assert small.std() < 0.05


def test_cutting_out_whole_pixels_copies_them() -> None:
    film = np.random.default_rng(0).random((40, 40)).astype(np.float32)
    assert np.allclose(cut(film, Box(0.25, 0.75, 0.5, 1.0), 20), film[10:30, 20:40], atol=1e-6)


def test_films_of_different_sizes_make_one_batch() -> None:
    assert frame_all([chest(), chest(150, 260)]).shape == (2, 1, PIXELS, PIXELS)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda film: film.max() - film, "E_IMG_INVERTED"),
        (np.rot90, "E_IMG_VIEW"),
        (lambda film: np.rot90(film, 3), "E_IMG_VIEW"),
        (lambda film: np.rot90(film, 2), "E_IMG_VIEW"),
    ],
)
def test_an_inverted_or_turned_film_is_refused(spoil: object, code: str) -> None:
    assert check_pose(chest()) == ()
    with pytest.raises(Refused, match=code):
        check_pose(np.ascontiguousarray(spoil(chest())))  # type: ignore[operator]


def test_a_film_unlike_a_chest_is_noted() -> None:
    film = np.random.default_rng(1).random((200, 200)).astype(np.float32)
    assert check_pose(film) == ("unlike_frontal_chest",)


def test_reading_a_file_checks_its_pose(tmp_path: Path) -> None:
    inverted = 255 - np.rint(chest() * 50).astype(np.uint8)
    Image.fromarray(inverted).save(tmp_path / "x.png")
    with pytest.raises(Refused, match="E_IMG_INVERTED"):
        read_radiograph(tmp_path / "x.png")


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["LIDC-IDRI-0001", "LungPETCTDx-A0001_s1", "LungPETCTDx-A0002_s1"])
def test_the_lungs_of_a_real_chest_fill_the_frame_as_said(real_data: Path, name: str) -> None:
    image = nib.load(real_data / "ct" / f"{name}.nii.gz")
    ct = to_ras(Volume(np.asarray(image.dataobj).astype(np.int16), image.affine.astype(float)))
    box = frame(drr(ct, Geometry())).box
    lungs = shadow_of_lungs(ct)
    inside = [
        (lungs.top - box.top) / (box.bottom - box.top),
        (lungs.bottom - box.top) / (box.bottom - box.top),
        (lungs.left - box.left) / (box.right - box.left),
        (lungs.right - box.left) / (box.right - box.left),
    ]
    assert np.allclose(inside, [0.06, 0.9, 0.15, 0.87], atol=0.06), inside


def shadow_of_lungs(ct: Volume) -> Box:
    """Where the lungs' shadow lies on the film: 50 mm of lung and more."""
    air = ndimage.binary_opening(ct.array_XYZ < -500, iterations=2)
    parts, _ = ndimage.label(air)
    sizes = np.bincount(parts.ravel())
    outside = np.unique(np.concatenate([parts[0].ravel(), parts[-1].ravel()]))
    outside = np.union1d(outside, np.unique(np.concatenate([parts[:, 0], parts[:, -1]])))
    sizes[outside] = 0
    lungs = np.isin(parts, np.flatnonzero(sizes > 0.1 * sizes.max()))
    hu = np.where(lungs, 0, -1000).astype(np.int16)
    shadow = drr(Volume(hu, ct.affine), Geometry()) > 1.0
    rows, columns = (np.flatnonzero(shadow.any(axis)) / n for axis, n in ((1, 128), (0, 128)))
    return Box(float(rows[0]), float(rows[-1]), float(columns[0]), float(columns[-1]))

"""Small pictures of volumes: marked, the right way round, the same bytes for the same voxels."""

import io

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from synth_ct.kit.volume import Volume, centred_affine
from synth_ct.preview import GAP, LEAST_SIDE, STRIP, Tile, contact_sheet, preview

SIZE = 32


def block(right: bool) -> Volume:
    """Air, and one bright block in the right or the left half of the patient, high up in front."""
    hu_XYZ = np.full((SIZE, SIZE, SIZE), -1000, np.float32)
    half = slice(18, 30) if right else slice(2, 14)
    hu_XYZ[half, 14:30, 14:30] = 500
    return Volume(hu_XYZ, centred_affine((SIZE,) * 3, (2.5,) * 3))


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture)


def plane(png: bytes, n: int) -> np.ndarray:
    """The n-th plane without its name."""
    start = n * (LEAST_SIDE + GAP)
    return pixels(png)[STRIP : STRIP + LEAST_SIDE, start : start + LEAST_SIDE]


def air(side: int) -> Volume:
    return Volume(np.full((side,) * 3, -1000, np.int16), centred_affine((side,) * 3, (2.5,) * 3))


@pytest.mark.parametrize(("side", "shown"), [(32, 128), (48, 144), (128, 128), (160, 160)])
def test_a_side_is_enlarged_by_a_whole_number_to_at_least_128_pixels(side: int, shown: int) -> None:
    expected = (STRIP + shown + STRIP, 3 * shown + 2 * GAP)
    assert pixels(preview(air(side), "x")).shape == expected


@pytest.mark.parametrize("n", [0, 1])
def test_the_patients_right_is_at_the_viewers_left(n: int) -> None:
    inner = np.s_[20:100, 16:112]  # without the marks
    right, left = (plane(preview(block(right), ""), n)[inner] for right in (True, False))
    assert right[:, :48].max() == left[:, 48:].max() == 255
    assert right[:, 48:].max() == left[:, :48].max() == 0


def test_the_order_of_the_voxels_on_disk_changes_nothing() -> None:
    volume = block(right=True)
    flip = nib.orientations.axcodes2ornt(("L", "S", "P"))
    image = nib.Nifti1Image(volume.array_XYZ, volume.affine).as_reoriented(flip)
    other = Volume(np.asarray(image.dataobj), image.affine)
    assert preview(other, "x") == preview(volume, "x")


def test_every_plane_is_named_and_marked_in_its_pixels() -> None:
    png = preview(air(SIZE), "x")
    for n, sides in enumerate(((True, True), (True, True), (True, True))):
        start = n * (LEAST_SIDE + GAP)
        name = pixels(png)[:STRIP, start : start + LEAST_SIDE]
        marks = plane(png, n)
        middle = marks[50:90]
        assert name.max() == 255
        assert (middle[:, :10].max() == 255, middle[:, -10:].max() == 255) == sides
        assert marks[:50].max() == 0, "and nothing is drawn over the rest"
    marked = [plane(png, n)[-STRIP:] for n in range(3)]
    assert (marked[0] == marked[1]).all()
    assert (marked[0] == marked[2]).all()
    assert (marked[0][:, :64] == 255).sum() > 100, "SYNTHETIC"
    assert (plane(png, 0) == plane(png, 1)).all(), "R and L"
    assert (plane(png, 0) != plane(png, 2)).any(), "A and P"


def test_it_can_be_read_over_bone() -> None:
    bone = Volume(np.full((SIZE,) * 3, 1500, np.int16), centred_affine((SIZE,) * 3, (2.5,) * 3))
    dark = pixels(preview(air(SIZE), "x"))
    bright = pixels(preview(bone, "x"))
    mark = np.s_[STRIP + LEAST_SIDE - STRIP : STRIP + LEAST_SIDE, :50]
    np.testing.assert_array_equal(dark[mark], bright[mark])


def test_equal_voxels_and_labels_give_equal_bytes() -> None:
    made = [preview(block(right), label) for right in (True, False) for label in ("a", "b")]
    assert len(set(made)) == 4
    assert preview(block(right=True), "a") == made[0]


def test_a_label_of_any_letters_can_be_drawn() -> None:
    assert preview(air(SIZE), "Ω ü 肺") != preview(air(SIZE), "")


def test_a_sheet_holds_every_picture_over_its_caption() -> None:
    shown = [preview(block(right), name) for name, right in (("a", True), ("b", False))]
    tiles = [Tile(shown[n % 2], f"caption {n}") for n in range(5)]
    sheet = pixels(contact_sheet(tiles))
    height, width = pixels(shown[0]).shape
    cell = (height + STRIP + GAP, width + GAP)
    columns = sheet.shape[1] // cell[1]
    assert sheet.shape == (-(-5 // columns) * cell[0], columns * cell[1])
    captions = set()
    for n in range(5):
        y, x = n // columns * cell[0], n % columns * cell[1]
        found = sheet[y : y + height, x : x + width]
        np.testing.assert_array_equal(found, pixels(shown[n % 2]))
        captions.add(sheet[y + height : y + height + STRIP, x : x + width].tobytes())
    assert len(captions) == 5


def test_a_long_caption_stays_below_its_own_picture() -> None:
    shown = preview(air(SIZE), "x")
    short, long = (
        pixels(contact_sheet([Tile(shown, words), Tile(shown, "b"), *[Tile(shown, "c")] * 6]))
        for words in ("a", "a" * 200)
    )
    cell = pixels(shown).shape[1] + GAP
    assert short.shape[1] > cell, "or there is nothing beside it"
    np.testing.assert_array_equal(short[:, cell:], long[:, cell:])


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        contact_sheet([])

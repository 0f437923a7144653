"""Labels that do not fit their image, or are no labels, are refused with both files named."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from synth_ct.cohort.case import Found
from synth_ct.cohort.organs import BTCV
from synth_ct.kit.quarantine import Refused
from synth_ct.kit.volume import load, load_labels
from synth_ct.sources.labels import read_labelled, read_labels, refuse_flipped
from synth_ct.sources.volume_files import read_ct

SHAPE = (24, 20, 16)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
CLASSES = {1: "spleen", 2: "liver", 3: "aorta"}


def image() -> np.ndarray:
    """A body in air."""
    hu = np.random.default_rng(0).integers(-1010, -990, SHAPE)
    hu[4:20, 3:17, :] = 40
    return hu.astype(np.int16)


def organs() -> np.ndarray:
    """Spleen at the patient's left (low X), liver right."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:8, 6:12, 4:9] = 1
    labels[13:19, 6:14, 4:12] = 2
    labels[11:13, 8:10, :] = 3
    return labels


def put(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.Nifti1Image(array, affine).to_filename(path)
    return path


def case(folder: Path, labels: np.ndarray, affine: np.ndarray = AFFINE) -> Found:
    files = (put(folder / "scan.nii.gz", image()),)
    labels_file = put(folder / "mask.nii.gz", labels, affine)
    return Found(name="scan.nii.gz", files=files, labels=(labels_file,), patient="scan")


def changed(value: float, dtype: type = np.uint8) -> np.ndarray:
    labels = organs().astype(dtype)
    labels[0, 0, :3] = value
    return labels


def shifted(mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] += mm
    return affine


REFUSED: dict[str, tuple[str, str, Callable[[Path], Found]]] = {
    "69 unknown id": ("E_LBL_UNKNOWN", r"7 \(3 voxels\)", lambda d: case(d, changed(7))),
    "70 between two ids": (
        "E_LBL_NONINT",
        r"2.4 \(3 voxels\)",
        lambda d: case(d, changed(2.4, np.float32)),
    ),
    "71 negative id": ("E_LBL_UNKNOWN", "-1", lambda d: case(d, changed(-1, np.int16))),
    "71 id beyond a byte": ("E_LBL_UNKNOWN", "257", lambda d: case(d, changed(257, np.int16))),
    "73 other shape": ("E_PAIR_SHAPE", r"\(24, 20, 15\)", lambda d: case(d, organs()[..., :-1])),
    "74 elsewhere": ("E_PAIR_AFFINE", "50 mm", lambda d: case(d, organs(), shifted(50))),
    "74 mirrored header": (
        "E_PAIR_AFFINE",
        "mm apart",
        lambda d: case(d, organs(), AFFINE @ np.diag([-1, 1, 1, 1])),
    ),
    "NaN label": ("E_NII_NONFINITE", "3 voxels", lambda d: case(d, changed(np.nan, np.float32))),
    "62 sides swapped": ("E_ANAT_FLIP", "spleen", lambda d: case(d, organs()[::-1])),
    "62 sides swapped, no spleen": (
        "E_ANAT_FLIP",
        "liver",
        lambda d: case(d, np.where(organs() == 2, 2, 0).astype(np.uint8)[::-1]),
    ),
}


@pytest.mark.parametrize("row", REFUSED)
def test_labels_that_cannot_be_trusted_are_refused_naming_both_files(
    row: str, tmp_path: Path
) -> None:
    code, what, make = REFUSED[row]
    with pytest.raises(Refused, match=what) as caught:
        read_labelled(make(tmp_path), tmp_path / "out", CLASSES)
    assert caught.value.code == code
    assert "mask.nii.gz" in caught.value.cause
    assert "scan.nii.gz" in caught.value.cause
    assert not (tmp_path / "out").exists()


def test_a_case_is_written_with_its_labels_on_one_canonical_grid(tmp_path: Path) -> None:
    turned = np.diag([-2.0, -2.0, 3.0, 1.0])
    put(tmp_path / "scan.nii.gz", image()[::-1, ::-1], turned)
    put(tmp_path / "mask.nii.gz", organs()[::-1, ::-1], turned)
    found = Found(
        name="s",
        files=(tmp_path / "scan.nii.gz",),
        labels=(tmp_path / "mask.nii.gz",),
        patient="s",
    )
    made = read_labelled(found, tmp_path, CLASSES)
    volume = load(tmp_path / made.file, made.file_sha256)
    labels = load_labels(tmp_path / made.label_file, made.label_sha256)
    np.testing.assert_array_equal(volume.array_XYZ, image())
    np.testing.assert_array_equal(labels.array_XYZ, organs())
    np.testing.assert_array_equal(volume.affine, labels.affine)
    assert made.file == f"volumes/{made.id[:2]}/{made.id}.nii.gz"
    assert (made.shape, made.spacing_mm) == (SHAPE, (2.0, 2.0, 3.0))


def test_label_and_image_may_be_stored_in_different_orders(tmp_path: Path) -> None:
    put(tmp_path / "scan.nii.gz", image())
    affine = AFFINE @ np.diag([-1.0, 1, 1, 1])
    affine[0, 3] += 2.0 * (SHAPE[0] - 1)
    put(tmp_path / "mask.nii.gz", organs()[::-1], affine)
    volume = read_ct(tmp_path / "scan.nii.gz").volume
    labels, _ = read_labels(tmp_path / "mask.nii.gz", volume, CLASSES)
    np.testing.assert_array_equal(labels.array_XYZ, organs())


def test_a_tenth_of_a_voxel_is_rounding_and_a_fifth_is_not(tmp_path: Path) -> None:
    read_labelled(case(tmp_path, organs(), shifted(0.15)), tmp_path, CLASSES)
    with pytest.raises(Refused, match="E_PAIR_AFFINE"):
        read_labelled(case(tmp_path, organs(), shifted(0.4)), tmp_path, CLASSES)


def test_labels_lie_where_their_image_lies_to_the_last_digit(tmp_path: Path) -> None:
    made = read_labelled(case(tmp_path, organs(), shifted(0.15)), tmp_path, CLASSES)
    volume, labels = (nib.load(tmp_path / file) for file in (made.file, made.label_file))
    np.testing.assert_array_equal(volume.affine, labels.affine)


def test_a_case_without_a_single_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="E_LBL_EMPTY"):
        read_labelled(case(tmp_path, np.zeros(SHAPE, np.uint8)), tmp_path, CLASSES)


def test_ids_survive_a_scaled_float_container(tmp_path: Path) -> None:
    volume = read_ct(put(tmp_path / "scan.nii.gz", image())).volume
    stored = nib.Nifti1Image(organs() * np.uint8(20), AFFINE)
    stored.header.set_slope_inter(1 / 20, 0)
    data = bytearray(stored.to_bytes())
    fields = np.frombuffer(data, stored.header.template_dtype, 1)
    fields["scl_slope"] = 1 / 20
    (tmp_path / "mask.nii").write_bytes(data)
    labels, _ = read_labels(tmp_path / "mask.nii", volume, CLASSES)
    np.testing.assert_array_equal(labels.array_XYZ, organs())


def test_only_organs_with_a_side_are_asked_for_theirs(tmp_path: Path) -> None:
    flipped = organs()[::-1]
    named = {1: "kidney", 2: "stomach", 3: "aorta"}
    made = read_labelled(case(tmp_path, flipped), tmp_path, named)
    assert made.label_file


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("scan", "label"),
    [("ct/LIDC-IDRI-0001", "LIDC-IDRI-0001"),
     ("seg/TotalSegmentator_example_ct", "TotalSegmentator_example")],
)  # fmt: skip
def test_real_labels_fit_their_scans_and_a_mirrored_one_does_not(
    scan: str, label: str, real_data: Path
) -> None:
    volume = read_ct(real_data / f"{scan}.nii.gz").volume
    labels, notes = read_labels(real_data / f"seg/{label}_btcv13_label.nii.gz", volume, BTCV)
    refuse_flipped(volume, labels, BTCV)
    assert notes == ()
    mirrored = type(labels)(np.ascontiguousarray(labels.array_XYZ[::-1]), labels.affine)
    with pytest.raises(Refused, match="E_ANAT_FLIP"):
        refuse_flipped(volume, mirrored, BTCV)

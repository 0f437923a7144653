"""DICOM series: pydicom and ITK find the voxels of the NIfTI where the NIfTI has them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from corpora import ABOUT, PREVIEW

from synth_ct.corpus import Corpus, Row
from synth_ct.corpus.export import export
from synth_ct.corpus.export.dicom import slices_of, uid
from synth_ct.corpus.finish import finish
from synth_ct.corpus.layout import make_folders, preview_file, volume_file
from synth_ct.corpus.receipts import Receipts, fold
from synth_ct.corpus.row import voxel_sha256
from synth_ct.kit.artifact import Record, publish
from synth_ct.kit.durable import write_bytes
from synth_ct.kit.volume import Volume, save, spacing_mm

ITEM = "0123456789abcdef"
SHAPE = (7, 9, 12)


def turned(degrees: float) -> np.ndarray:
    """Oblique, anisotropic, off centre."""
    angle = np.deg2rad(degrees)
    turn = np.eye(3)
    turn[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.7, 1.5, 2.5]
    affine[:3, 3] = [-31.25, 12.5, -400.1]
    return affine


@pytest.fixture(params=[0.0, 17.0])
def slanted(tmp_path: Path, rng: np.random.Generator, request: pytest.FixtureRequest) -> Path:
    """A corpus of one volume with no symmetry at all."""
    array = rng.integers(-1024, 3071, SHAPE, dtype=np.int16)
    volume = Volume(array, turned(request.param))
    with publish(tmp_path / "corpus", Record(kind="corpus", recipe={})) as workspace:
        make_folders(workspace)
        row = Row(
            id=ITEM, radiograph_sha256="r", patient="p7", finding="NORMAL", sample=0, seed=0,
            model="m" * 16, sampler="s", fingerprint="f" * 16, accepted=True, reason="",
            file_sha256=save(volume, workspace / volume_file(ITEM)),
            voxel_sha256=voxel_sha256(array),
            preview_sha256=write_bytes(workspace / preview_file(ITEM), PREVIEW),
            shape=SHAPE, spacing_mm=spacing_mm(volume.affine),
        )  # fmt: skip
        Receipts(workspace).append([row])
        finish(workspace, fold(workspace), ABOUT)
    return tmp_path / "corpus"


def series(out: Path) -> list[str]:
    (folder,) = out.glob(f"*/{ITEM}")
    return list(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))


def test_itk_finds_every_voxel_where_the_nifti_has_it(slanted: Path, tmp_path: Path) -> None:
    export(slanted, tmp_path / "out", "dicom")
    files = series(tmp_path / "out")
    assert len(files) == SHAPE[2]
    read = SimpleITK.ReadImage(files)
    ours = SimpleITK.ReadImage(str(slanted / volume_file(ITEM)))
    for index in np.ndindex(*SHAPE):
        place = ours.TransformIndexToPhysicalPoint(index)
        there = read.TransformPhysicalPointToContinuousIndex(place)
        nearest = tuple(round(n) for n in there)
        np.testing.assert_allclose(there, nearest, atol=1e-3)
        assert read[nearest] == ours[index]
    right_hand = np.reshape(read.GetDirection(), (3, 3))
    assert np.linalg.det(right_hand) == pytest.approx(1)
    assert (np.diag(right_hand) > 0.9).all()  # left, posterior, superior: upright on a screen


def test_pydicom_reads_hounsfield_units_and_that_they_are_synthetic(
    slanted: Path, tmp_path: Path
) -> None:
    export(slanted, tmp_path / "out", "dicom")
    volume = slices_of(Corpus.open(slanted).volume(Corpus.open(slanted).accepted()[0]))
    for number, file in enumerate(series(tmp_path / "out")):
        image = pydicom.dcmread(file)
        hu = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        np.testing.assert_array_equal(hu, volume.hu_XYZ[:, :, number].T)
        assert image.SyntheticData == "YES"
        assert list(image.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert image.BurnedInAnnotation == "NO"
        for word in ("SeriesDescription", "ImageComments", "PatientName", "PatientID"):
            assert str(image[word].value).startswith("SYNTHETIC")
        dates = [element for element in image if element.VR in ("DA", "DT", "TM")]
        assert not any(element.value for element in dates)
        assert image.InstanceNumber == number + 1
        assert [float(s) for s in image.PixelSpacing] == pytest.approx([1.5, 0.7])
        assert float(image.SliceThickness) == pytest.approx(2.5)


def test_the_same_corpus_gives_the_same_bytes_and_every_uid_once(
    slanted: Path, tmp_path: Path
) -> None:
    written = []
    for name in ("one", "two"):
        export(slanted, tmp_path / name, "dicom")
        written.append([Path(file).read_bytes() for file in series(tmp_path / name)])
    assert written[0] == written[1]
    images = [pydicom.dcmread(file) for file in series(tmp_path / "one")]
    assert len({image.SOPInstanceUID for image in images}) == SHAPE[2]
    for of_all in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({image[of_all].value for image in images}) == 1
    assert uid("series", ITEM, "other voxels") != images[0].SeriesInstanceUID
    assert all(uid("a", n).is_valid and uid("a", n).startswith("2.25.") for n in range(50))


def test_a_sheared_grid_is_refused() -> None:
    volume = Volume(np.zeros((3, 4, 5), np.int16), np.eye(4))
    sheared = np.eye(4)
    sheared[0, 1] = 0.01
    slices_of(replace(volume, affine=np.diag([-1.0, 1.0, 1.0, 1.0])))
    with pytest.raises(ValueError, match="perpendicular"):
        slices_of(replace(volume, affine=sheared))

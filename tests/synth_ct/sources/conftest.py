"""A CT series as a scanner would export it, small, to be spoilt in one way at a time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SLICES = 12
AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def body(noise: int) -> np.ndarray:
    """Integer HU: air, a fatty rim, muscle, two unequal lungs, noise; nothing symmetric."""
    z, y, x = np.meshgrid(np.arange(SLICES), np.arange(32), np.arange(32), indexing="ij")
    radius = ((x - 15) / 14) ** 2 + ((y - 16) / 11) ** 2
    hu = np.where(radius < 1, np.where(radius < 0.75, 45, -95), -1000)
    hu[(x - 9) ** 2 + (y - 15) ** 2 < 20 + z] = -860
    hu[(x - 22) ** 2 + (y - 17) ** 2 < 9 + z] = -820
    hu[(x - 15) ** 2 + (y - 23) ** 2 < 6] = 420
    return (hu + np.random.default_rng(noise).integers(-15, 16, hu.shape)).astype(np.int16)


def one_slice(k: int, series: str, spacing: float) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{series}.{k + 1}"
    image.SeriesInstanceUID, image.Modality, image.PatientID = series, "CT", "LIDC-IDRI-0001"
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.InstanceNumber = k + 1
    image.ImagePositionPatient = [-20.5, -30.25, 100 + spacing * k]
    image.ImageOrientationPatient, image.PixelSpacing = AXIAL, [1.25, 1.5]
    image.Rows = image.Columns = 32
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation, image.SamplesPerPixel = 15, 1, 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.RescaleSlope, image.RescaleIntercept = 1, -1024
    set_hu(image, body(crc32(series.encode()))[k])
    return image


def set_hu(image: Dataset, hu_YX: np.ndarray) -> None:
    stored = (hu_YX.astype(np.int32) + 1024).astype(np.int16)
    image.PixelData = stored.tobytes()
    image["PixelData"].VR = "OW"


MakeSeries = Callable[..., list[Dataset]]
WriteSeries = Callable[..., list[Path]]


@pytest.fixture
def make_series() -> MakeSeries:
    def make(series: str = "1.2.3", spacing: float = 2.5) -> list[Dataset]:
        return [one_slice(k, series, spacing) for k in range(SLICES)]

    return make


@pytest.fixture
def write_series() -> WriteSeries:
    def write(slices: Sequence[Dataset], folder: Path, prefix: str = "") -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{prefix}{k:03d}.dcm" for k in range(len(slices))]
        for image, path in zip(slices, paths, strict=True):
            image.save_as(path, enforce_file_format=True)
        return paths

    return write

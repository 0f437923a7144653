"""One CT series for each volume, which says in every slice that it is synthetic.

Same corpus, same bytes: no date, no random UID, no version of a library. DICOM's patient axes are
LPS where NIfTI's are RAS; slices are stored with the patient's right at the left of the picture.
"""

import io
import uuid
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from synth_ct.corpus.export.content import accepted, reference, statement
from synth_ct.corpus.reader import Corpus
from synth_ct.corpus.row import Row
from synth_ct.kit.axes import LPS_TO_RAS, Affine, HuArray
from synth_ct.kit.volume import Volume

OPENING = (
    "DICOM: a folder with one CT series for each volume, `<first two digits>/<id>/`. Every slice "
    "says that it is synthetic; no date is given, and all UIDs follow from the ids."
)
OURS = uuid.UUID("5b0c64a0-6d5e-5c0f-9d0e-2f2b7f9f3a41")
"""The name space of all UIDs made here."""
SHEAR = 1e-4
"""Largest cosine between two axes that count as perpendicular; more cannot be said in DICOM."""


class Slices(NamedTuple):
    """A volume as DICOM wants it: each axis nearest to left, posterior, superior."""

    hu_XYZ: HuArray
    affine: Affine
    """Voxel index -> LPS millimetres."""

    @property
    def spacing_mm(self) -> list[float]:
        """Length of each voxel edge."""
        return [float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0)]

    @property
    def direction(self) -> NDArray[np.float64]:
        """Unit vectors of the axes, as columns."""
        vectors: NDArray[np.float64] = self.affine[:3, :3] / self.spacing_mm
        return vectors


def write(corpus: Corpus, workspace: Path, name: str) -> None:
    """`<first two digits>/<id>/<slice>.dcm`, from the lowest slice up."""
    for row in accepted(corpus):
        folder = workspace / row.id[:2] / row.id
        folder.mkdir(parents=True, exist_ok=True)
        slices = slices_of(corpus.volume(row))
        header = _header(corpus, row, slices)
        for number in range(slices.hu_XYZ.shape[2]):
            (folder / f"{number + 1:04d}.dcm").write_bytes(_slice(header, row, slices, number))


def slices_of(volume: Volume) -> Slices:
    """Turn the axes, without interpolation; a sheared grid is refused."""
    lps = LPS_TO_RAS @ volume.affine  # its own inverse
    turns = nib.orientations.io_orientation(lps)
    array = nib.orientations.apply_orientation(volume.array_XYZ, turns)
    back = nib.orientations.inv_ornt_aff(turns, volume.array_XYZ.shape)
    slices = Slices(np.ascontiguousarray(array), lps @ back)
    cosines = slices.direction.T @ slices.direction - np.eye(3)
    if np.abs(cosines).max() > SHEAR or np.linalg.det(slices.direction) < 0:
        raise ValueError(
            "a volume's axes are not perpendicular, and DICOM cannot say so; resample it to a "
            "straight grid before its corpus is exported"
        )
    return slices


def uid(*parts: object) -> UID:
    """2.25.<UUID as a number>, the same whenever and wherever it is made."""
    return UID(f"2.25.{uuid.uuid5(OURS, '/'.join(map(str, parts))).int}")


def _numbers(values: list[float]) -> list[str]:
    """As decimal strings of at most 16 characters; -0 is 0."""
    return [format_number_as_ds(float(value) + 0.0) for value in values]


def _header(corpus: Corpus, row: Row, slices: Slices) -> FileDataset:
    """What all slices of a volume have in common."""
    header = FileDataset("", {}, file_meta=_file_meta(), preamble=b"\0" * 128)
    _say_synthetic(header, corpus, row)
    _name(header, row)
    _describe_grid(header, slices)
    return header


def _file_meta() -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid("implementation")
    meta.ImplementationVersionName = "SYNTH_CT"
    return meta


def _say_synthetic(header: FileDataset, corpus: Corpus, row: Row) -> None:
    header.SpecificCharacterSet = "ISO_IR 192"
    header.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    header.SyntheticData = "YES"
    header.Manufacturer = "synth-ct"
    header.SoftwareVersions = corpus.about.model.split(",")
    header.SeriesDescription = "SYNTHETIC CT, not for diagnosis"
    header.StudyDescription = "SYNTHETIC"
    header.ImageComments = f"{statement(corpus)} Volume {row.id}, scale {row.scale}."
    header.DerivationDescription = f"SYNTHETIC, {reference(corpus)}"[:1024]
    header.PatientIdentityRemoved = "YES"
    header.DeidentificationMethod = "SYNTHETIC: no measured patient; ids are pseudonyms"
    header.BurnedInAnnotation = "NO"
    header.LossyImageCompression = "00"


def _name(header: FileDataset, row: Row) -> None:
    """Empty is what DICOM asks for where a value must stand and is not known."""
    content = (row.id, row.voxel_sha256)
    header.SOPClassUID = CTImageStorage
    header.Modality = "CT"
    header.PatientName = f"SYNTHETIC^{row.patient}"
    header.PatientID = f"SYNTHETIC-{row.patient}"
    header.StudyInstanceUID = uid("study", *content)
    header.SeriesInstanceUID = uid("series", *content)
    header.FrameOfReferenceUID = uid("frame", *content)
    header.SeriesNumber = 1
    header.PatientPosition = "HFS"
    for unknown in (
        "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
        "ReferringPhysicianName", "PositionReferenceIndicator", "KVP", "AcquisitionNumber",
    ):  # fmt: skip
        setattr(header, unknown, None)


def _describe_grid(header: FileDataset, slices: Slices) -> None:
    across, down, up = slices.spacing_mm
    columns, rows, _ = slices.hu_XYZ.shape
    header.Rows, header.Columns = rows, columns
    header.PixelSpacing = _numbers([down, across])  # between rows, then between columns
    header.SliceThickness, header.SpacingBetweenSlices = _numbers([up, up])
    header.ImageOrientationPatient = _numbers([*slices.direction[:, 0], *slices.direction[:, 1]])
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation = 1  # signed: stored values are HU
    header.RescaleSlope, header.RescaleIntercept, header.RescaleType = "1", "0", "HU"
    header.WindowCenter, header.WindowWidth = "40", "400"


def _slice(header: FileDataset, row: Row, slices: Slices, number: int) -> bytes:
    instance = uid("instance", row.id, row.voxel_sha256, number)
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = instance
    header.InstanceNumber = number + 1
    corner = slices.affine @ [0, 0, number, 1]
    header.ImagePositionPatient = _numbers(list(corner[:3]))
    pixels_VU = slices.hu_XYZ[:, :, number].T
    header.PixelData = pixels_VU.astype("<i2").tobytes()
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()

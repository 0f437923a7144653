"""Exports read back by the software they are made for, voxel by voxel."""

import json
from pathlib import Path

import corpora
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImage

from synth_ct.corpus import Corpus
from synth_ct.corpus.export import export
from synth_ct.corpus.split import split_of
from synth_ct.kit.axes import Affine, HuArray


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus for all tests here, to be read alone."""
    folder = tmp_path_factory.mktemp("read") / "corpus"
    corpora.make_corpus(folder, range(30))
    return folder


def volumes_of(corpus: Path) -> dict[str, tuple[HuArray, Affine]]:
    opened = Corpus.open(corpus)
    volumes = {row.id: opened.volume(row) for row in opened.accepted()}
    return {item: (volume.array_XYZ, volume.affine) for item, volume in volumes.items()}


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")  # MONAI sets up every reader
def test_monai_reads_the_decathlon_layout(intact: Path, tmp_path: Path) -> None:
    export(intact, tmp_path / "out", "msd")
    listed = load_decathlon_datalist(
        tmp_path / "out" / "dataset.json", is_segmentation=False, data_list_key="test"
    )
    expected = volumes_of(intact)
    read = {
        Path(each["image"]).name.split(".")[0]: LoadImage(reader="NibabelReader")(each["image"])
        for each in listed
    }
    assert set(read) == set(expected)
    for item, (array_XYZ, affine) in expected.items():
        np.testing.assert_array_equal(read[item].numpy(), array_XYZ)
        np.testing.assert_allclose(read[item].affine.numpy(), affine)


def test_nnunet_reads_its_raw_data_set(intact: Path, tmp_path: Path) -> None:
    reason = "nnunetv2 is not here: `make setup` installs it"
    utilities = pytest.importorskip("nnunetv2.utilities.utils", reason=reason)
    registry = pytest.importorskip("nnunetv2.imageio.reader_writer_registry", reason=reason)
    export(intact, tmp_path / "raw", "nnunet")
    (folder,) = (tmp_path / "raw").glob("Dataset*")
    about = json.loads((folder / "dataset.json").read_text())
    reader = registry.determine_reader_writer_from_dataset_json(about, verbose=False)()
    cases = utilities.create_lists_from_splitted_dataset_folder(
        str(folder / "imagesTs"), about["file_ending"], num_processes=1
    )
    expected = volumes_of(intact)
    assert len(cases) == len(expected)
    for files in cases:
        images_CZYX, properties = reader.read_images(files)
        array_XYZ, affine = expected[Path(files[0]).name.removesuffix("_0000.nii.gz")]
        np.testing.assert_array_equal(images_CZYX[0].T, array_XYZ)
        np.testing.assert_allclose(properties["spacing"], np.abs(np.diag(affine)[2::-1]))
        assert len(images_CZYX) == len(about["channel_names"]) == 1


@pytest.fixture
def datasets_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


@pytest.mark.usefixtures("datasets_offline")
def test_datasets_reads_volumes_previews_and_parts_of_the_patients(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not here: see extra `dev`")
    corpora.make_corpus(tmp_path / "corpus", range(60), patients=30)
    export(tmp_path / "corpus", tmp_path / "out", "hf")
    parts = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    expected = volumes_of(tmp_path / "corpus")
    assert set(parts) == {"train", "validation", "test"}
    rows = [(part, row) for part, those in parts.items() for row in those]
    assert {row["id"] for _, row in rows} == set(expected)
    for part, row in rows:
        array_XYZ, affine = expected[row["id"]]
        np.testing.assert_array_equal(np.asarray(row["nifti"].dataobj), array_XYZ)
        np.testing.assert_allclose(row["nifti"].affine, affine)
        assert row["preview"].size == (16, 16)
        assert row["synthetic"] is True
        assert part.startswith(split_of(row["patient"]))
        assert row["quality_lung_hu"] < 0
        assert row["quality_fat_hu"] is None


def test_nnssl_reads_its_collection(
    intact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_dataset = pytest.importorskip(
        "nnssl.data.raw_dataset", reason="nnssl is not in the package index and needs Python 3.12"
    )
    export(intact, tmp_path / "Dataset900_Ours", "nnssl")
    monkeypatch.setenv("nnssl_raw", str(tmp_path))
    data = json.loads((tmp_path / "Dataset900_Ours" / "pretrain_data.json").read_text())
    images = raw_dataset.Collection.from_dict(data).to_independent_images()
    assert {image.session_id for image in images} == set(volumes_of(intact))
    assert all(Path(image.image_path).is_file() for image in images)


def test_the_collection_for_nnssl_leads_to_every_volume_by_patient(
    intact: Path, tmp_path: Path
) -> None:
    export(intact, tmp_path / "raw", "nnssl")
    (file,) = (tmp_path / "raw").glob("*/pretrain_data.json")
    (dataset,) = json.loads(file.read_text())["datasets"].values()
    found = {
        (patient, session, Path(image["image_path"].replace("$nnssl_raw", str(tmp_path / "raw"))))
        for patient, subject in dataset["subjects"].items()
        for session, those in subject["sessions"].items()
        for image in those["images"]
    }
    rows = Corpus.open(intact).accepted()
    assert {(patient, item) for patient, item, _ in found} == {(r.patient, r.id) for r in rows}
    assert all(path.name == f"{item}.nii.gz" and path.is_file() for _, item, path in found)

"""Somebody else's volumes become a corpus like any other: whole, accounted for, nobody named."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from synth_ct.adopt import adopt
from synth_ct.corpus import Corpus
from synth_ct.corpus.merge import merge
from synth_ct.corpus.verify import verify
from synth_ct.kit.durable import sha256_of_file
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import read_report

NAME = "MAISI"


def put(
    path: Path, seed: int, shape: tuple[int, int, int] = (20, 16, 12), air: int = -1000
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    hu = np.random.default_rng(seed).integers(air - 10, air + 10, shape).astype(np.int16)
    hu[4:12, 3:10] = 40
    image = nib.Nifti1Image(hu, np.diag([-2.0, -2.0, 2.5, 1.0]))
    image.header["descrip"] = b"DOE^JANE"
    image.to_filename(path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three volumes of two shapes, one of them twice, one that is no CT, one that is nothing."""
    folder = tmp_path / "in"
    first = put(folder / "doe_jane_0.nii.gz", 0)
    put(folder / "doe_jane_1.nii.gz", 1)
    put(folder / "b" / "2.nii", 2, (10, 12, 14))
    (folder / "doe_jane_copy.nii.gz").write_bytes(first.read_bytes())
    put(folder / "scaled.nii.gz", 3, air=0)
    (folder / "empty.nii.gz").touch()
    return folder


def test_what_can_be_trusted_is_adopted_and_the_rest_has_a_code(
    source: Path, tmp_path: Path
) -> None:
    adopt(source, tmp_path / "out", NAME, "CC BY 4.0", Effort())
    corpus = Corpus.open(tmp_path / "out")
    assert verify(corpus.folder).ok
    counts, about = corpus.about.counts, corpus.about
    assert (counts.total, counts.committed, counts.quarantined, counts.duplicates) == (6, 3, 3, 1)
    assert set(about.codes) == {"duplicate", "E_HU_RANGE", "E_NII_NOTNIFTI"}
    assert (about.kind, about.model, about.scale, about.shape) == (
        "adopted", NAME, "as given", (),
    )  # fmt: skip
    assert about.sources[0].licence == "CC BY 4.0"
    rows = {row.id: row for row in corpus.rows()}
    row = rows[sha256_of_file(source / "doe_jane_1.nii.gz")[:16]]
    assert (row.patient, row.model, row.scale) == (f"p{row.id}", NAME, "as given")
    volume = corpus.volume(row)
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    theirs = np.asarray(nib.load(source / "doe_jane_1.nii.gz").dataobj)
    np.testing.assert_array_equal(volume.array_XYZ, theirs[::-1, ::-1])


def test_nothing_that_leaves_the_machine_names_anybody(source: Path, tmp_path: Path) -> None:
    adopt(source, tmp_path / "out", NAME, "unknown", Effort())
    local = {"sources.csv", "quarantine.json"}
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and path.name not in local:
            data = nib.load(path).header.binaryblock if path.suffix == ".gz" else path.read_bytes()
            assert b"jane" not in data.lower(), path
    assert {row.file for row in read_report(tmp_path / "out")} >= {"doe_jane_copy.nii.gz"}


def test_volumes_in_a_folder_a_patient_share_their_patient(tmp_path: Path) -> None:
    for n in range(4):
        put(tmp_path / "in" / f"p{n // 2}" / f"{n % 2}.nii.gz", n)
    put(tmp_path / "in" / "p3" / "0.nii.gz", 9)
    adopt(tmp_path / "in", tmp_path / "out", NAME, "unknown", Effort())
    rows = list(Corpus.open(tmp_path / "out").rows())
    assert sorted([r.patient for r in rows].count(p) for p in {r.patient for r in rows}) == [
        1,
        2,
        2,
    ]


def test_any_number_of_workers_gives_the_same_corpus_and_it_can_be_merged(
    source: Path, tmp_path: Path
) -> None:
    digests = {
        adopt(source, tmp_path / str(n), NAME, "unknown", Effort(workers=n)).digest for n in (0, 2)
    }
    assert len(digests) == 1
    put(tmp_path / "other" / "0.nii.gz", 0)
    put(tmp_path / "other" / "1.nii.gz", 7, (10, 12, 14))
    adopt(tmp_path / "other", tmp_path / "o", "GenerateCT", "unknown", Effort())
    about = merge([tmp_path / "0", tmp_path / "o"], tmp_path / "both")
    assert about.counts.committed == 4
    assert set(about.model.split(", ")) == {NAME, "GenerateCT"}


def test_a_folder_without_volumes_and_a_place_inside_the_source_are_refused(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no volume is in"):
        adopt(tmp_path / "none", tmp_path / "out", NAME, "unknown", Effort())
    with pytest.raises(ValueError, match="lies inside"):
        adopt(source, source / "out", NAME, "unknown", Effort())

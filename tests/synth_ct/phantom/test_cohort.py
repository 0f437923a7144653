from pathlib import Path

import numpy as np
import pytest

from synth_ct.kit.seeds import seed_for
from synth_ct.kit.volume import load, load_labels
from synth_ct.phantom import make_phantom
from synth_ct.phantom.cohort import write_case


def test_a_case_reads_back_as_the_phantom_it_names(tmp_path: Path) -> None:
    case = write_case("abdomen", "B", 32, 7, 3, tmp_path)
    made = make_phantom("abdomen", seed_for(7, "phantom/abdomen/B", 3), 32, "B")
    volume = load(tmp_path / case.file, case.file_sha256)
    labels = load_labels(tmp_path / case.label_file, case.label_sha256)
    assert np.array_equal(volume.array_XYZ, made.ct.array_XYZ)
    assert np.array_equal(labels.array_XYZ, made.labels.array_XYZ)
    assert np.allclose(volume.affine, made.ct.affine)
    assert case.shape == (32, 32, 32)
    assert case.spacing_mm == pytest.approx((10.0, 10.0, 10.0))
    assert case.file == f"volumes/{case.id[:2]}/{case.id}.nii.gz"


def test_the_same_number_is_the_same_case_and_another_is_not(tmp_path: Path) -> None:
    first = write_case("chest", "A", 32, 0, 0, tmp_path / "a")
    assert write_case("chest", "A", 32, 0, 0, tmp_path / "b") == first
    assert write_case("chest", "A", 32, 0, 1, tmp_path / "b").id != first.id
    assert not first.label_file, "chests are published without labels"

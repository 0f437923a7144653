"""ChestXray2017: patients by name, divided anew; what does not belong is set aside."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synth_ct.cohort.case import Case
from synth_ct.cohort.divide import eighty_ten_ten
from synth_ct.cohort.gather import ingest
from synth_ct.cohort.reader import Cohort
from synth_ct.kit.effort import Effort
from synth_ct.sources.chest_xray2017 import IMPORTER, find, paper_selection, patient_of
from synth_ct.xray.frame import template


def write(path: Path, seed: int) -> None:
    grown = np.kron(template()[0], np.ones((4, 4)))
    grown = (grown - grown.min()) / np.ptp(grown) * 240
    noisy = grown + np.random.default_rng(seed).integers(0, 12, grown.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noisy.astype(np.uint8)).save(path)


NAMES = [
    "train/NORMAL/IM-0115-0001.jpeg",
    "test/NORMAL/NORMAL2-IM-0115-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-0200-0001-0002.jpeg",
    "train/PNEUMONIA/person7_bacteria_21.jpeg",
    "val/PNEUMONIA/person7_virus_22.jpeg",
    "test/PNEUMONIA/person8_virus_9_1.jpeg",
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        write(tmp_path / "chest_xray" / "chest_xray" / name, seed)
    return tmp_path / "chest_xray"


@pytest.mark.parametrize(
    ("stem", "patient", "cause"),
    [
        ("IM-0115-0001", "normal 115", ""),
        ("NORMAL2-IM-0115-0001-0002", "normal 115", ""),
        ("person12_bacteria_1", "person 12", "bacteria"),
        ("person12_virus_9_1", "person 12", "virus"),
        ("scan7", "", ""),
        ("person12_fungus_1", "", ""),
    ],
)
def test_the_name_says_whose_film_it_is(stem: str, patient: str, cause: str) -> None:
    assert patient_of(stem) == (patient, cause)


def test_the_official_layout_is_found_however_deep(source: Path) -> None:
    found = {item.name.split("/", 1)[1]: item for item in find(source).found}
    assert set(found) == set(NAMES)
    assert found[NAMES[3]].finding == "PNEUMONIA/bacteria"
    assert found[NAMES[4]].split == "val"


def test_no_patient_straddles_our_split_though_some_do_theirs(tmp_path: Path, source: Path) -> None:
    summary = ingest(IMPORTER, source, tmp_path / "out", 0, Effort())
    assert (summary.accepted, summary.patients, summary.leaking_patients) == (6, 4, 2)
    parts: dict[str, set[str]] = {}
    for case in Cohort.open(tmp_path / "out").cases:
        parts.setdefault(case.patient, set()).add(case.split)
    assert all(len(splits) == 1 for splits in parts.values())


def test_strays_are_set_aside_and_the_rest_goes_on(source: Path) -> None:
    write(source / "train" / "NORMAL" / "my scan.png", 7)
    write(source / "elsewhere" / "IM-0001-0001.jpeg", 8)
    findings = find(source)
    assert len(findings.found) == len(NAMES)
    assert {row.code for row in findings.set_aside} == {"E_PAIR_MISSING"}
    assert len(findings.set_aside) == 2


def test_another_kind_of_folder_is_a_mistake_and_says_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "x.png", 0)
    with pytest.raises(ValueError, match="ingest radiographs"):
        find(tmp_path)


def cases(count: int) -> list[Case]:
    kinds = ("NORMAL", "PNEUMONIA/virus")
    return [
        Case(id=f"{i:016x}", finding=kinds[i % 2], split="test" if i % 10 == 0 else "train")
        for i in range(count)
    ]


def test_the_papers_selection_is_1000_normal_films_of_the_train_part() -> None:
    chosen = paper_selection(cases(4000))
    assert len({case.id for case in chosen}) == 1000
    assert all(c.finding == "NORMAL" and c.split == "train" for c in chosen)
    assert chosen == paper_selection(list(reversed(cases(4000))))
    assert chosen != paper_selection(cases(4000), seed=1)


def test_of_few_films_all_are_selected_and_of_none_it_says_so() -> None:
    assert len(paper_selection(cases(20))) == 8
    with pytest.raises(ValueError, match="no NORMAL"):
        paper_selection([])


def test_where_no_film_has_a_finding_each_may_be_normal() -> None:
    untold = [replace(case, finding="") for case in cases(20)]
    chosen = paper_selection(untold)
    assert {case.id for case in chosen} == {c.id for c in untold if c.split == "train"}


@pytest.mark.real_data
def test_the_real_set_has_5856_films_and_the_counts_the_documents_state(real_data: Path) -> None:
    found = find(real_data / "chest_xray_224").found
    assert len(found) == 5856
    parts: dict[str, set[str]] = {}
    for item in found:
        parts.setdefault(item.patient, set()).add(str(item.split))
    assert len(parts) == 2790
    assert sum(len(splits) > 1 for splits in parts.values()) == 264
    assert sum(len(s) > 1 for p, s in parts.items() if p.startswith("person")) == 170
    by_patient = {item.patient: [item] for item in found}
    assert len(eighty_ten_ten(by_patient, 0)) == 2790


@pytest.mark.real_data
def test_real_films_are_read_without_a_complaint(real_data: Path, tmp_path: Path) -> None:
    for item in find(real_data / "chest_xray_224").found[::150]:
        assert IMPORTER.read(item, tmp_path).notes in ((), ("unlike_frontal_chest",))

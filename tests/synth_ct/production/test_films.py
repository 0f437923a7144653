"""Which radiographs a corpus is made from: each once, by its bytes, whoever lists them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synth_ct.cohort.gather import ingest
from synth_ct.kit.effort import Effort
from synth_ct.production.films import Films, films_of
from synth_ct.sources import radiographs
from synth_ct.sources.importers import IMPORTERS


def write_film(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.linspace(40, 200, 96)[:, None] + np.random.default_rng(seed).normal(0, 9, (96, 96))
    Image.fromarray(rows.clip(0, 255).astype(np.uint8)).save(path)


def read(source: Path) -> Films:
    return films_of(source, lambda done=1, note="", /: None)


def test_equal_bytes_are_one_film_and_the_copy_names_the_one_that_was_kept(tmp_path: Path) -> None:
    write_film(tmp_path / "a.png", 0)
    write_film(tmp_path / "b.png", 1)
    shutil.copy(tmp_path / "a.png", tmp_path / "c.png")
    found = read(tmp_path)
    assert [film.name for film in found.films] == ["a.png", "b.png"]
    (copy,) = found.set_aside
    assert (copy.code, copy.file, copy.kept) == ("duplicate", "c.png", "a.png")


def test_the_archive_is_known_by_its_layout_and_classes_come_from_it(tmp_path: Path) -> None:
    write_film(tmp_path / "train/NORMAL/IM-0001-0001.jpeg", 0)
    write_film(tmp_path / "test/PNEUMONIA/person7_virus_12.jpeg", 1)
    write_film(tmp_path / "train/PNEUMONIA/person7_virus_13.jpeg", 2)
    found = read(tmp_path)
    assert sorted(f.finding for f in found.films) == [
        "NORMAL",
        "PNEUMONIA/virus",
        "PNEUMONIA/virus",
    ]
    assert len({film.patient for film in found.films}) == 2
    assert found.about["licence"] == "CC BY 4.0"


def test_a_folder_and_the_cohort_made_of_it_give_the_same_films(tmp_path: Path) -> None:
    for n in range(4):
        write_film(tmp_path / f"films/{n:08d}_000.png", n)
    importer = IMPORTERS[radiographs.IMPORTER.name]
    ingest(importer, tmp_path / "films", tmp_path / "cohort", 0, Effort())
    one, other = read(tmp_path / "films"), read(tmp_path / "cohort")
    facts = [
        sorted((f.sha256, f.patient, f.finding, f.path) for f in films.films)
        for films in (one, other)
    ]
    assert facts[0] == facts[1]


def test_a_folder_without_films_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no radiograph is there"):
        read(tmp_path)

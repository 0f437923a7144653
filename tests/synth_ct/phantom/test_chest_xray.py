"""The twin looks like ChestXray2017 to the importer, and is the same for the same seed."""

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from synth_ct.cohort.gather import ingest
from synth_ct.kit.effort import Effort
from synth_ct.phantom import chest_xray, cohort, make_phantom
from synth_ct.phantom.chest_xray import FAMILY, Twin, parts_of, plan_films, write_chest_xray
from synth_ct.phantom.patient import Phantom
from synth_ct.sources.chest_xray2017 import IMPORTER

FEW = Twin(count=8, size=32, seed=3)


def quiet(done: int) -> None:
    del done


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twin") / "chest_xray"
    write_chest_xray(folder, FEW, quiet)
    return folder


def test_the_importer_accepts_every_film_but_the_copy(tree: Path, tmp_path: Path) -> None:
    summary = ingest(IMPORTER, tree, tmp_path / "out", 0, Effort())
    assert (summary.total, summary.accepted, summary.duplicates) == (8, 7, 1)


def test_films_differ_in_size_and_aspect_and_use_the_grey_range(tree: Path) -> None:
    films = [Image.open(path) for path in sorted(tree.rglob("*.jpeg"))]
    assert len({film.size for film in films}) > 4
    assert all(np.asarray(film).std() > 20 for film in films)
    assert {film.mode for film in films} == {"L"}


def test_the_same_seed_gives_the_same_bytes_and_a_stopped_run_goes_on(
    tree: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(tree, again)
    paths = sorted(path.relative_to(tree) for path in tree.rglob("*.jpeg"))
    for path in paths[:3]:
        (again / path).unlink()
    (again / paths[3]).write_bytes(b"kept")
    write_chest_xray(again, FEW, quiet)
    assert (again / paths[3]).read_bytes() == b"kept"
    assert all((again / path).read_bytes() == (tree / path).read_bytes() for path in paths[:3])


def spy_on(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, str]]:
    """Seed and family of every phantom that the module asks for from now on."""
    asked: set[tuple[int, str]] = set()
    stand_in = make_phantom("chest", 0, 32)

    def make(kind: str, seed: int, size: int, family: str, opacities: bool = False) -> Phantom:
        asked.add((seed, family))
        return stand_in

    monkeypatch.setattr(module, "make_phantom", make)
    return asked


def test_patients_are_of_the_generators_family_and_none_is_in_its_ct_cohort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films, scans = spy_on(chest_xray, monkeypatch), spy_on(cohort, monkeypatch)
    write_chest_xray(tmp_path / "films", FEW, quiet)
    for index in range(FEW.count + 1):
        cohort.write_case("chest", FAMILY, 32, FEW.seed, index, tmp_path / "ct")
    assert {family for _, family in films} == {"A"}
    assert len(scans) == FEW.count + 1
    assert films.isdisjoint(scans)


@pytest.mark.parametrize("count", [6, 8, 12, 32, 300, 5872])
def test_parts_are_in_proportion_and_never_empty(count: int) -> None:
    counts = parts_of(count)
    assert sum(counts.values()) == count
    assert min(counts.values()) >= 1
    assert len({film.file for film in plan_films(Twin(count=count))}) == count


def test_some_patients_have_several_films_and_none_is_both_normal_and_sick() -> None:
    films = plan_films(Twin(count=300))
    healthy, sick = ({f.patient for f in films if f.sick is s} for s in (False, True))
    assert not healthy & sick
    assert len(healthy | sick) < 260


def test_fewer_films_than_parts_are_refused() -> None:
    with pytest.raises(ValidationError):
        Twin(count=5)

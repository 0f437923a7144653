"""Radiograph files to CT files: valid, named by content, the same for the same seed."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image

from synth_ct.generate import generate
from synth_ct.generator import Generator, open_generator
from synth_ct.kit.quarantine import read_report
from synth_ct.kit.volume import Volume
from synth_ct.pairs.disk import open_pairs
from synth_ct.preview import preview
from synth_ct.production.order import seed_of, volume_id, way_of
from synth_ct.reconstruct import (
    Made,
    Sampling,
    Written,
    as_json,
    as_lines,
    read_films,
    reconstruct,
    report,
)


@pytest.fixture(scope="module")
def generator(generator_root: Path) -> Generator:
    return open_generator(generator_root, torch.device("cpu"))


@pytest.fixture(scope="module")
def radiographs(generator_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    films = open_pairs(generator_root / "cohorts/pairs").films_NUV[:2]
    paths = []
    for n, film_UV in enumerate(films):
        large = Image.fromarray(np.rint((film_UV + 1) * 127.5).astype(np.uint8)).resize((160, 160))
        paths.append(folder / f"patient name {n}.png")
        large.save(paths[-1])
    return paths


def silent(done: int = 1, note: str = "", /) -> None:
    pass


def written(generator: Generator, paths: list[Path], out: Path, **how: Any) -> Written:
    films, set_aside = read_films(paths, generator.about.recipe.size, silent)
    assert not set_aside
    return reconstruct(generator, films, out, Sampling(**how), silent)


def go(generator: Generator, paths: list[Path], out: Path, **how: Any) -> list[Made]:
    return written(generator, paths, out, **how).volumes


def test_every_reader_agrees_on_the_geometry(
    generator: Generator, radiographs: list[Path], tmp_path: Path
) -> None:
    (made,) = go(generator, radiographs[:1], tmp_path)
    by_nibabel = nib.load(tmp_path / made.file)
    by_itk = SimpleITK.ReadImage(str(tmp_path / made.file))
    assert nib.aff2axcodes(by_nibabel.affine) == ("R", "A", "S")
    np.testing.assert_allclose(by_itk.GetSpacing(), by_nibabel.header.get_zooms())
    lps = np.diag([-1, -1, 1]) @ by_nibabel.affine[:3, 3]
    np.testing.assert_allclose(by_itk.GetOrigin(), lps)
    hu_ZYX = SimpleITK.GetArrayFromImage(by_itk)
    np.testing.assert_array_equal(hu_ZYX.transpose(2, 1, 0), np.asarray(by_nibabel.dataobj))


def test_the_same_seed_gives_the_same_bytes_whatever_the_companions(
    generator: Generator, radiographs: list[Path], tmp_path: Path
) -> None:
    (alone,) = go(generator, radiographs[1:], tmp_path / "a")
    _, together = go(generator, radiographs, tmp_path / "b")
    assert alone.id == together.id
    for suffix in ("nii.gz", "png", "json"):
        name = f"{alone.id}.{suffix}"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_radiographs_seeds_and_samples_tell_volumes_apart(
    generator: Generator, radiographs: list[Path], tmp_path: Path
) -> None:
    made = go(generator, radiographs, tmp_path, samples=2)
    made += go(generator, radiographs[:1], tmp_path, seed=5)
    files = {(tmp_path / one.file).read_bytes() for one in made}
    assert len({one.id for one in made}) == len(files) == 5


def test_several_samples_give_a_mean_and_where_they_differ(
    generator: Generator, radiographs: list[Path], tmp_path: Path
) -> None:
    made, (files,) = written(generator, radiographs[:1], tmp_path, samples=3)
    stack = np.stack([nib.load(tmp_path / one.file).get_fdata() for one in made])
    mean, spread = (nib.load(tmp_path / name).get_fdata() for name in (files.mean, files.sd))
    about = json.loads((tmp_path / f"{made[0].id}-of3.json").read_text())
    assert about["what"].startswith("SYNTHETIC")
    assert np.abs(mean - stack.mean(0)).max() <= 0.5
    assert np.abs(spread - stack.std(0, ddof=1)).max() <= 0.5
    assert spread.max() > 0


def test_a_sidecar_says_what_it_is_and_names_nobody(
    generator: Generator, radiographs: list[Path], tmp_path: Path
) -> None:
    (made,) = go(generator, radiographs[:1], tmp_path)
    text = (tmp_path / f"{made.id}.json").read_text()
    about = json.loads(text)
    assert about["what"].startswith("SYNTHETIC")
    assert (about["scale"], about["trained_on"]) == ("nominal", "phantoms")
    assert about["seed"] == seed_of(0, made.id)
    way = way_of(generator.about.recipe, restyled=True, prior_only=False)
    sha256 = about["radiograph_sha256"]
    assert about["id"] == volume_id(sha256, generator.fingerprint, way, 0, 0)
    assert isinstance(about["accepted"], bool)
    assert "patient" not in text
    assert "patient name 0" in (tmp_path / "sources.csv").read_text()


def test_a_picture_says_whose_it_is(
    generator: Generator, radiographs: list[Path], tmp_path: Path
) -> None:
    (made,) = go(generator, radiographs[:1], tmp_path)
    image = nib.load(tmp_path / made.file)
    drawn = preview(Volume(np.asarray(image.dataobj), image.affine), made.id)
    with Image.open(tmp_path / f"{made.id}.png") as there, Image.open(io.BytesIO(drawn)) as here:
        assert np.abs(np.asarray(there, float) - np.asarray(here, float)).max() <= 1, "rounded HU"


def test_what_is_no_radiograph_is_set_aside_and_the_others_go_on(
    radiographs: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "letter.png").write_bytes(b"Dear colleague")
    wrong = [tmp_path / "letter.png", tmp_path / "nowhere.png"]
    ticks: list[int] = []
    given = [*wrong, *radiographs]
    films, set_aside = read_films(given, 32, lambda done=1, note="", /: ticks.append(done))
    assert len(films) == 2
    assert [row.file for row in set_aside] == [str(path) for path in wrong]
    assert sum(ticks) == len(given)


def test_a_film_that_keeps_its_style_and_a_prior_alone_are_other_volumes(
    generator: Generator, radiographs: list[Path], tmp_path: Path
) -> None:
    usual = go(generator, radiographs[:1], tmp_path)
    kept = go(generator, radiographs[:1], tmp_path, drr=True)
    prior = replace(generator, models=replace(generator.models, denoiser=None))
    alone = go(prior, radiographs[:1], tmp_path)
    assert len({one.id for one in (*usual, *kept, *alone)}) == 3


def test_a_second_run_into_a_folder_keeps_what_the_first_noted(
    generator: Generator, radiographs: list[Path], tmp_path: Path
) -> None:
    for path in radiographs:
        go(generator, [path], tmp_path)
    noted = (tmp_path / "sources.csv").read_text()
    assert all(path.name in noted for path in radiographs)


def test_a_sample_without_finite_values_is_rejected_and_the_others_are_kept(
    generator: Generator,
    radiographs: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def poisoned(*given: object) -> list[Volume]:
        volumes = generate(*given)  # type: ignore[arg-type]
        if len(volumes) > 1:
            volumes[1].array_XYZ[0, 0, 0] = np.nan
        return volumes

    monkeypatch.setattr("synth_ct.reconstruct.generate", poisoned)
    made = go(generator, radiographs[:1], tmp_path, samples=3)
    assert [one.verdict.reason == "not_finite" for one in made] == [False, True, False]
    assert made[1].file is None
    assert not (tmp_path / f"{made[1].id}.nii.gz").exists()
    assert json.loads((tmp_path / f"{made[0].id}-of3.json").read_text())["samples"] == 2


def test_a_volume_says_in_its_file_that_it_is_synthetic(
    generator: Generator, radiographs: list[Path], tmp_path: Path
) -> None:
    (one, _), (spread,) = written(generator, radiographs[:1], tmp_path, samples=2)
    expected = {
        one.file: one.id, spread.mean: f"{one.id}-of2-mean", spread.sd: f"{one.id}-of2-sd",
    }  # fmt: skip
    for file, name in expected.items():
        header = nib.load(tmp_path / file).header
        assert header["descrip"].item().decode() == f"SYNTHETIC synth-ct {name}"


def test_a_second_run_keeps_the_quarantine_of_the_first_but_for_files_given_again(
    radiographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = [Path("a/film.png"), Path("b/film.png")]
    for path in bad:
        path.parent.mkdir()
        path.write_bytes(b"Dear colleague")
        report(read_films([path], 32, silent)[1], [path], tmp_path)
    assert [row.file for row in read_report(tmp_path)] == [str(tmp_path / path) for path in bad]
    bad[0].write_bytes(radiographs[0].read_bytes())
    mended = tmp_path / "a/../a/film.png"
    report(read_films([mended], 32, silent)[1], [mended], tmp_path)
    assert [row.file for row in read_report(tmp_path)] == [str(tmp_path / bad[1])]


def test_a_report_that_cannot_be_read_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "quarantine.json").write_text("[]")
    with pytest.raises(ValueError, match="move it away"):
        report([], [], tmp_path)
    assert (tmp_path / "quarantine.json").read_text() == "[]"


def test_the_answer_names_every_file_and_why_something_was_rejected(
    generator: Generator, radiographs: list[Path], tmp_path: Path
) -> None:
    wrong = tmp_path / "a/film.png"
    _, set_aside = read_films([wrong], 32, silent)
    made = written(generator, radiographs[:1], tmp_path / "out", samples=2)
    (rejected, *_) = [one for one in made.volumes if not one.verdict.accepted]
    lines = "\n".join(as_lines(made, set_aside, tmp_path / "out"))
    there = {path.name for path in (tmp_path / "out").glob("*.nii.gz")}
    assert len(there) == 4
    assert all(str(tmp_path / "out" / name) in lines for name in there)
    assert f"rejected: {rejected.why}" in lines
    assert f"where {rejected.verdict.reason} is the reason: " in lines
    assert f"{wrong} set aside: E_UNREADABLE" in lines
    answer = json.loads(json.dumps(as_json(made, set_aside)))
    assert {*(v["file"] for v in answer["volumes"])} | {
        file for s in answer["spreads"] for file in (s["mean"], s["sd"])
    } == there
    assert answer["quarantined"][0].keys() == {"code", "file", "cause", "remedy"}
    assert answer["quarantined"][0]["file"] == str(wrong)
    assert as_lines(Written([], []), [], tmp_path) == ["no volume was made"]


@pytest.mark.real_data
def test_real_radiographs_give_volumes_of_their_own(
    generator: Generator, real_data: Path, tmp_path: Path
) -> None:
    paths = sorted((real_data / "chest_xray_256/train").rglob("*.jp*g"))[:200:70]
    made = go(generator, paths, tmp_path / "a")
    again = go(generator, paths[::-1], tmp_path / "b")
    files = {one.id: (tmp_path / "a" / one.file).read_bytes() for one in made}
    assert len(set(files.values())) == len(paths) == 3
    assert {one.id: (tmp_path / "b" / one.file).read_bytes() for one in again} == files
    for one in made:
        by_nibabel = nib.load(tmp_path / "a" / one.file)
        by_itk = SimpleITK.ReadImage(str(tmp_path / "a" / one.file))
        np.testing.assert_allclose(by_itk.GetSpacing(), by_nibabel.header.get_zooms())
        lps = np.diag([-1, -1, 1]) @ by_nibabel.affine[:3, 3]
        np.testing.assert_allclose(by_itk.GetOrigin(), lps)

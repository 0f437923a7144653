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
from synth_ct.kit.seeds import seed_for
from synth_ct.kit.volume import Volume
from synth_ct.pairs.disk import open_pairs
from synth_ct.preview import preview
from synth_ct.reconstruct import Made, Sampling, read_films, reconstruct, volume_id


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


def go(generator: Generator, paths: list[Path], out: Path, **how: Any) -> list[Made]:
    films, set_aside = read_films(paths, generator.about.recipe.size)
    assert not set_aside
    return reconstruct(generator, films, out, Sampling(**how), lambda done=1, note="": None)


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
    made = go(generator, radiographs[:1], tmp_path, samples=3)
    stack = np.stack([nib.load(tmp_path / one.file).get_fdata() for one in made])
    mean = nib.load(tmp_path / f"{made[0].id}-of3-mean.nii.gz").get_fdata()
    spread = nib.load(tmp_path / f"{made[0].id}-of3-sd.nii.gz").get_fdata()
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
    assert about["seed"] == seed_for(0, "volume", made.id)
    assert about["id"] == volume_id(about["radiograph_sha256"], generator, Sampling(), 0)
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
    films, set_aside = read_films([*wrong, *radiographs], 32)
    assert len(films) == 2
    assert [row.file for row in set_aside] == ["letter.png", "nowhere.png"]


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
        volumes[1].array_XYZ[0, 0, 0] = np.nan
        return volumes

    monkeypatch.setattr("synth_ct.reconstruct.generate", poisoned)
    made = go(generator, radiographs[:1], tmp_path, samples=3)
    assert [one.verdict.reason == "not_finite" for one in made] == [False, True, False]
    assert made[1].file is None
    assert not (tmp_path / f"{made[1].id}.nii.gz").exists()
    assert json.loads((tmp_path / f"{made[0].id}-of3.json").read_text())["samples"] == 2


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

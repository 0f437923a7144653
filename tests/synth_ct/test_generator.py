"""A finished generator: whole, movable, and found by its root."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from ray_jobs.generators import tiny_generator
from synth_ct.generate import generate
from synth_ct.generator import find_generator, open_generator, write_generator
from synth_ct.kit.effort import Effort
from synth_ct.kit.progress import Tick
from synth_ct.kit.recipe import changed
from synth_ct.pairs.disk import open_pairs

CPU = torch.device("cpu")


@pytest.fixture
def moved(generator_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(generator_root / "generator/tiny", tmp_path / "anywhere"))


def test_a_moved_generator_makes_the_same_volumes(generator_root: Path, moved: Path) -> None:
    film = open_pairs(generator_root / "cohorts/pairs").film([0], CPU)
    here, there = (open_generator(path, CPU) for path in (generator_root, moved))
    assert here.fingerprint == there.fingerprint
    a, b = (generate(g.models, film, [3])[0].array_XYZ for g in (here, there))
    assert (a == b).all()


def test_measuring_what_volumes_should_be_like_shows_how_far_it_is(
    generator_root: Path, tmp_path: Path
) -> None:
    pairs, ticks = open_pairs(generator_root / "cohorts/pairs"), list[int]()

    def begin(total: int) -> Tick:
        assert total == len(pairs.of("train"))
        return lambda done=1, note="", /: ticks.append(done)

    about = open_generator(generator_root, CPU).about
    write_generator(about, [], pairs, tmp_path, Effort(begin=begin))
    assert len(ticks) == len(pairs.of("train"))


def test_it_says_what_it_was_trained_on_and_that_millimetres_are_nominal(moved: Path) -> None:
    about = open_generator(moved, CPU).about
    assert (about.trained_on, about.evidence, about.scale) == ("phantoms", "phantom", "nominal")


@pytest.mark.parametrize("file", ["denoiser.safetensors", "generator.json", "quality.safetensors"])
def test_a_flipped_bit_in_any_file_is_noticed(moved: Path, file: str) -> None:
    data = bytearray((moved / file).read_bytes())
    data[len(data) // 2] ^= 1
    (moved / file).unlink()
    (moved / file).write_bytes(data)
    with pytest.raises(ValueError, match=f"{file} was changed.*--until generator --root ROOT"):
        open_generator(moved, CPU)


def test_a_missing_file_is_named_with_the_command_that_makes_it_again(
    generator_root: Path, tmp_path: Path
) -> None:
    home = tmp_path / "root/generator/tiny"
    shutil.copytree(generator_root / "generator/tiny", home)
    (home / "prior.safetensors").unlink()
    root = re.escape(str(tmp_path / "root"))
    said = rf"prior.safetensors is missing; .*delete {root}/generator/tiny and {root}/prior/tiny "
    with pytest.raises(ValueError, match=rf"{said}.*run tiny --until generator --root {root}`"):
        open_generator(home, CPU)


def test_a_root_with_two_generators_wants_one_named(moved: Path) -> None:
    root = moved.parent
    for name in ("a", "b"):
        shutil.copytree(moved, root / "generator" / name)
    with pytest.raises(ValueError, match=r"several generators \(generator/a, generator/b\)"):
        find_generator(root)
    with pytest.raises(ValueError, match=r"several generators \(a, b\)"):
        find_generator(root / "generator")
    assert find_generator(root / "generator/a") == root / "generator/a"


def test_a_generator_is_found_by_its_root_the_folder_above_and_its_file(
    generator_root: Path,
) -> None:
    home = generator_root / "generator/tiny"
    for path in (generator_root, home.parent, home, home / "generator.json"):
        assert find_generator(path) == home


def test_what_is_no_generator_is_refused_with_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"holds no generator.*synth-ct run tiny --until generator"
    ):
        open_generator(tmp_path, CPU)
    (tmp_path / "weights.pt").touch()
    for path in (tmp_path / "nowhere", tmp_path / "weights.pt"):
        with pytest.raises(ValueError, match="is no folder of a generator"):
            find_generator(path)


def test_work_in_progress_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "generator/x.partial").mkdir(parents=True)
    (tmp_path / "generator/x.partial/generator.json").touch()
    with pytest.raises(ValueError, match=r"x\.partial is not finished"):
        find_generator(tmp_path)


def test_an_unfinished_generator_is_refused(moved: Path) -> None:
    (moved / "record.json").unlink()
    with pytest.raises(ValueError, match="is not finished"):
        open_generator(moved, CPU)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"size": 64}, "prior.sizes.film is 32 and size 64"),
        ({"sampler": {"name": "euler", "evaluations": 4}}, "euler"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        changed(tiny_generator(), **part)


def test_latents_of_different_widths_do_not_fit() -> None:
    recipe = tiny_generator()
    sizes = changed(recipe.autoencoder.sizes, latent_channels=8)
    with pytest.raises(ValidationError, match="channels of the latent differ"):
        changed(recipe, autoencoder=changed(recipe.autoencoder, sizes=sizes))

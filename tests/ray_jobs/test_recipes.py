"""Recipes: valid, named after their functions, and the same as text."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ray_jobs.recipes import RECIPES, find_recipe, read_toml, tiny, to_toml, with_settings
from synth_ct.phantom.chest_xray import FAMILY as RADIOGRAPHS_FAMILY


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_named_after_its_function_and_survives_toml(
    name: str, tmp_path: Path
) -> None:
    run = find_recipe(name)
    assert run.name == name
    (tmp_path / "a.toml").write_text(to_toml(run))
    assert read_toml(tmp_path / "a.toml") == run


def test_an_override_changes_one_field_and_nothing_else() -> None:
    changed = with_settings(tiny(), ["cohorts.ct.count=7"])
    assert changed.cohorts.ct.count == 7
    assert with_settings(changed, [f"cohorts.ct.count={tiny().cohorts.ct.count}"]) == tiny()


@pytest.mark.parametrize("name", [n for n in RECIPES if not n.startswith("paper")])
def test_what_is_pretrained_on_one_family_is_fine_tuned_on_the_other(name: str) -> None:
    cohorts = find_recipe(name).cohorts
    assert cohorts.ct.family == RADIOGRAPHS_FAMILY
    assert cohorts.bcv.family == cohorts.spleen.family != RADIOGRAPHS_FAMILY


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        tiny().seed = 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "x"\n', r"evidence: .*; seed: .*; cohorts: "),
        ("name = ", "is not TOML"),
        (to_toml(tiny()) + "\n[typo]\na = 1\n", "typo: Extra inputs"),
    ],
)
def test_a_bad_file_is_refused_by_field(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_toml(tmp_path / "a.toml")

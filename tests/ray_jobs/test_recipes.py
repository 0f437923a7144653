"""Recipes: valid, named after their functions, and the same as text."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ray_jobs.recipes import (
    RECIPES,
    checked,
    find_recipe,
    read_toml,
    tiny,
    to_toml,
    with_settings,
)
from synth_ct.kit.recipe import changed
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


@pytest.mark.parametrize("name", [n for n in RECIPES if find_recipe(n).evidence != "real"])
def test_what_is_pretrained_on_one_family_is_fine_tuned_on_the_other(name: str) -> None:
    cohorts = find_recipe(name).cohorts
    assert cohorts.ct.family == RADIOGRAPHS_FAMILY
    assert cohorts.bcv.family == cohorts.spleen.family != RADIOGRAPHS_FAMILY


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        tiny().seed = 3


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('generator.name=".."', r"^--set: generator.name: '\.\.' cannot name a folder"),
        ("generator.name=x.partial", "'x.partial' cannot name a folder"),
        ("generator.name=.hidden", "'.hidden' cannot name a folder"),
        ("name=../elsewhere", "^--set: name: '../elsewhere' cannot name a folder"),
        ("generator.sampler.evaluations=1001", "choose at most 1000"),
        ("generator.autoencoder.crop=64", "generator: crops of 64 .* at most 32"),
        ("generator.autoencoder.crop=18", "use a multiple of 4"),
        ("generator.autoencoder.rate=true", "autoencoder.rate: true and false are no numbers"),
        ("seed=false", "^--set: seed: true and false are no numbers"),
        ("generator.denoiser.sizes.multipliers=[true, 2]", "multipliers: true and false are no"),
        ("generator.autoencoder.adversary.start=999", 'say adversary = "none"'),
        ("folds.networks.unet.network=vnet", "network is 'vnet', and pretraining has swin, unet"),
        ("folds.networks.unet.checkpoint=best", "checkpoint = 'best': must be 'last'$"),
        ("pretraining.networks.unet.transfer=head", "transfer = 'head': must be 'encoder'"),
    ],
)
def test_a_value_that_cannot_work_is_refused_in_our_own_words(setting: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        with_settings(tiny(), [setting])
    assert "Value error" not in str(refused.value)


def test_what_would_share_a_folder_or_does_not_fit_the_pairs_is_refused() -> None:
    run, other = tiny(), find_recipe("small").generator
    large = changed(run.generator.autoencoder, crop=64)
    for fields, said in (
        ({"ablations": (run.generator,)}, "tiny names two trainings"),
        ({"variations": {"tiny": run.generator.autoencoder}}, "tiny names two trainings"),
        ({"variations": {"a/b": run.generator.autoencoder}}, "'a/b' cannot name a folder"),
        ({"variations": {"large": large}}, "crops of 64"),
        ({"ablations": (other,)}, "small is of another size"),
    ):
        with pytest.raises(ValidationError, match=said):
            changed(run, **fields)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "x"\n', r"evidence: .*; seed: .*; cohorts: "),
        ("name = ", "is not TOML"),
        (to_toml(tiny()) + "\n[typo]\na = 1\n", "typo: unknown; there are ablations, "),
    ],
)
def test_a_bad_file_is_refused_by_field(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_toml(tmp_path / "a.toml")


FIT = "folds.networks.unet"
BACKBONE, OBJECTIVE = "pretraining.networks.unet.backbone", "pretraining.networks.unet.objective"
KINDS = "'swin_unetr' or 'unet'"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (f"{FIT}.rate", 0, " = 0: must be greater than 0"),
        ("gpus", float("inf"), " = inf: must be finite, at least 0"),
        ("seed", 1.5, " = 1.5: must be a whole number, at least 0"),
        ("cohorts.ct.size", "x", " = 'x': must be a whole number, at least 32 and at most 128"),
        ("generator.size", 40, " = 40: must be at least 32 and at most 128 and a multiple of 16"),
        ("evidence", "none", " = 'none': must be 'plumbing', 'phantom' or 'real'"),
        ("name", None, " = none: must be text"),
        ("corpus.restyled", 3, " = 3: must be true or false"),
        (f"{FIT}.training", 3, " = 3: must be a table"),
        (f"{FIT}.crop.sides", [9] * 4, " = [9, 9, 9, 9]: must have at most 3 items, not 4"),
        (f"{FIT}.crop.sides", [9, "x", 9], ".1 = 'x': must be a whole number"),
        (f"{FIT}.rat", 1, ": unknown; did you mean 'rate'?"),
        ("cohorts.ct.cuont", 1, ": unknown; did you mean 'count'?"),
        ("cohorts.ct.importr", "lidc", ": unknown; did you mean 'importer'?"),
        ("cohorts.ct", {"importer": "lidc", "sead": 1}, ".sead: unknown; did you mean 'seed'?"),
        ("cohorts.ct", {"importer": "lidc", "kind": 1}, ".kind: unknown; there are importer, seed"),
        (f"{BACKBONE}.widht", 4, ": unknown; did you mean 'width'?"),
        (f"{OBJECTIVE}.depths", 4, ": unknown; there are block, decoder, hidden, kind"),
        (BACKBONE, {"kind": "vit"}, f".kind = 'vit': must be {KINDS}"),
        (BACKBONE, {"width": 4}, f".kind: missing; must be {KINDS}"),
        (BACKBONE, 7, " = 7: must be a table"),
    ],
)
def test_a_fault_names_key_value_and_what_is_allowed(key: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'mine.toml: {key}{said}')}$"):
        checked(with_value(key, value), "mine.toml")


def with_value(key: str, value: Any) -> dict[str, Any]:
    """`tiny` as a table, with something else at one place."""
    fields = tiny().model_dump(mode="json")
    *parents, leaf = key.split(".")
    place = fields
    for parent in parents:
        place = place[parent]
    place[leaf] = value
    return fields


def test_a_key_with_a_line_break_stays_on_one_line() -> None:
    with pytest.raises(ValueError, match=r"^a: se\\ned: unknown; did you mean 'seed'\?$"):
        checked(with_value("se\ned", 1), "a")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (f"{FIT}.rat=1", f"{FIT}.rat: unknown; did you mean 'rate'?"),
        ("seed.x=1", "seed.x: seed is no table here"),
        (f"{FIT}.shown.x=1", f"{FIT}.shown.x: {FIT}.shown is none here"),
    ],
)
def test_an_override_of_what_is_not_there_is_refused_by_its_key(setting: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'--set: {said}')}$"):
        with_settings(tiny(), [setting])

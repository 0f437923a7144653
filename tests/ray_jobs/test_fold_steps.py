"""The grid of fits: every cell once, under names that say it, each after the frozen protocol."""

from collections import Counter

from ray_jobs.finetuning import LABELS
from ray_jobs.fold_steps import RESULTS, shown
from ray_jobs.plan import Step
from ray_jobs.pretraining import SOFT_TISSUE_HU
from ray_jobs.recipes import Run, preprocess_parity, scaling, tiny
from ray_jobs.steps import steps_of
from reports.protocol import NAME
from synth_ct.kit.recipe import changed
from synth_ct.kit.volume import WINDOW_HU


def named(run: Run) -> dict[str, Step]:
    return {step.name: step for step in steps_of(run)}


def fits_of(run: Run) -> dict[str, Step]:
    return {n: s for n, s in named(run).items() if n.startswith("fits/") and "-f" in n}


def test_tiny_has_two_networks_two_data_sets_four_arms_and_five_folds() -> None:
    fits = fits_of(tiny())
    assert len(fits) == 2 * 2 * 4 * 5
    assert "fits/bcv-swin-synthetic-f0-s0" in fits
    assert {each.name for each in named(tiny())[RESULTS].inputs} == fits.keys()


def test_no_fit_can_be_older_than_the_protocol_or_read_another_arms_encoder() -> None:
    for name, step in fits_of(tiny()).items():
        inputs = {each.name for each in step.inputs}
        _, arch, arm, _, _ = name.split("-")
        assert NAME in inputs
        assert {n for n in inputs if n.startswith("encoder/")} == {f"encoder/{arch}-{arm}-s0"}
        assert step.where == "task"


def test_arms_differ_in_nothing_but_the_arm() -> None:
    cells: dict[tuple[str, ...], list[dict[str, object]]] = {}
    for name, step in fits_of(tiny()).items():
        dataset, arch, _, fold, seed = name.split("-")
        cells.setdefault((dataset, arch, fold, seed), []).append(step.recipe.model_dump())
    for recipes in cells.values():
        assert len({str(recipe | {"arm": ""}) for recipe in recipes}) == 1
        assert Counter(str(recipe["arm"]) for recipe in recipes).most_common(1)[0][1] == 1


def test_scaling_crosses_sizes_of_the_corpus_with_shares_of_the_labels() -> None:
    run = scaling()
    assert run.folds is not None
    sizes = {s.recipe.volumes for n, s in named(run).items() if n.startswith("encoder/")}  # type: ignore[attr-defined]
    assert sizes == {100, 316, 1000, None}
    shares = Counter(each.labels for each in run.folds.networks.values())
    assert shares == dict.fromkeys(LABELS, 4)


def test_parity_shows_the_network_both_windows() -> None:
    run = preprocess_parity()
    assert run.folds is not None
    own, other = run.folds.networks.values()
    assert shown(run, own).window_hu == SOFT_TISSUE_HU
    assert shown(run, other) == changed(shown(run, own), window_hu=WINDOW_HU)
    steps = named(run)
    assert {"cohorts/bcv_cases", "cohorts/bcv_cases1"} <= steps.keys()

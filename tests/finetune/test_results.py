"""What fits leave comes back as it was, or is refused by name."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from finetune.results import (
    SCORES,
    Fit,
    demand_no_leak,
    open_fit,
    read_results,
    write_results,
    write_scores,
)
from finetune.score import Score
from synth_ct.kit.artifact import RECORD, Record, partial_of, publish
from synth_ct.kit.quarantine import Refused

WHO = {"dataset": "bcv", "arch": "unet", "arm": "real", "fold": 0, "seed": 1}
CONFIG = {"evidence": "plumbing", "finetuning": {"training": {"steps": 30}, "rate": 1e-4}}
INPUTS = {"cohorts/bcv": "c" * 16, "fits/protocol": "d" * 16}


def score(case: str, label: int = 1, **fields: Any) -> Score:
    usual = Score(
        case=case,
        patient=f"p{case}",
        label=label,
        organ=f"organ {label}",
        outcome="scored",
        dice=1 / 3,
        nsd=0.1 + 0.2,
        reference_ml=12.5,
        predicted_ml=1e-3,
    )
    return replace(usual, **fields)


ABSENT = score("a", 2, outcome="absent", dice=None, nsd=None, reference_ml=0.0, predicted_ml=0.0)


def fit(fold: int = 0, cases: str = "ab", **fields: Any) -> Fit:
    identity = WHO | {"fold": fold} | {k: v for k, v in fields.items() if k in WHO}
    usual = Fit(
        **identity,
        steps=30,
        fingerprint="-".join(map(str, identity.values())),
        config=CONFIG,
        inputs=INPUTS,
        scores=tuple(score(case, label) for case in cases for label in (1, 2)),
    )
    return replace(usual, **fields)


def publish_fit(folder: Path, kind: str = "fits/x", recipe: dict[str, Any] | None = None) -> Path:
    record = Record(kind=kind, recipe=recipe or WHO | CONFIG, inputs=INPUTS)
    with publish(folder, record) as workspace:
        write_scores(workspace, [score("b"), ABSENT, score("a")], ["pz"])
    return folder


def test_a_fit_says_what_it_was_told_and_how_it_did(tmp_path: Path) -> None:
    found = open_fit(publish_fit(tmp_path / "fit"))
    assert asdict(found) == asdict(
        Fit(
            **WHO,
            steps=30,
            fingerprint=found.fingerprint,
            config=CONFIG,
            inputs=INPUTS,
            scores=(score("a"), ABSENT, score("b")),
        )
    )
    assert found.name == "bcv-unet-real-f0-s1"
    assert len(found.fingerprint) == 16


def test_the_columns_are_the_ones_others_read(tmp_path: Path) -> None:
    table = pq.read_table(publish_fit(tmp_path / "fit") / SCORES)
    own = [
        "case",
        "patient",
        "label",
        "organ",
        "outcome",
        "dice",
        "nsd",
        "reference_ml",
        "predicted_ml",
    ]
    assert table.column_names == own
    assert table["dice"].to_pylist() == [1 / 3, None, 1 / 3]
    write_results(tmp_path / "all", [fit()])
    names = pq.read_table(tmp_path / "all").column_names
    assert names == ["dataset", "arch", "arm", "fold", "seed", "steps", "fit", *own]


def test_results_survive_the_round_trip(tmp_path: Path) -> None:
    """Every fit with its own config and inputs."""
    other = {"evidence": "real", "finetuning": {"training": {"steps": 7}, "crop": [96, 96, 96]}}
    fits = [
        fit(0, "ab", scores=(score("a"), ABSENT, score("b"))),
        fit(1, "cd"),
        fit(0, "ab", arm="scratch", config=other, inputs={"encoder/unet": "e" * 16}, steps=7),
        fit(0, "ab", seed=2**40),
    ]
    write_results(tmp_path / "results.parquet", fits)
    found = read_results(tmp_path / "results.parquet")
    assert sorted(found, key=lambda f: f.name) == sorted(fits, key=lambda f: f.name)


def test_equal_fits_in_any_order_give_equal_bytes(tmp_path: Path, rng: np.random.Generator) -> None:
    fits = [
        fit(fold, cases, seed=s) for fold, cases in enumerate(("ab", "cd", "ef")) for s in (1, 2)
    ]
    write_results(tmp_path / "one", fits)
    shuffled = [
        replace(fits[i], scores=fits[i].scores[::-1], config=dict(reversed(CONFIG.items())))
        for i in rng.permutation(len(fits))
    ]
    write_results(tmp_path / "other", shuffled)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_patient_whom_two_of_three_folds_score_is_a_leak(tmp_path: Path) -> None:
    leaking = [fit(0, "ab"), fit(1, "bc"), fit(2, "d")]
    with pytest.raises(Refused, match=r"E_FOLDS_LEAK: patient pb .*-real-f0-s1, .*-real-f1-s1,"):
        write_results(tmp_path / "results", leaking)
    assert not (tmp_path / "results").exists()


def test_whom_every_fold_scores_was_held_out_of_all() -> None:
    demand_no_leak([fit(0, "ah"), fit(1, "bh"), fit(2, "ch")])


def test_nobody_is_scored_by_a_fit_that_learned_from_them(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"E_FOLDS_LEAK: .* learned from pa and is asked"):
        write_scores(tmp_path, [score("a"), score("b")], ["pa", "pc"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("field", ["dataset", "arch", "arm", "seed"])
def test_another_run_may_score_the_same_case_in_another_fold(field: str) -> None:
    demand_no_leak([fit(0), fit(1, **{field: 9 if field == "seed" else "other"})])


def test_each_fit_stands_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"two fits have the name bcv-unet-real-f0-s1 .*one .*two"):
        write_results(tmp_path / "r", [fit(fingerprint="one"), fit(fingerprint="two")])
    with pytest.raises(ValueError, match="two fits have the fingerprint same"):
        write_results(
            tmp_path / "r", [fit(0, "a", fingerprint="same"), fit(1, "b", fingerprint="same")]
        )


@pytest.mark.parametrize("scores", [(), (score("a"), score("a"))])
def test_a_fit_scores_something_and_nothing_twice(scores: tuple[Score], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one, and each once"):
        write_scores(tmp_path, scores, [])
    with pytest.raises(ValueError, match=r"bcv-unet-real-f0-s1: .* at least one, and each once"):
        write_results(tmp_path / "r", [fit(scores=scores)])


def test_an_unfinished_fit_is_refused(tmp_path: Path) -> None:
    partial_of(tmp_path / "fit").mkdir()
    with pytest.raises(Refused, match=r"E_FIT_DAMAGED: .*no record\.json.*fit\.partial is there"):
        open_fit(tmp_path / "fit")


def test_what_is_no_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="its record says 'encoder'; a fit was asked for"):
        open_fit(publish_fit(tmp_path / "encoder", kind="encoder"))
    with pytest.raises(Refused, match="its recipe is not one of a fit: 'finetuning' is not there"):
        open_fit(publish_fit(tmp_path / "results", recipe={"any": 1}))


def lost(path: Path) -> None:
    path.unlink()


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "harm", "cause"),
    [
        (SCORES, lost, "it is missing"),
        (SCORES, flipped, r"its sha256 is not the one in record\.json"),
        (RECORD, flipped, "is damaged"),
    ],
)
def test_a_damaged_fit_is_refused_with_the_file(
    file: str, harm: Callable[[Path], None], cause: str, tmp_path: Path
) -> None:
    folder = publish_fit(tmp_path / "fit")
    harm(folder / file)
    with pytest.raises(Refused, match=f"E_FIT_DAMAGED: .*{file} .*{cause}.* - finish the run"):
        open_fit(folder)


def test_no_flipped_bit_of_results_reads_as_another_result(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "results.parquet"
    write_results(path, [fit(0, "ab"), fit(1, "cd")])
    good, fits = path.read_bytes(), read_results(path)
    for at in rng.choice(len(good), 100, replace=False):
        data = bytearray(good)
        data[at] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        with suppress(Refused):
            assert read_results(path) == fits


def rewritten(path: Path, change: Callable[[Any, dict[str, Any]], Any]) -> None:
    """The same file after `change(table, what it says of itself)` returned another table."""
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"synth-ct"])
    table = change(table, about)
    pq.write_table(table.replace_schema_metadata({b"synth-ct": json.dumps(about)}), path)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda table, about: (about.update(layout=2), table)[1], "its layout is 2, and this"),
        (lambda table, about: (about.clear(), table)[1], "its layout is not said"),
        (lambda table, about: table.drop_columns("nsd"), "its columns are dataset, arch, .*_ml"),
        (lambda table, about: table.slice(1), "its rows do not match its digest"),
        (lambda table, about: (about["fits"].clear(), table)[1], "is incomplete"),
        (
            lambda table, about: (about["fits"]["bcv-unet-real-0-1"]["config"].clear(), table)[1],
            "its rows do not match its digest",
        ),
    ],
)
def test_results_of_another_version_or_hand_are_refused(
    change: Callable[[Any, dict[str, Any]], Any], cause: str, tmp_path: Path
) -> None:
    path = tmp_path / "results.parquet"
    write_results(path, [fit()])
    rewritten(path, lambda table, about: table)
    assert read_results(path) == [fit()]
    rewritten(path, change)
    with pytest.raises(Refused, match=f"E_FIT_DAMAGED: .*{cause}"):
        read_results(path)


def test_missing_or_torn_results_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    with pytest.raises(Refused, match="it is missing"):
        read_results(path)
    write_results(path, [fit()])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(Refused, match="it cannot be read"):
        read_results(path)

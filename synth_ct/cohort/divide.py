"""Patients into train, val and test; no patient ever stands in two of them."""

from collections.abc import Mapping, Sequence

from synth_ct.cohort.case import Found, Split
from synth_ct.kit.seeds import numpy_random

VAL_SHARE = 0.1
TEST_SHARE = 0.1


def eighty_ten_ten(patients: Mapping[str, Sequence[Found]], seed: int) -> dict[str, Split]:
    """80 % train, 10 % val, 10 % test of the patients, drawn by seed from their sorted names.

    From three patients on, val and test get at least one each.
    """
    names = sorted(patients)
    numpy_random(seed, "divide").shuffle(names)
    val, test = held_apart(len(names))
    splits: dict[str, Split] = dict.fromkeys(names[:test], "test")
    splits.update(dict.fromkeys(names[test : test + val], "val"))
    splits.update(dict.fromkeys(names[test + val :], "train"))
    return splits


def held_apart(patients: int) -> tuple[int, int]:
    """How many of them `eighty_ten_ten` gives to val and to test."""
    least = 1 if patients >= 3 else 0
    val, test = (max(least, round(share * patients)) for share in (VAL_SHARE, TEST_SHARE))
    return val, test


def all_train(patients: Mapping[str, Sequence[Found]], seed: int) -> dict[str, Split]:
    """Every patient to train: labelled sets are cross-validated later, by folds of their own."""
    del seed
    return dict.fromkeys(patients, "train")

"""Patients into parts: by seed, in the promised shares, none in two."""

from collections import Counter

import pytest

from synth_ct.cohort.divide import all_train, eighty_ten_ten


def patients(count: int) -> dict[str, list]:
    return {f"p{i:03d}": [] for i in range(count)}


@pytest.mark.parametrize(
    ("count", "parts"),
    [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (10, (8, 1, 1)), (200, (160, 20, 20))],
)
def test_the_shares_are_80_10_10_and_no_part_is_empty_from_three_on(
    count: int, parts: tuple[int, int, int]
) -> None:
    found = Counter(eighty_ten_ten(patients(count), 0).values())
    assert (found["train"], found["val"], found["test"]) == parts


def test_the_seed_alone_decides_who_is_where() -> None:
    first = eighty_ten_ten(patients(50), 0)
    assert eighty_ten_ten(dict(reversed(patients(50).items())), 0) == first
    assert eighty_ten_ten(patients(50), 1) != first
    in_name_order = [first[name] for name in sorted(first)]
    assert in_name_order != sorted(in_name_order)


def test_labelled_sets_are_divided_later() -> None:
    assert set(all_train(patients(5), 0).values()) == {"train"}

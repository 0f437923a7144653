"""A patient is in one part, whoever else there is."""

from collections import Counter

from synth_ct.corpus import split_of


def test_eight_in_ten_patients_train_and_one_each_validates_and_tests() -> None:
    counts = Counter(split_of(f"p{number:016x}") for number in range(20_000))
    assert abs(counts["train"] - 16_000) < 200
    assert abs(counts["val"] - 2_000) < 200
    assert abs(counts["test"] - 2_000) < 200


def test_the_part_of_a_patient_is_fixed_for_ever_and_another_seed_divides_anew() -> None:
    parts = [split_of(f"p{number}") for number in range(12)]
    assert "".join(part[:2] for part in parts) == "trtrtrtrtrtrtetrtrtrtrte"
    others = [split_of(f"p{number}", seed=1) for number in range(1000)]
    same = sum(a == split_of(f"p{n}") for n, a in enumerate(others))
    assert 600 < same < 720  # 0.8^2 + 0.1^2 + 0.1^2 = 0.66 of independent divisions

"""A dead run ends, and says of what; a living one is left alone."""

import pytest

from pretrain.alarms import Alarms, Collapsed, watched

ALARMS = Alarms(after=10, over=5)


def run(rows: int, **values: float) -> list[int]:
    seen: list[int] = []
    log = watched(lambda step, row: seen.append(step), ALARMS, batch=4)
    for step in range(1, rows + 1):
        log(step, {f"pretrain/{name}": value for name, value in values.items()})
    return seen


@pytest.mark.parametrize(
    ("name", "dead", "alive"),
    [
        ("feature_sd", 1e-5, 0.1),
        ("rotation_accuracy", 0.26, 0.8),
        ("contrastive_over_log_n", 0.995, 0.7),
    ],
)
def test_each_alarm_goes_off_for_its_own_reason(name: str, dead: float, alive: float) -> None:
    with pytest.raises(Collapsed, match=rf"step 11.*{name}"):
        run(40, **{name: dead})
    assert run(40, **{name: alive}) == list(range(1, 41))


def test_nothing_is_said_before_it_could_be_known() -> None:
    assert len(run(10, feature_sd=0.0)) == 10


def test_rows_before_the_alarm_are_logged() -> None:
    seen: list[int] = []
    log = watched(lambda step, row: seen.append(step), ALARMS, batch=4)
    for step in range(1, 11):
        log(step, {"a/feature_sd": 0.0})
    with pytest.raises(Collapsed):
        log(11, {"a/feature_sd": 0.0})
    assert seen[-1] == 11

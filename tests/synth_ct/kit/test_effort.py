"""What a stage tells while it prepares and while it trains."""

from pathlib import Path

from synth_ct.kit.effort import Effort, place_of
from synth_ct.kit.progress import Tick


class Bars:
    """Every bar that was begun: how much there was to do, and each tick."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, list[int]]] = []

    def begin(self, total: int) -> Tick:
        ticks: list[int] = []
        self.begun.append((total, ticks))

        def tick(done: int = 1, note: str = "", /) -> None:
            ticks.append(done)

        return tick


def test_the_bar_of_a_training_begins_with_its_first_row(tmp_path: Path) -> None:
    """One begun before would hide that of the preparation."""
    bars = Bars()
    place = place_of(tmp_path, 10, Effort(begin=bars.begin))
    told = place.begin(3)
    told(3)
    assert bars.begun == [(3, [3])]
    place.log(4, {"a/total": 1.0})
    place.log(5, {"a/total": 1.0})
    assert bars.begun == [(3, [3]), (10, [4, 1])]

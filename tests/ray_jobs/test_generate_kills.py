"""A driver and three actors die by kill -9 over one corpus (`make chaos` kills fifty)."""

from pathlib import Path

import pytest
from corpus_kills import Prey
from fake_maker import LoadFake, fake_order

from ray_jobs.generate import Pool
from synth_ct.corpus.receipts import fold
from synth_ct.kit.effort import Effort
from synth_ct.production.local import Processes
from synth_ct.production.produce import produce

ITEMS = 100


def test_killed_drivers_and_actors_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    prey = Prey(workspace=tmp_path / "a", items=ITEMS, seconds=0.05, dying=(90,))
    prey.hunt(2, driver=True)
    digest = prey.hunt(1, driver=False)
    assert (prey.drivers, prey.actors) == (1, 3)
    order = fake_order(ITEMS)
    assert {entry.id for entry in fold(prey.workspace).entries()} == {i.id for i in order.items}
    assert len(list(prey.workspace.glob("volumes/*/*"))) == ITEMS
    whole = tmp_path / "whole"
    whole.mkdir()
    load = LoadFake(workspace=whole)
    assert digest == produce(order, whole, load, Processes(count=1), Effort()).digest
    before = {p: p.stat().st_mtime_ns for p in prey.workspace.glob("volumes/*/*")}
    # Ray is not even started here: a run that has nothing to do needs no actors.
    again = produce(order, prey.workspace, _nobody, Pool(least=2, most=2), Effort())
    assert again.digest == digest
    assert before == {p: p.stat().st_mtime_ns for p in prey.workspace.glob("volumes/*/*")}


def _nobody() -> None:
    pytest.fail("somebody was asked to load")

"""Fifty kills over one corpus: none lost, none twice, and the bytes of an undisturbed run.

Drivers that die with a Ray of their own, drivers of a cluster that stays (whose actors may still
write for a moment), and actors; and some actors die of themselves between a volume and its receipt.
"""

import os
from collections import Counter
from pathlib import Path

import pytest
from corpus_kills import Prey
from fake_maker import LoadFake, fake_order

from ray_jobs.cluster import connect
from ray_jobs.generate import Pool
from synth_ct.corpus.manifest import read_manifest
from synth_ct.kit.effort import Effort
from synth_ct.production.local import Processes
from synth_ct.production.produce import produce

ITEMS, DYING = 800, (90, 270, 450)
ALONE, JOINED = 5, 20
TESTS = Path(__file__).parents[1]


@pytest.mark.chaos
def test_fifty_kills_lose_nothing_and_double_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS)]))
    prey = Prey(workspace=tmp_path / "a", items=ITEMS, seconds=0.05, dying=DYING)
    for _ in range(ALONE):
        prey.hunt(1, driver=True)
    with connect(cpus=8):
        import ray

        monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
        for _ in range(JOINED):
            prey.hunt(1, driver=True)
        monkeypatch.delenv("RAY_ADDRESS")
    digest = prey.hunt(1, driver=False)
    assert (prey.drivers, prey.actors) == (25, 26)
    assert len(list(prey.workspace.glob(".died-*"))) == len(DYING)
    assert digest == undisturbed(tmp_path)
    ids = Counter(row.id for row in read_manifest(prey.workspace))
    assert ids == Counter(item.id for item in fake_order(ITEMS).items)
    before = {p: p.stat().st_mtime_ns for p in prey.workspace.glob("volumes/*/*")}
    assert len(before) == ITEMS
    again = produce(fake_order(ITEMS), prey.workspace, nobody, Pool(least=2, most=2), Effort())
    assert again.digest == digest
    assert before == {p: p.stat().st_mtime_ns for p in prey.workspace.glob("volumes/*/*")}


def undisturbed(folder: Path) -> str:
    (folder / "whole").mkdir()
    load = LoadFake(workspace=folder / "whole")
    executor = Processes(count=1)
    return produce(fake_order(ITEMS), folder / "whole", load, executor, Effort()).digest


def nobody() -> None:
    pytest.fail("somebody was asked to load")

"""The corpus on real Ray actors: the same as processes make, whatever dies or is wrong."""

import os
import signal
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fake_maker import LoadFake, fake_order

from ray_jobs import generate
from ray_jobs.cluster import connect
from ray_jobs.generate import Pool, demand_cpus, demand_gpus
from synth_ct.corpus.about import About
from synth_ct.corpus.layout import SOURCES
from synth_ct.corpus.receipts import FOLDED, fold
from synth_ct.kit.artifact import code_hash
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import REPORT
from synth_ct.production import work
from synth_ct.production.executor import Death, Executor
from synth_ct.production.local import Processes
from synth_ct.production.produce import produce
from synth_ct.production.work import BEGUN, Job, Make, Told, Worker

ITEMS = 48
pytestmark = pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")  # Ray's own


@pytest.fixture(scope="module", autouse=True)
def ray_of_our_own() -> Generator[None, None, None]:
    """One for all tests here; its actors import what these tests import."""
    tests = Path(__file__).parents[1]
    patch = pytest.MonkeyPatch()
    patch.delenv("RAY_ADDRESS", raising=False)
    patch.setenv("PYTHONPATH", os.pathsep.join([str(tests.parent), str(tests)]))
    with connect(cpus=4):
        yield
    patch.undo()


def made(workspace: Path, executor: Executor, **how: object) -> About:
    workspace.mkdir(parents=True, exist_ok=True)
    load = LoadFake(workspace=workspace, **how)  # type: ignore[arg-type]
    return produce(fake_order(ITEMS), workspace, load, executor, Effort())


def test_a_pool_makes_what_processes_make_though_one_actor_is_killed(tmp_path: Path) -> None:
    killed: list[int] = []
    assassin = threading.Thread(target=kill_first_actor, args=(tmp_path / "two", killed))
    assassin.start()
    two = made(tmp_path / "two", Pool(least=2, most=2), seconds=0.05)
    assassin.join()
    assert killed
    local = made(tmp_path / "local", Processes(count=1))
    assert two == local
    assert two.counts.committed == ITEMS
    elastic = made(tmp_path / "elastic", Pool(least=1, most=3))
    assert elastic == local
    for folder in (tmp_path / "two", tmp_path / "elastic"):
        told = [p for p in folder.rglob("*") if p.is_file() and b"/films/" in p.read_bytes()]
        assert [p.name for p in told] == [SOURCES]


def kill_first_actor(workspace: Path, killed: list[int]) -> None:
    """As soon as one has committed something."""
    for _ in range(6000):
        for path in workspace.glob("receipts/*.jsonl"):
            if path.name != FOLDED:
                killed.append(int(path.name.split("-")[0]))
                os.kill(killed[0], signal.SIGKILL)
                return
        time.sleep(0.01)


def test_an_item_that_kills_its_actor_is_set_aside_after_three_deaths(tmp_path: Path) -> None:
    pool = Pool(least=1, most=1)
    about = made(tmp_path / "a", pool, killers=frozenset("5"), kill_once=frozenset({"17"}))
    assert about.codes == {"E_CRASH": 1}
    assert about.counts.committed == ITEMS - 1
    undisturbed = made(tmp_path / "b", Processes(count=1), corrupt=frozenset("5"))
    assert about.digest == undisturbed.digest
    (entry,) = fold(tmp_path / "a").quarantined()
    assert entry.id == fake_order(ITEMS).items[5].id
    assert "3 times" in entry.cause
    told = [p for p in (tmp_path / "a").rglob("*") if p.is_file() and b"/films/" in p.read_bytes()]
    assert {p.name for p in told} == {SOURCES, REPORT}


@dataclass(frozen=True, kw_only=True)
class LoadMistaken(LoadFake):
    """Its maker has a mistake in it; or it cannot even be loaded."""

    loads: bool = True

    def __call__(self) -> Make:  # type: ignore[override]
        if not self.loads:
            raise ValueError("there is no generator here")
        return Mistaken()


class Mistaken:
    together = 4

    def read(self, item: object) -> object:
        return item

    def volumes(self, films: object) -> list[object]:
        raise AttributeError("the maker has a mistake")

    def keep(self, item: object, volume: object) -> object:
        return item


@pytest.mark.parametrize(
    ("loads", "what"), [(True, "the maker has a mistake"), (False, "there is no generator here")]
)
def test_a_mistake_in_the_code_ends_the_run_and_says_which(
    tmp_path: Path, loads: bool, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "LOADS_THAT_MAY_DIE", 0)
    load = LoadMistaken(workspace=tmp_path, loads=loads)
    with pytest.raises(RuntimeError, match=f"nothing that was finished is lost: .*{what}"):
        produce(fake_order(ITEMS), tmp_path, load, Pool(least=1, most=1), Effort())


def test_a_full_disk_stops_cleanly_and_what_is_committed_stays(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk is full"):
        made(tmp_path / "a", Pool(least=1, most=1), full_disk=frozenset({"30"}))
    assert 0 < len(fold(tmp_path / "a")) < ITEMS
    again = made(tmp_path / "a", Processes(count=1))
    assert again.digest == made(tmp_path / "b", Processes(count=1)).digest


@dataclass(frozen=True, kw_only=True)
class LoadAsked(LoadFake):
    """Over its items it is asked to end, as a machine that goes down asks."""

    def __call__(self) -> Make:  # type: ignore[override]
        return Asked()


class Asked(Mistaken):
    together = 1

    def volumes(self, films: object) -> list[object]:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        return []


def test_an_actor_that_is_asked_to_end_accuses_nobody_and_only_once(tmp_path: Path) -> None:
    items = fake_order(1).items
    job = Job(workspace=tmp_path, run="r", load=LoadAsked(workspace=tmp_path), code=code_hash())
    pool = Pool(least=1, most=1)
    (tmp_path / BEGUN / job.run).mkdir(parents=True)
    assert list(pool.alone(job, items)) == [Death(items[0].id, guilty=False)]
    killer = LoadFake(workspace=tmp_path, killers=frozenset("0"))
    (death,) = pool.alone(replace(job, load=killer), items)
    assert death == Death(items[0].id, guilty=True)
    assert not isinstance(death, Told)


def test_a_worker_with_other_code_than_its_driver_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(workspace=tmp_path, run="r", load=LoadFake(workspace=tmp_path), code=code_hash())
    Worker(job)
    monkeypatch.setattr(work, "code_hash", lambda: "other")
    with pytest.raises(RuntimeError, match=r"code is other and its driver's .*--working-dir"):
        Worker(job)


# ---- demands -----------------------------------------------------------------------------------


def cluster_of(monkeypatch: pytest.MonkeyPatch, *there: dict[str, float]) -> list[object]:
    """Its resources, one look after another; returns what is requested of it."""
    import ray
    from ray.autoscaler import sdk

    looks, requested = list(there), []  # type: ignore[var-annotated]
    monkeypatch.setattr(
        ray, "cluster_resources", lambda: looks.pop(0) if len(looks) > 1 else looks[0]
    )
    monkeypatch.setattr(sdk, "request_resources", lambda *, bundles: requested.append(bundles))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return requested


def test_gpus_that_are_not_there_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster_of(monkeypatch, {"CPU": 4.0, "GPU": 1.0})
    with pytest.raises(ValueError, match=r"need 2; the cluster has 1; .*--wait-gpus"):
        demand_gpus(Pool(least=2, most=4, gpus=1.0), 0)
    demand_gpus(Pool(least=1, most=4, gpus=1.0), 0)
    demand_gpus(Pool(least=2, most=4, gpus=0.5), 0)


def test_waiting_for_gpus_says_so_and_goes_on_when_they_come(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requested = cluster_of(monkeypatch, {}, {"GPU": 1.0}, {"GPU": 2.0})
    monkeypatch.setattr(generate, "STATUS_EVERY_S", 0.0)
    demand_gpus(Pool(least=1, most=2, gpus=1.0), 2)
    assert capsys.readouterr().err.splitlines() == [
        "waiting for 2 GPUs: 0 there, 0 s",
        "waiting for 2 GPUs: 1 there, 0 s",
    ]
    assert requested == [[{"GPU": 1.0}] * 2] * 2 + [[]], "nothing is asked for when it is over"


def test_more_actors_than_cpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster_of(monkeypatch, {"CPU": 2.0})
    demand_cpus(Pool(least=2, most=8))
    with pytest.raises(ValueError, match="3 actors need 3 CPUs and the cluster has 2; ask for"):
        demand_cpus(Pool(least=3, most=8))

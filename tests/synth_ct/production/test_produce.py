"""Every item once: whatever dies, refuses or runs full on the way, and whoever works."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_maker import LoadFake, fake_order

from synth_ct.corpus.about import About
from synth_ct.corpus.layout import volume_file
from synth_ct.corpus.receipts import fold
from synth_ct.corpus.sources import read_sources
from synth_ct.kit.effort import Effort
from synth_ct.kit.quarantine import SetAside, read_report
from synth_ct.production.local import Processes
from synth_ct.production.produce import Order, produce


def made(workspace: Path, count: int = 40, *, workers: int = 2, **how: object) -> About:
    workspace.mkdir(parents=True, exist_ok=True)
    load = LoadFake(workspace=workspace, **how)  # type: ignore[arg-type]
    return produce(fake_order(count), workspace, load, Processes(count=workers), Effort())


def test_one_worker_and_three_make_the_same_corpus(tmp_path: Path) -> None:
    one = made(tmp_path / "one", workers=1)
    three = made(tmp_path / "three", workers=3)
    assert one == three
    assert one.counts.committed == one.counts.total == 40
    for item in fake_order(40).items:
        a, b = ((tmp_path / name / volume_file(item.id)).read_bytes() for name in ("one", "three"))
        assert a == b


def test_every_item_ends_in_one_place(tmp_path: Path) -> None:
    about = made(tmp_path / "a", corrupt=frozenset({"3", "9"}), rejected=frozenset({"4"}))
    counts = about.counts
    assert (counts.total, counts.committed, counts.rejected, counts.quarantined) == (40, 37, 1, 2)
    assert about.codes == {"E_IMG_TRUNCATED": 2}
    assert [row.file for row in read_report(tmp_path / "a")] == ["/films/3.png", "/films/9.png"]
    others = made(tmp_path / "b", corrupt=frozenset({"3", "9"}))
    assert others.counts.committed == 38
    same = {item.id for item in fake_order(40).items if item.finding not in {"3", "4", "9"}}
    rows = {r.id: r.voxel_sha256 for r in fold(tmp_path / "a").rows() if r.accepted}
    assert same == set(rows), "a refused item shifts nobody else's seed"
    assert rows.items() <= {r.id: r.voxel_sha256 for r in fold(tmp_path / "b").rows()}.items()


def test_an_item_that_kills_its_worker_is_found_and_the_others_are_made(tmp_path: Path) -> None:
    about = made(tmp_path / "a", killers=frozenset({"5", "21"}))
    assert about.counts.committed == 38
    assert about.codes == {"E_CRASH": 2}
    undisturbed = made(tmp_path / "b", corrupt=frozenset({"5", "21"}))
    assert about.digest == undisturbed.digest


def test_a_death_between_file_and_receipt_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    about = made(tmp_path / "a", kill_once=frozenset({"0", "17", "30"}))
    assert about.digest == made(tmp_path / "b").digest
    assert about.counts.total == about.counts.committed == 40


def test_a_full_disk_stops_cleanly_and_what_is_committed_stays(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk is full"):
        made(tmp_path / "a", full_disk=frozenset({"30"}))
    done = len(fold(tmp_path / "a"))
    assert 0 < done < 40
    about = made(tmp_path / "a")
    assert about.digest == made(tmp_path / "b").digest


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    first = made(tmp_path / "a")
    before = os.stat(tmp_path / "a" / volume_file(fake_order(1).items[0].id)).st_mtime_ns
    # Whoever would start a worker now would die of it.
    assert made(tmp_path / "a", killers=frozenset(map(str, range(40)))) == first
    assert os.stat(tmp_path / "a" / volume_file(fake_order(1).items[0].id)).st_mtime_ns == before


def test_quarantined_items_are_tried_again_when_asked(tmp_path: Path) -> None:
    made(tmp_path / "a", corrupt=frozenset({"3"}), killers=frozenset({"4"}))
    load = LoadFake(workspace=tmp_path / "a")
    retry = frozenset({"E_IMG_TRUNCATED"})
    about = produce(fake_order(40), tmp_path / "a", load, Processes(count=1), Effort(), retry=retry)
    assert about.codes == {"E_CRASH": 1}
    assert about.counts.committed == 39
    assert len(list((tmp_path / "a" / "quarantine").glob("*/*.json"))) == 1


def test_copies_are_counted_and_their_names_stay_in_the_local_report(tmp_path: Path) -> None:
    copy = SetAside(code="duplicate", file="ward/Doe_Jane.png", cause="of 1.png", kept="1.png")
    order = replace(fake_order(5), set_aside=(copy,))
    (tmp_path / "a").mkdir()
    load = LoadFake(workspace=tmp_path / "a")
    about = produce(order, tmp_path / "a", load, Processes(count=1), Effort())
    counts = about.counts
    assert (counts.total, counts.committed, counts.quarantined, counts.duplicates) == (6, 5, 1, 1)
    (row,) = read_report(tmp_path / "a")
    assert (row.file, row.kept) == ("ward/Doe_Jane.png", "1.png")
    shared = [p for p in (tmp_path / "a").rglob("*") if p.is_file() and p.name != "quarantine.json"]
    assert not [p for p in shared if b"Doe_Jane" in p.read_bytes()]


def test_quarantine_of_what_is_gone_is_forgotten_and_its_volumes_stay(tmp_path: Path) -> None:
    """The archive may change until the corpus is finished."""
    (tmp_path / "a").mkdir()
    load = LoadFake(workspace=tmp_path / "a", corrupt=frozenset({"2"}))
    copy = SetAside(code="duplicate", file="copy.png", cause="of 1.png", kept="1.png")
    hands = (load, Processes(count=1), Effort())
    before = produce(replace(fake_order(5), set_aside=(copy,)), tmp_path / "a", *hands)
    assert before.counts.quarantined == 2
    order = fake_order(5)
    left = replace(order, items=[item for item in order.items if item.finding not in {"2", "4"}])
    after = produce(left, tmp_path / "a", *hands)
    assert (after.counts.total, after.counts.committed, after.counts.quarantined) == (4, 4, 0)
    assert not list((tmp_path / "a" / "quarantine").glob("*/*.json"))
    gone = next(item for item in order.items if item.finding == "4")
    assert read_sources(tmp_path / "a")[gone.id] == gone.path


def test_who_came_from_which_file_is_written_down_here_only(tmp_path: Path) -> None:
    made(tmp_path / "a", count=5)
    with (tmp_path / "a" / "sources.csv").open(newline="") as file:
        paths = {row["id"]: row["path"] for row in csv.DictReader(file)}
    assert paths == fake_order(5).names


def test_a_worker_that_cannot_start_is_an_error_and_nobodys_fault(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(RuntimeError, match=r"(?s)a worker failed.*no generator here"):
        produce(fake_order(4), tmp_path / "a", _no_generator, Processes(count=1), Effort())
    assert len(fold(tmp_path / "a")) == 0


def _no_generator() -> None:
    raise ValueError("no generator here")


DRIVER = """
import sys
from pathlib import Path
from fake_maker import LoadFake, fake_order
from synth_ct.kit.effort import Effort
from synth_ct.production.local import Processes
from synth_ct.production.produce import produce
if __name__ == "__main__":
    workspace = Path(sys.argv[1])
    load = LoadFake(workspace=workspace, seconds=0.02)
    print(produce(fake_order(60), workspace, load, Processes(count=2), Effort()).digest)
"""


def test_killed_drivers_lose_nothing_and_count_against_no_item(tmp_path: Path) -> None:
    """Four drivers die; the workers they leave behind die with them."""
    (tmp_path / "a").mkdir()
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "a")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for _ in range(4):
        done = len(_lines(tmp_path / "a"))
        driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while driver.poll() is None and len(_lines(tmp_path / "a")) < done + 5:
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == made(tmp_path / "b", count=60).digest


def _lines(workspace: Path) -> list[str]:
    return [
        json.loads(line)["id"]
        for path in workspace.glob("receipts/*.jsonl")
        for line in path.read_text().splitlines()
        if line.endswith("}")
    ]


def test_an_order_says_who_made_it_and_from_what() -> None:
    order = fake_order(3)
    assert isinstance(order, Order)
    assert len({item.seed for item in order.items}) == 3

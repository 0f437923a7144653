"""A corpus on Ray whose drivers and actors are killed on purpose while it is made."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from synth_ct.corpus.layout import RECEIPTS
from synth_ct.corpus.receipts import FOLDED

LOOK_EVERY_S = 0.01
PATIENCE_S = 300.0
DRIVER = """
import sys
from pathlib import Path
from fake_maker import LoadFake, fake_order
from ray_jobs.cluster import connect
from ray_jobs.generate import Pool
from synth_ct.kit.effort import Effort
from synth_ct.production.produce import produce
if __name__ == "__main__":
    workspace, count, seconds, dying = Path(sys.argv[1]), *sys.argv[2:]
    how = {"seconds": float(seconds), "kill_once": frozenset(dying.split(","))}
    load = LoadFake(workspace=workspace, **how)
    with connect(cpus=3) as cluster:
        workspace.with_suffix(".ray").write_text(str(cluster.logs.parents[2]))
        pool = Pool(least=2, most=2)
        print(produce(fake_order(int(count)), workspace, load, pool, Effort()).digest)
"""


@dataclass(kw_only=True)
class Prey:
    """A corpus in the making, and what was done to it."""

    workspace: Path
    items: int
    seconds: float
    dying: Sequence[int] = ()
    """Items over which an actor dies once, between their files and their receipt."""
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    drivers: int = 0
    actors: int = 0
    _known: set[Path] = field(default_factory=set)

    def hunt(self, actors: int, *, driver: bool) -> str:
        """One run: kill so many actors, then the driver or nobody; what a living driver says."""
        self.workspace.mkdir(exist_ok=True)
        self._known = set(self._receipts())
        run = self._started()
        self._await_commits(run, 1)
        for _ in range(actors):
            time.sleep(self.chance.uniform(0, 8 * self.seconds))
            self._kill_actor(run)
        if not driver:
            said, noise = run.communicate(timeout=PATIENCE_S)
            assert run.returncode == 0, noise
            self._is_quiet(noise)
            return said.strip()
        time.sleep(self.chance.uniform(0, 8 * self.seconds))
        assert run.poll() is None, "it finished between kills: give it more to do"
        run.kill()
        run.communicate()
        assert len(self.committed()) < self.items, "killed after the last commit"
        self.drivers += 1
        if "RAY_ADDRESS" not in os.environ:  # it leaves its own behind
            shutil.rmtree(self.workspace.with_suffix(".ray").read_text(), ignore_errors=True)
        return ""

    def committed(self) -> set[str]:
        """Ids with a whole receipt."""
        lines = [line for path in self._receipts() for line in path.read_text().splitlines(True)]
        return {line.split('"id":', 1)[1].split('"')[1] for line in lines if line.endswith("}\n")}

    def _receipts(self) -> list[Path]:
        return list((self.workspace / RECEIPTS).glob("*.jsonl"))

    def _started(self) -> subprocess.Popen[str]:
        script = self.workspace.with_suffix(".py")
        script.write_text(DRIVER)
        dying = ",".join(map(str, self.dying))
        command = [sys.executable, str(script), str(self.workspace), str(self.items)]
        command += [str(self.seconds), dying]
        tests = Path(__file__).parent
        path = os.pathsep.join([str(tests.parent), str(tests)])
        return subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _new(self) -> list[Path]:
        """Receipts of this run's actors, whose names begin with their process."""
        return [p for p in self._receipts() if p not in self._known and p.name != FOLDED]

    def _await_commits(self, run: subprocess.Popen[str], number: int) -> None:
        begun = time.monotonic()
        while len(self._living()) < number:
            assert run.poll() is None, run.communicate()[1]
            assert time.monotonic() - begun < PATIENCE_S, "nothing is committed"
            time.sleep(LOOK_EVERY_S)

    def _living(self) -> list[int]:
        pids = [int(path.name.split("-")[0]) for path in self._new()]
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def _kill_actor(self, run: subprocess.Popen[str]) -> None:
        """One that has committed something."""
        self._await_commits(run, 1)
        assert len(self.committed()) < self.items, "all is committed: give it more to do"
        os.kill(self.chance.choice(self._living()), signal.SIGKILL)
        self.actors += 1
        time.sleep(0.1)

    @staticmethod
    def _is_quiet(noise: str) -> None:
        for word in ("INFO", "WARNING", "core_worker", "Traceback", "Progress bars"):
            assert word not in noise, noise

"""A worker of Ray Train that dies in the middle, as machines make them."""

import os
import signal
import threading
import time
from pathlib import Path

from ray_jobs.train import newest_row


class Murder(threading.Thread):
    """Kills one worker of ours once so many rows are written."""

    def __init__(self, rows: Path, after: int) -> None:
        super().__init__(daemon=True)
        self.rows, self.after, self.at = rows, after, 0
        self.start()

    def run(self) -> None:
        while self.at < self.after:
            time.sleep(0.005)
            self.at, _ = newest_row(self.rows)
        os.kill(max(workers_of(os.getpid())), signal.SIGKILL)


def workers_of(pid: int) -> list[int]:
    """Processes of Ray Train below this one."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            titles[int(folder.name)] = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        parents[int(folder.name)] = int(state[1])

    def ours(each: int) -> bool:
        return each == pid or (each in parents and ours(parents[each]))

    return [
        p for p, title in titles.items() if title.startswith(b"ray::RayTrainWorker") and ours(p)
    ]

"""Worker processes end when whoever started them does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

DRIVER = """
import os, time
from pathlib import Path
from synth_ct.cohort.pool import worker_pool

if __name__ == "__main__":
    pool = worker_pool(1)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""


THREADS = """
from threadpoolctl import threadpool_info
from synth_ct.cohort.pool import worker_pool

if __name__ == "__main__":
    with worker_pool(1) as pool:
        print(max(library["num_threads"] for library in pool.submit(threadpool_info).result()))
"""


def test_a_worker_computes_on_one_thread(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(THREADS)
    free = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    said = subprocess.run(
        [sys.executable, str(tmp_path / "driver.py")],
        env=free,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "1\n"


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()


def test_a_killed_driver_leaves_no_worker_behind(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    driver = subprocess.Popen(
        [sys.executable, str(tmp_path / "driver.py")], stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    worker = int(driver.stdout.readline())
    assert is_alive(worker)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    until = time.monotonic() + 20
    while is_alive(worker) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_alive(worker)

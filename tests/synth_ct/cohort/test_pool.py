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
from synth_ct.cohort.pool import _pool

if __name__ == "__main__":
    pool = _pool(1)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(60)
"""


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

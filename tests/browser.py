"""A headless Chromium, driven over its debugging pipe: nothing to install but the browser."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SWITCHES = (
    "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist", "--hide-scrollbars",
)  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Where the browser is, if it is."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab: what it asked the network for, what went wrong in it, and a way to ask it things."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._session: str | None = None
        self._number = 0
        self._rest = b""
        self.requests: list[str] = []
        self.errors: list[str] = []

    def attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come meanwhile are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            said = self._read()
            if said.get("id") == self._number:
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result
            self._note(said)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._in, 1 << 20)
            assert piece, "the browser has gone"
            self._rest += piece
        line, self._rest = self._rest.split(b"\0", 1)
        said: dict[str, Any] = json.loads(line)
        return said

    def _note(self, said: dict[str, Any]) -> None:
        what, about = said.get("method"), said.get("params", {})
        if what == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"][:100])
        elif what == "Runtime.exceptionThrown":
            self.errors.append(str(about["exceptionDetails"])[:500])
        elif what == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
            self.errors.append(str(about["args"])[:500])
        elif what == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.errors.append(about["entry"]["text"])

    def open(self, file: Path, width: int = 1400, height: int = 900) -> None:
        mobile = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=mobile,
        )  # fmt: skip
        address = file.resolve().as_uri()
        self.call("Page.navigate", url=address)
        self.wait(f"location.href === {address!r} && document.readyState === 'complete'")

    def ask(self, expression: str) -> Any:
        """The value of JavaScript, promises awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 60.0) -> Any:
        """Until it is true."""
        return until(lambda: self.ask(expression), seconds, expression)

    def press(self, key: str) -> None:
        code = {"Enter": 13, "Tab": 9, "ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text,
            )  # fmt: skip

    def picture(self, **parameters: Any) -> bytes:
        import base64

        return base64.b64decode(
            self.call("Page.captureScreenshot", format="png", **parameters)["data"]
        )


def until(ask: Callable[[], Any], seconds: float, what: str) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := ask():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with a profile of its own, closed at the end."""
    executable = chromium()
    assert executable
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()

    # It reads commands at descriptor 3 and answers at 4, whatever numbers the pipes have here.
    wire = f'exec "$@" 3</dev/fd/{in_read} 4>/dev/fd/{out_write}'
    process = subprocess.Popen(
        ["sh", "-c", wire, "sh", executable, *SWITCHES, f"--user-data-dir={profile}"],
        pass_fds=(in_read, out_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(in_read)
    os.close(out_write)
    try:
        page = Page(in_write, out_read)
        page.attach()
        yield page
    finally:
        process.terminate()
        process.wait(30)
        os.close(in_write)
        os.close(out_read)

"""Debian's chromium without a window, spoken to by the DevTools protocol over its own two pipes.

A message is one JSON object and ends with a zero byte (chromium: --remote-debugging-pipe). That
needs no library, no port and no driver program.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ANSWER_S = 60.0


class Browser:
    """One chromium. What pages tell (console, requests, dialogs) is kept in `told`."""

    def __init__(self, process: subprocess.Popen[bytes], reading: int, writing: int) -> None:
        self._process = process
        self._reading, self._writing = reading, writing
        self._number = 0
        self._rest = b""
        self.told: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """One command and its answer. Raises AssertionError where chromium says that it failed."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._writing, data) :]
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            self.told.append(answer)

    def wait_for(self, method: str) -> dict[str, Any]:
        """The next thing of this kind that is told, also if it was told already."""
        while True:
            for number, message in enumerate(self.told):
                if message["method"] == method:
                    return self.told.pop(number)
            self.told.append(self._message())

    def _message(self) -> dict[str, Any]:
        until = time.monotonic() + ANSWER_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reading], [], [], max(until - time.monotonic(), 0))
            assert ready, "chromium does not answer"
            part = os.read(self._reading, 1 << 16)
            assert part, f"chromium has ended: {self._process.poll()}"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(text))

    def new_tab(self) -> Tab:
        """An empty page that tells of everything."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        return Tab(self, session)


class Tab:
    """One page of a browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command to this page."""
        return self._browser.call(method, self._session, **params)

    def open(self, path: Path) -> None:
        """Load a file, to the end."""
        self._browser.told.clear()
        answer = self.call("Page.navigate", url=path.as_uri())
        assert "errorText" not in answer, (path, answer)
        self._browser.wait_for("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives, or what its promise does."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def set_width(self, width: int, height: int = 900) -> None:
        """The width of the window in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def set_scheme(self, scheme: str, media: str = "screen") -> None:
        """`light` or `dark`, on the screen or printed (`media` print)."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", media=media, features=[feature])

    def print_pdf(self) -> bytes:
        """The page as it is printed, by its own size of paper."""
        answer = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        return base64.b64decode(answer["data"])

    def screenshot(self, width: int, height: int, scale: float = 1) -> bytes:
        """A PNG of the page's first `width` by `height` CSS pixels."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": scale}
        answer = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    def press(self, key: str, text: str = "") -> None:
        """A key, down and up; `text` is what it writes."""
        more = {"text": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **_code(key), **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, **_code(key))

    def type(self, words: str) -> None:
        """Each letter as a key of its own."""
        for letter in words:
            self.press(letter, letter)

    def troubles(self) -> list[str]:
        """What went wrong since the page was opened: console, exceptions, dialogs, requests."""
        troubles = []
        for message in self._browser.told:
            method, params = message["method"], message["params"]
            if method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith("file://"):
                    troubles.append(f"request of {url}")
            elif method in (
                "Runtime.consoleAPICalled",
                "Runtime.exceptionThrown",
                "Log.entryAdded",
                "Page.javascriptDialogOpening",
                "Network.loadingFailed",
            ):
                troubles.append(f"{method}: {json.dumps(params)[:500]}")
        return troubles


def _code(key: str) -> dict[str, int]:
    codes = {"Tab": 9, "Enter": 13, "Escape": 27}
    return {"windowsVirtualKeyCode": codes[key]} if key in codes else {}


def _pipe() -> list[int]:
    """Two descriptors above those that chromium is given."""
    low = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low]
    for end in low:
        os.close(end)
    return high


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """A chromium of this process' own, ended with the block."""
    to_reading, to_writing = _pipe()
    from_reading, from_writing = _pipe()
    with tempfile.TemporaryDirectory(prefix="slipway-chromium-") as folder:
        command = [
            "chromium",
            "--headless",
            "--no-sandbox",  # root has none; it opens our own files only
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            f"--user-data-dir={folder}",
            "--remote-debugging-pipe",
        ]
        # chromium reads commands from descriptor 3 and writes to 4.
        moved = f"3<&{to_reading} 4>&{from_writing} {to_reading}<&- {from_writing}>&-"
        process = subprocess.Popen(
            ["/bin/bash", "-c", f'exec "$@" {moved}', "chromium", *command],
            pass_fds=(to_reading, from_writing),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_reading)
        os.close(from_writing)
        browser = Browser(process, from_reading, to_writing)
        try:
            yield browser
            with contextlib.suppress(AssertionError, OSError):
                browser.call("Browser.close")
        finally:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(from_reading)
            os.close(to_writing)

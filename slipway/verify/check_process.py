"""The checks' own process: started, listened to, and ended with its containers removed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from slipway.core import Event, OnEvent, SlipwayError

if TYPE_CHECKING:
    import pytest  # the checks' own process has it; the one that starts them can do without

TESTINFRA = "pytest11.testinfra"
"""The name under which testinfra's own plugin is registered."""

_ENDING_S = 30.0
"""Time that an interrupted pytest gets to remove its containers."""

_LINES, _WIDE = 12, 300
"""Of a failure's message, as much as a person reads at once."""


class CheckLog:
    """What the checks' process has said so far."""

    def __init__(self, task: str, on_event: OnEvent) -> None:
        self.total = self.deselected = self.passed = self._begun = 0
        self.failures: list[str] = []
        self._task, self._on_event = task, on_event

    def listen(self, stream: IO[str]) -> None:
        """Read what slipway.verify.check_process writes, to its end."""
        for line in stream:
            report = json.loads(line)
            check = str(report.get("check", "")).removeprefix("tests/image/")
            if report["what"] == "start":
                self.total, self.deselected = report["total"], report["deselected"]
            elif report["what"] == "check":
                self._begun += 1
                step = check.rpartition("::")[2]
                event = Event("progress", self._task, step, current=self._begun, total=self.total)
                self._on_event(event)
            elif report["what"] == "passed":
                self.passed += 1
            else:
                self.failures.append(f"{check}: {_short(report['message'])}")


def _short(message: str) -> str:
    """The beginning of a message; a container's whole log may be in it, and is in the log file."""
    lines = [line[:_WIDE] for line in message.strip().splitlines()]
    return "\n    ".join(lines if len(lines) <= _LINES else [*lines[:_LINES], "..."])


def run_checks(
    command: list[str],
    root: Path,
    log: Path,
    timeout_s: float,
    task: str,
    on_event: OnEvent,
) -> tuple[CheckLog, int]:
    """Run `command`, a pytest with our plugin, in `root`; its exit code.

    What it prints goes to `log`. Raises SlipwayError when it takes longer than `timeout_s`.
    """
    reading, writing = os.pipe()
    heard = CheckLog(task, on_event)
    with os.fdopen(reading) as stream, log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--slipway-report={writing}"],
            cwd=root,
            # The logins of this host with it: the checks look for them in the image.
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[writing],
            start_new_session=True,  # a Ctrl-C is passed on below, once
        )
        os.close(writing)
        listener = threading.Thread(target=heard.listen, args=(stream,), daemon=True)
        listener.start()
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise SlipwayError(
                f"the checks did not end within {timeout_s:g} s", where=str(log)
            ) from error
        finally:
            _end(process)
            listener.join(_ENDING_S)
    return heard, code


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have an interrupted pytest remove its containers, then make sure that it is gone."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING_S)
    if process.poll() is None:
        process.kill()
        process.wait()


class CheckReporter:
    """Tells the caller, in JSON lines, what runs and how it ended."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._deselected = 0

    def _say(self, **fields: Any) -> None:
        self._stream.write(json.dumps(fields) + "\n")
        self._stream.flush()

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Count what needs a GPU; the others are deselected because they were not asked for."""
        self._deselected += sum(1 for item in items if item.get_closest_marker("gpu"))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """How many checks there will be."""
        self._say(what="start", total=len(session.items), deselected=self._deselected)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A check begins."""
        self._say(what="check", check=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A check passed, or one of its phases failed."""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            message = crash.message if crash else str(report.longrepr)
            self._say(what="failed", check=report.nodeid, message=message)
        elif report.skipped:
            # What is chosen must be able to run; what needs a GPU is deselected, not skipped.
            message = f"it left itself out: {report.longreprtext}"
            self._say(what="failed", check=report.nodeid, message=message)
        elif report.when == "call":
            self._say(what="passed", check=report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file of checks that cannot be read."""
        if report.failed:
            self._say(what="failed", check=report.nodeid, message=str(report.longrepr))

"""What the checks' process says to the one that started it: JSON lines on a pipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO, Any

import pytest


class Reporter:
    """Tells the caller, in JSON lines, what runs and how it ended."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._deselected = 0

    def _say(self, **fields: Any) -> None:
        self._stream.write(json.dumps(fields) + "\n")
        self._stream.flush()

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Only what needs a GPU is ever deselected."""
        self._deselected += len(items)

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

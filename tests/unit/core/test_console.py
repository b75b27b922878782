"""The lines of a terminal: one for each thing that runs, gone when it is done."""

from __future__ import annotations

import sys
from typing import Literal

import pytest

from slipway.core import Event, Reporter


@pytest.mark.parametrize("end", ["done", "failed", "cached"])
def test_the_line_of_what_has_ended_goes(
    end: Literal["done", "failed", "cached"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    reporter = Reporter()
    progress = reporter._progress
    assert progress is not None
    for kind in ("start", "progress"):
        reporter.on_event(Event(kind, "base local", "a step"))
    reporter.on_event(Event("start", "verify local"))
    assert len(progress.tasks) == 2
    reporter.on_event(Event(end, "base local", "a step"))
    assert len(progress.tasks) == 2
    reporter.on_event(Event(end, "base local"))
    assert [task.description for task in progress.tasks] == ["verify local"]

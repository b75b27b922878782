"""The lines of a terminal: one for each thing that runs, gone when it is done."""

from __future__ import annotations

import sys
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.core import Event, Reporter, console, print_table


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


def printed(capsys: pytest.CaptureFixture[str], rows: list[list[str]]) -> str:
    """What a table of these rows, headers first, is on a pipe."""
    print_table(rows[0], rows[1:])
    return capsys.readouterr().out


texts = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    st.text(max_size=8),
    st.just("a" * 300),
)
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(texts, min_size=width, max_size=width), min_size=1, max_size=5)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tables)
def test_a_table_on_a_pipe_is_as_rich_makes_it(
    capsys: pytest.CaptureFixture[str], rows: list[list[str]]
) -> None:
    quick = printed(capsys, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "_plain_table", lambda *_: None)
        assert printed(capsys, rows) == quick

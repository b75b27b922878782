"""Runs as bars: what each step took, and what the whole run waited for."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.report.builds_page import (
    INSTANT,
    MOST_ROWS,
    MOST_RUNS,
    builds_page,
    critical_path,
    run_timeline,
)
from tests.support.report_samples import BEGAN, run, run_step


def test_the_critical_path_leads_over_what_ended_last_each_time() -> None:
    steps = (
        run_step("pull", "", 0, 30),
        run_step("wheels", "", 0, 50),
        run_step("build", "", 50, 80),
        run_step("build", "RUN a", 52, 60),
        run_step("build", "RUN b", 52, 78),
        run_step("push", "", 82, 100),
    )
    path = critical_path(steps, BEGAN, BEGAN + 100)
    assert [(part.task, part.step, round(part.start), round(part.seconds)) for part in path] == [
        ("wheels", "", 0, 50),
        ("build", "", 50, 2),
        ("build", "RUN b", 52, 26),
        ("build", "", 78, 2),
        ("push", "", 82, 18),
    ]


interval = st.tuples(
    st.sampled_from(["build", "push"]),
    st.sampled_from(["", "a", "b", "c"]),
    st.floats(0, 100),
    st.floats(0, 50),
)


@settings(max_examples=50)
@given(st.lists(interval, max_size=25))
def test_no_second_is_waited_for_twice(
    intervals: list[tuple[str, str, float, float]],
) -> None:
    steps = [run_step(task, step, start, start + took) for task, step, start, took in intervals]
    last = max((step.end or 0.0 for step in steps), default=BEGAN)
    path = critical_path(steps, BEGAN, last)
    for before, after in itertools.pairwise(path):
        assert before.start + before.seconds <= after.start + 2 * INSTANT
    longest = max((step.end or 0.0) - step.start for step in steps) if steps else 0.0
    assert sum(part.seconds for part in path) <= last - BEGAN + len(path) * 2 * INSTANT
    assert path or longest < 2 * INSTANT


def test_short_parts_of_what_was_waited_for_are_one_line_together() -> None:
    steps = (run_step("a", "", 0, 60), run_step("b", "", 60, 60.2), run_step("c", "", 60.2, 100))
    timeline = run_timeline(run(*steps))
    assert [part.task for part in timeline.critical] == ["a", "c"]
    assert (timeline.short_parts, round(timeline.short_seconds, 3)) == (1, 0.2)


def test_cached_steps_and_bytes_are_counted() -> None:
    steps = (
        run_step("build", "RUN a", 1, 40, bytes=7),
        run_step("build", "RUN b", 5, 5, state="cached"),
    )
    timeline = run_timeline(run(*steps, seconds=40))
    assert timeline.cached == 1
    assert timeline.bytes == 7
    assert [row.critical for row in timeline.rows] == [True, False]


def test_many_steps_leave_the_shortest_out_and_count_them() -> None:
    steps = [run_step("build", "", 0, 500)]
    steps += [run_step("build", f"step {n}", n, n + 1 + n / 1000) for n in range(MOST_ROWS + 30)]
    timeline = run_timeline(run(*steps, seconds=500))
    assert timeline.left_out == 31
    assert len(timeline.rows) == MOST_ROWS
    assert "step 0" not in {row.step for row in timeline.rows}


def test_the_newest_runs_come_first_and_idle_ones_are_counted() -> None:
    busy = [run(run_step(f"build {n}", "", 0, 10)) for n in range(MOST_RUNS + 3)]
    page = builds_page([*busy, run()])
    assert page.runs[0].rows[0].task == f"build {MOST_RUNS + 2}"
    assert (len(page.runs), page.idle, page.recorded) == (MOST_RUNS, 1, MOST_RUNS + 4)


def test_stages_and_failures_of_a_run_are_read_from_its_notes() -> None:
    notes = (
        {"what": "stage", "image": "x", "name": "build", "fresh": True, "seconds": 3.5},
        {"what": "stage", "image": "x", "name": "verify", "skipped": True, "seconds": "odd"},
        {"what": "failure", "image": "x", "text": "no space"},
        {"what": "something new"},
    )
    timeline = run_timeline(run(run_step("build x", "", 0, 3.5), notes=notes))
    assert [(s.stage, s.fresh, s.skipped, s.seconds) for s in timeline.stages] == [
        ("build", True, False, 3.5),
        ("verify", False, True, 0.0),
    ]
    assert timeline.failures == (("x", "no space"),)

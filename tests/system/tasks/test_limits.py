"""A sample of bench/limits.py: what a task does on a machine that lacks something."""

from __future__ import annotations

import pytest

from bench.limits import LIMITS, Limit, run_limited

SAMPLE = [limit for limit in LIMITS if limit.name not in ("none", "256 processes", "SIGHUP")]


@pytest.mark.parametrize("limit", SAMPLE, ids=lambda limit: limit.name)
def test_a_task_that_fails_says_why_and_leaves_nothing_half_made(limit: Limit) -> None:
    ending = run_limited(limit, "sqsh --from {image}")
    assert ending.faults == []
    assert ending.code == 1
    if "std" not in limit.name and "SIGPIPE" not in limit.name:
        assert "inv sqsh.export: " in ending.text

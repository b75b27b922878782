"""How evenly ranks went, step by step: by a table, and by properties over any lines."""

from __future__ import annotations

import json
from dataclasses import asdict
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.cluster import JobReading
from slipway.report.job import job_pages
from slipway.report.job.job_log import RankLine, take_reading
from slipway.report.job.rank_evenness import LATE, MOST_LATE, MOST_POINTS, rank_evenness
from tests.support.report_samples import job_lines


def lines_of(*steps: dict[int, float]) -> list[RankLine]:
    return [
        RankLine(rank, float(step), seconds, None, None)
        for step, ranks in enumerate(steps, 1)
        for rank, seconds in ranks.items()
    ]


def test_the_spread_of_each_step_and_who_was_late() -> None:
    even = rank_evenness(
        lines_of({0: 1.0, 1: 1.0, 2: 1.0}, {0: 1.0, 1: 1.5, 2: 1.0}, {0: 2.0, 1: 1.75, 2: 1.0})
    )
    assert even is not None
    told = [(p.step, p.fastest, p.middle, p.slowest, p.slowest_rank) for p in even.points]
    assert told == [(1, 1, 1, 1, 0), (2, 1, 1, 1.5, 1), (3, 1, 1.75, 2, 0)]
    assert [(row.rank, row.steps, row.of_steps, row.lost) for row in even.late] == [
        (1, 1, 3, 0.5),
        (0, 1, 3, 0.25),
    ]
    # 1000 wide; of 190 the slowest of all takes all, half of it half
    assert even.line == ((0.0, 105.0), (500.0, 105.0), (1000.0, 33.8))
    assert even.band[:3] == ((0.0, 105.0), (500.0, 105.0), (1000.0, 105.0))
    assert even.band[3:] == ((1000.0, 10.0), (500.0, 57.5), (0.0, 105.0))


@pytest.mark.parametrize("steps", [(), ({0: 1.0},), ({0: 1.0}, {1: 2.0})])
def test_what_one_rank_alone_tells_has_no_spread(steps: tuple[dict[int, float], ...]) -> None:
    assert rank_evenness(lines_of(*steps)) is None


def test_a_straggler_of_one_step_in_a_million_is_on_the_page() -> None:
    steps = [{0: 1.0, 1: 1.0} for _ in range(7919)]
    steps[4321] = {0: 1.0, 1: 9.0}
    even = rank_evenness(lines_of(*steps))
    assert even is not None
    assert len(even.points) == MOST_POINTS
    assert max(even.points, key=lambda point: point.unevenness).step == 4322


seconds = st.dictionaries(st.integers(0, 40), st.floats(0, 1e6), max_size=40)


@given(st.lists(seconds, max_size=130))
def test_the_page_has_what_the_lines_have(steps: list[dict[int, float]]) -> None:
    even = rank_evenness(lines_of(*steps))
    told = {step: ranks for step, ranks in enumerate(steps, 1) if len(ranks) > 1}
    assert (even is None) == (not told)
    if even is None:
        return
    assert even.steps == len(told)
    assert len(even.points) == min(len(told), MOST_POINTS)
    for point in even.points:
        values = told[int(point.step)].values()
        assert (point.fastest, point.middle, point.slowest) == (
            *(min(values), median(values)),
            max(values),
        )
        assert told[int(point.step)][point.slowest_rank] == point.slowest
    late = {
        rank
        for ranks in told.values()
        for rank, took in ranks.items()
        if took > LATE * median(ranks.values())
    }
    assert len(even.late) + even.late_left_out == len(late)
    assert {row.rank for row in even.late} <= late
    assert len(even.late) <= MOST_LATE
    for x, y in (*even.band, *even.line):
        assert 0 <= x <= 1000
        assert 10 <= y <= 200


def test_lines_of_ranks_become_the_evenness_of_the_page_and_of_its_json() -> None:
    steps = [f'[r{rank}] {json.dumps({"step": step, "step_s": 1 + rank * step / 10})}'
             for step in (1, 2, 3) for rank in (0, 1)]  # fmt: skip
    lines = [line for line in job_lines() if not line.startswith("[r0]")] + steps
    reading = JobReading("job", "a sample", None, [line.encode() for line in lines])
    (page,) = job_pages(take_reading(reading))
    data = asdict(page)["evenness"]
    assert [point["slowest"] for point in data["points"]] == [1.1, 1.2, 1.3]
    assert [point["slowest_rank"] for point in data["points"]] == [1, 1, 1]
    assert [row["rank"] for row in data["late"]] == [1]  # 1.3 is above 1.1 times 1.15

"""How evenly the ranks of a job went: their seconds a step beside each other, step by step. Pure.

It is made of the JSON lines with `step` and `step_s` that two ranks or more have printed. Where
ranks wait for each other within a step, their seconds are all alike: a rank has to tell the time
of its own work to be seen as late.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from slipway.report.job.job_log import RankLine

MOST_POINTS = 60
"""Rows of the table, and points of the picture."""

MOST_LATE = 16
LATE = 1.1
"""A rank is late in a step that takes it more than this many times the ranks' median."""

_HIGH, _TOP = 200.0, 10.0  # of the picture: its height, and what stays free above the slowest


@dataclass(frozen=True)
class StepSpread:
    """One step over the ranks that told of it, in seconds."""

    step: float
    ranks: int
    fastest: float
    middle: float
    slowest: float
    slowest_rank: int
    unevenness: float  # the slowest by the median: 1 where all take as long


@dataclass(frozen=True)
class LateRank:
    """A rank that was late. `lost`: seconds above the median, in all of these steps."""

    rank: int
    steps: int
    of_steps: int  # that it told of
    lost: float


@dataclass(frozen=True)
class RankEvenness:
    """Of `steps` steps, where `points` has the most uneven one of each stretch.

    `band` (fastest and back along the slowest) and `line` (medians) are points of the picture:
    x 0..1000 by step, y 200 (0 s) to 10 (the slowest of all).
    """

    steps: int
    points: tuple[StepSpread, ...]
    late: tuple[LateRank, ...]
    late_left_out: int
    band: tuple[tuple[float, float], ...]
    line: tuple[tuple[float, float], ...]


def rank_evenness(lines: Iterable[RankLine]) -> RankEvenness | None:
    """Of the ranks' lines; None where no step has the seconds of two ranks."""
    told: dict[float, dict[int, float]] = {}
    for line in lines:
        if line.step is not None and line.seconds is not None and line.seconds >= 0:
            told.setdefault(line.step, {})[line.rank] = line.seconds
    spreads = [_spread(step, told[step]) for step in sorted(told) if len(told[step]) > 1]
    if not spreads:
        return None
    late = _late_ranks(told[spread.step] for spread in spreads)
    points = _worst_of_stretches(spreads)
    band, line_ = _picture(points)
    return RankEvenness(
        len(spreads), points, late[:MOST_LATE], max(len(late) - MOST_LATE, 0), band, line_
    )


def _spread(step: float, seconds: Mapping[int, float]) -> StepSpread:
    slowest = max(seconds, key=lambda rank: (seconds[rank], -rank))
    fastest, middle, most = min(seconds.values()), median(seconds.values()), seconds[slowest]
    unevenness = most / middle if middle > 0 else 1.0
    return StepSpread(step, len(seconds), fastest, middle, most, slowest, unevenness)


def _late_ranks(steps: Iterable[Mapping[int, float]]) -> tuple[LateRank, ...]:
    """Those that lost most first."""
    told: dict[int, int] = {}
    late: dict[int, list[float]] = {}
    for seconds in steps:
        middle = median(seconds.values())
        for rank, took in seconds.items():
            told[rank] = told.get(rank, 0) + 1
            if took > LATE * middle:
                late.setdefault(rank, []).append(took - middle)
    rows = [LateRank(rank, len(lost), told[rank], sum(lost)) for rank, lost in late.items()]
    return tuple(sorted(rows, key=lambda row: (-row.lost, row.rank)))


def _worst_of_stretches(spreads: list[StepSpread]) -> tuple[StepSpread, ...]:
    """One of each stretch of steps: a straggler of one step must not fall between two points."""
    count = min(MOST_POINTS, len(spreads))
    edges = [round(number * len(spreads) / count) for number in range(count + 1)]
    return tuple(
        max(spreads[start:end], key=lambda spread: spread.unevenness)
        for start, end in itertools.pairwise(edges)
    )


def _picture(
    points: tuple[StepSpread, ...],
) -> tuple[tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]]:
    first, last = points[0].step, points[-1].step
    most = max(point.slowest for point in points)
    if last <= first or most <= 0:
        return (), ()

    def place(step: float, seconds: float) -> tuple[float, float]:
        x = 1000 * (step - first) / (last - first)
        return round(x, 1), round(_HIGH - (_HIGH - _TOP) * seconds / most, 1)

    below = [place(point.step, point.fastest) for point in points]
    above = [place(point.step, point.slowest) for point in points]
    return (*below, *reversed(above)), tuple(place(p.step, p.middle) for p in points)

"""A job's steps, as its lowest rank tells them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slipway.report.job.job_log import RankLine

MOST_STEPS = 60
"""Rows of the table of steps, and points of the line beside it."""


@dataclass(frozen=True)
class StepPoint:
    """What a rank said of one step."""

    step: float
    seconds: float | None
    speed: float | None
    loss: float | None


def step_points(lines: Sequence[RankLine]) -> tuple[StepPoint, ...]:
    """What the lowest rank that tells of steps said, at even distances; the last one always."""
    lowest = min((line.rank for line in lines if line.step is not None), default=None)
    points = [
        StepPoint(line.step, line.seconds, line.speed, line.loss)
        for line in lines
        if line.rank == lowest and line.step is not None
    ]
    if len(points) <= MOST_STEPS:
        return tuple(points)
    every = (len(points) - 1) / (MOST_STEPS - 1)
    return tuple(points[round(number * every)] for number in range(MOST_STEPS))


def speed_line(steps: Sequence[StepPoint]) -> tuple[tuple[float, float], ...]:
    """Points of a line of tokens/s: x 0..1000 by step, y 200 (none) to 0 (the most)."""
    points = [(each.step, each.speed) for each in steps if each.speed is not None]
    if len(points) < 2:
        return ()
    low, high = min(step for step, _ in points), max(step for step, _ in points)
    most = max(max(speed for _, speed in points), 1e-9)
    if high <= low:
        return ()
    return tuple(
        (round(1000 * (step - low) / (high - low), 1), round(200 - 190 * max(speed, 0) / most, 1))
        for step, speed in points
    )


def lines_by_attempt(lines: Sequence[RankLine], attempts: int) -> list[Sequence[RankLine]]:
    """The ranks' lines by attempt. They bear no time: where steps go back, an attempt begins."""
    if attempts == 1:
        return [lines]
    split: list[list[RankLine]] = [[]]
    last: dict[int, float] = {}
    for line in lines:
        if line.step is not None:
            if line.step < last.get(line.rank, line.step) and len(split) < attempts:
                split.append([])
                last = {}
            last[line.rank] = line.step
        split[-1].append(line)
    return [*split, *([] for _ in range(attempts - len(split)))]

"""The page of runs: steps as bars, cached or not, bytes, and what each run waited for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slipway.records import RecordedRun, RunStep

MOST_RUNS = 8
MOST_ROWS = 120
"""Of one run; the shortest steps are left out, and counted."""

SHORT_PART = 0.005
"""Of a run: parts of the critical path below it are one line together."""

INSTANT = 0.01
"""Seconds that no bar can show: shorter steps are on no critical path."""


@dataclass(frozen=True)
class TimelineRow:
    """One bar. Seconds since the run began; `end` is where the log ends for an open one."""

    task: str
    step: str
    start: float
    seconds: float
    state: str
    bytes: int
    text: str
    critical: bool


@dataclass(frozen=True)
class CriticalPart:
    """One part of what the run waited for. `step` "" is work of a task between its steps."""

    task: str
    step: str
    start: float
    seconds: float


@dataclass(frozen=True)
class StageRow:
    """What became of one stage of one image."""

    image: str
    stage: str
    fresh: bool
    skipped: bool
    seconds: float
    detail: str


@dataclass(frozen=True)
class RunTimeline:
    """One run."""

    name: str
    words: str
    started: float
    seconds: float
    whole: bool  # the log has its end
    rows: tuple[TimelineRow, ...]
    left_out: int
    cached: int
    bytes: int
    critical: tuple[CriticalPart, ...]  # in the order in which they ran, without the shortest
    short_parts: int
    short_seconds: float  # of those together
    stages: tuple[StageRow, ...]
    failures: tuple[tuple[str, str], ...]  # image, what failed


@dataclass(frozen=True)
class BuildsPage:
    """The last runs, newest first. `idle`: how many of those recorded found all done."""

    runs: tuple[RunTimeline, ...]
    idle: int
    recorded: int


def builds_page(runs: Sequence[RecordedRun]) -> BuildsPage:
    """The page of these runs, given oldest first."""
    busy = [run for run in runs if run.steps]
    return BuildsPage(
        tuple(run_timeline(run) for run in reversed(busy[-MOST_RUNS:])),
        len(runs) - len(busy),
        len(runs),
    )


def run_timeline(run: RecordedRun) -> RunTimeline:
    """One run's bars."""
    last = run.started + run.seconds
    path = critical_path(run.steps, run.started, last)
    short = run.seconds * SHORT_PART
    waited = {(part.task, part.step) for part in path}
    inner = {step.task for step in run.steps if step.step}
    rows = [
        TimelineRow(
            step.task,
            step.step,
            step.start - run.started,
            _end(step, last) - step.start,
            step.state,
            step.bytes,
            step.text,
            (step.task, step.step) in waited and (bool(step.step) or step.task not in inner),
        )
        for step in run.steps
    ]
    shown = sorted(rows, key=lambda row: (bool(row.step), -row.seconds))[:MOST_ROWS]
    order = {step.task: step.start for step in reversed(run.steps) if not step.step}
    shown.sort(
        key=lambda row: (order.get(row.task, row.start), row.task, bool(row.step), row.start)
    )
    return RunTimeline(
        name=run.name,
        words=run.words,
        started=run.started,
        seconds=run.seconds,
        whole=run.ended is not None,
        rows=tuple(shown),
        left_out=len(rows) - len(shown),
        cached=sum(row.state == "cached" for row in rows),
        bytes=sum(row.bytes for row in rows),
        critical=tuple(part for part in path if part.seconds >= short),
        short_parts=sum(part.seconds < short for part in path),
        short_seconds=sum(part.seconds for part in path if part.seconds < short),
        stages=tuple(stage_row(note) for note in run.notes if note.get("what") == "stage"),
        failures=tuple(
            (str(note.get("image", "")), str(note.get("text", "")))
            for note in run.notes
            if note.get("what") == "failure"
        ),
    )


def stage_row(note: Mapping[str, Any]) -> StageRow:
    """A stage as the run has noted it."""
    seconds = note.get("seconds")
    return StageRow(
        str(note.get("image", "")),
        str(note.get("name", "")),
        bool(note.get("fresh")),
        bool(note.get("skipped")),
        float(seconds) if isinstance(seconds, int | float) else 0.0,
        str(note.get("detail", "")),
    )


def critical_path(steps: Sequence[RunStep], start: float, end: float) -> tuple[CriticalPart, ...]:
    """What the run waited for, in order: from its end back, always what ended last before.

    Steps stand for the work of their task; what lies between two of them is the task's own. Times
    in which nothing at all is recorded have no part.
    """
    inner = {step.task for step in steps if step.step}
    leaves = [
        (step.start, _end(step, end), step)
        for step in steps
        if (step.step or step.task not in inner) and _end(step, end) - step.start >= INSTANT
    ]
    whole = [(step.start, _end(step, end), step) for step in steps if not step.step]
    parts: list[CriticalPart] = []
    moment = end
    while moment - start > INSTANT:
        before = [leaf for leaf in leaves if leaf[1] <= moment + INSTANT and leaf[0] < moment]
        latest = max(before, key=lambda leaf: leaf[1], default=None)
        gap = latest[1] if latest else start
        if moment - gap > INSTANT:
            around = [task for task in whole if task[0] < moment and task[1] > gap]
            if around:
                # The one that ran longest into the gap is what there was to wait for.
                task = max(around, key=lambda each: min(each[1], moment) - max(each[0], gap))
                low, high = max(task[0], gap), min(task[1], moment)
                if high - low > INSTANT:
                    parts.append(CriticalPart(task[2].task, "", low - start, high - low))
        if latest is None:
            break
        low = latest[0]
        parts.append(CriticalPart(latest[2].task, latest[2].step, low - start, latest[1] - low))
        moment = low
    return tuple(reversed(parts))


def _end(step: RunStep, last: float) -> float:
    return max(step.end if step.end is not None else last, step.start)

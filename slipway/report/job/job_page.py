"""The page of a job: where its start went, how its nodes and ranks fared, what ended it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slipway.cluster import LauncherEvent
from slipway.report.job.job_log import (
    START_UP_FORMATS,
    JobLog,
    RankLine,
    event_number,
    event_text,
    is_notice,
)
from slipway.report.job.job_nodes import (
    JobNode,
    NodeRow,
    RankRow,
    group_by_node,
    node_row,
    rank_rows,
)
from slipway.report.job.job_notices import (
    MOST_NOTICES,
    Notice,
    Transfer,
    find_transfers,
    group_ends,
    read_notice,
)
from slipway.report.job.job_stages import (
    CLOCK_S,
    JobTimes,
    StageSeconds,
    node_stages,
    queue_lead,
    stage_table,
)
from slipway.report.job.job_steps import StepPoint, lines_by_attempt, speed_line, step_points
from slipway.report.job.rank_evenness import RankEvenness, rank_evenness

MOST_ATTEMPTS = 20
MOST_NODES = 64


@dataclass(frozen=True)
class JobPage:
    """One attempt of a job.

    `queue`: seconds between submission and start, of which `lead` are drawn before the job.
    """

    title: str
    file: str
    job: str
    attempt: int
    began: float
    seconds: float
    queue: float | None
    lead: float
    nodes: int
    world: int
    old_launcher: bool
    whole: bool  # every node has an end
    unread: int
    left_out: int  # lines beyond what is kept
    cut: bool  # the log is longer than what was brought here
    stages: tuple[StageSeconds, ...]
    node_rows: tuple[NodeRow, ...]
    nodes_left_out: int
    rank_rows: tuple[RankRow, ...]
    ranks_left_out: int
    steps: tuple[StepPoint, ...]
    speed_line: tuple[tuple[float, float], ...]  # points of the picture, 0..1000 and 0..200
    evenness: RankEvenness | None  # None: no two ranks tell the seconds of a step
    notices: tuple[Notice, ...]
    notices_left_out: int
    transfers: tuple[Transfer, ...]
    transfers_left_out: int
    ends: tuple[tuple[str, int, str, str], ...]  # how, exit code, nodes, cause with its detail


def job_pages(log: JobLog) -> tuple[JobPage, ...]:
    """A page for each attempt in a log: one file may hold several, of a requeued job."""
    attempts = split_attempts(log.events)
    lines = lines_by_attempt(log.lines, len(attempts))
    times = attempt_times(log, attempts)
    return tuple(
        _job_page(log, events, lines[number], times[number], (number + 1, len(attempts)))
        for number, events in enumerate(attempts)
    )


def split_attempts(events: Sequence[LauncherEvent]) -> list[list[LauncherEvent]]:
    """The events by attempt. A node that starts up once more begins the next one."""
    starts: dict[int, int] = {}
    bounds: list[float] = []
    for event in events:
        if event.event == "start-up" and event.fields.get("format") in START_UP_FORMATS:
            number = starts[event.node] = min(starts.get(event.node, 0) + 1, MOST_ATTEMPTS)
            began = event_number(event, "began")
            moment = began if began is not None else event.time
            if number > len(bounds):
                bounds.append(moment)
            else:
                bounds[number - 1] = min(bounds[number - 1], moment)
    attempts: list[list[LauncherEvent]] = [[] for _ in bounds or (0,)]
    for event in events:
        number = sum(event.time >= bound for bound in bounds[1:])
        attempts[number].append(event)
    return [attempt for attempt in attempts if attempt]


def _job_page(
    log: JobLog,
    events: Sequence[LauncherEvent],
    lines: Sequence[RankLine],
    times: JobTimes,
    place: tuple[int, int],
) -> JobPage:
    nodes = group_by_node(events)
    starts = [start for node in nodes if (start := node.first("start-up"))]
    stages = {
        node.name: node_stages(node.events, times, _fetch_seconds(log, node, place[0]))
        for node in nodes
    }
    began = min(_moments(events, starts, times))
    ended = max(event.time for event in events)
    lead = queue_lead(times.queue, ended - began)
    job = next((event_text(start, "job") for start in starts if event_text(start, "job")), log.name)
    placed = [node for node in nodes if node.rank >= 0] or nodes
    rows = [node_row(node, stages[node.name], began, ended, lead) for node in placed]
    ranks, ranks_left_out = rank_rows(nodes, lines, began, ended)
    notices = [read_notice(log, node, event, began) for node in nodes for event in node.events
               if is_notice(event)]  # fmt: skip
    notices.sort(key=lambda notice: (not notice.stacks, notice.at))
    worlds = [event_number(event, "world") or 0 for event in events if event.event == "ranks"]
    steps = step_points(lines)
    transfers = find_transfers(nodes, began)
    number, attempts = place
    title = f"{job}, attempt {number} of {attempts}" if attempts > 1 else job
    return JobPage(
        title=title,
        file=log.source,
        job=job,
        attempt=number,
        began=began,
        seconds=ended - began,
        queue=times.queue,
        lead=lead,
        nodes=len(placed),
        world=int(max(worlds, default=0)),
        old_launcher=not starts,
        whole=all(node.end for node in placed),
        unread=log.unread,
        left_out=log.left_out,
        cut=log.cut,
        stages=stage_table(stages),
        node_rows=tuple(rows[:MOST_NODES]),
        nodes_left_out=max(len(rows) - MOST_NODES, 0),
        rank_rows=tuple(ranks),
        ranks_left_out=ranks_left_out,
        steps=steps,
        speed_line=speed_line(steps),
        evenness=rank_evenness(lines),
        notices=tuple(sorted(notices[:MOST_NOTICES], key=lambda notice: notice.at)),
        notices_left_out=max(len(notices) - MOST_NOTICES, 0),
        transfers=tuple(transfers[:MOST_NOTICES]),
        transfers_left_out=max(len(transfers) - MOST_NOTICES, 0),
        ends=tuple(group_ends(nodes)),
    )


def attempt_times(log: JobLog, attempts: Sequence[Sequence[LauncherEvent]]) -> list[JobTimes]:
    """The scheduler's times, with the attempt that they are of: a job that was requeued has those
    of its last start, SageMaker those of its first."""
    times = JobTimes(log.submitted, log.started)
    firsts = [min(event.time for event in events) for events in attempts]
    number = next(
        (number for number, first in enumerate(firsts) if first >= log.started - CLOCK_S), None
    )
    return [times if each == number else JobTimes() for each in range(len(attempts))]


def _fetch_seconds(log: JobLog, node: JobNode, attempt: int) -> float | None:
    """Of this attempt: each one fetches, and finds what an earlier one has left."""
    arrivals = log.arrivals.get(node.events[0].host, [])
    return arrivals[attempt - 1] if attempt <= len(arrivals) else None


def _moments(
    events: Sequence[LauncherEvent], starts: Sequence[LauncherEvent], times: JobTimes
) -> list[float]:
    """All moments from which a job may have begun; a start that lies far off is not believed."""
    first = min(event.time for event in events)
    told = [event_number(start, name) for start in starts for name in ("job_start", "began")]
    told.append(times.started or None)
    return [first, *(moment for moment in told if moment and first - 86_400 < moment <= first)]

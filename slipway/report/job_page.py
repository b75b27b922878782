"""The page of a job: where its start went, how its nodes and ranks fared, what ended it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from slipway.cluster import LauncherEvent
from slipway.report.job_log import (
    START_UP_FORMATS,
    JobLog,
    RankLine,
    StackFile,
    event_number,
    event_text,
    finite,
)
from slipway.report.job_stages import STAGES, StageSeconds, node_stages, stage_table

_NOTICE_FIELDS = (
    "check",
    "level",
    "text",
    "why",
    "error",
    "signal",
    "missing",
    "name",
    "origin",
    "peer",
)
ENDS = ("done", "failed", "stopped", "over", "left")
MOST_ATTEMPTS = 20
MOST_NODES = 64
MOST_RANKS = 64
MOST_NOTICES = 200
MOST_STEPS = 60
"""Rows of the table of steps, and points of the line beside it."""

_NOTICES = {
    "straggler", "hang", "resumed", "signal", "stopping", "killing", "warning", "waiting",
    "preflight", "gate-lost", "gate-dropped", "gate-trouble", "thread-died", "leader-lost",
    "begin-again", "cut", "spares", "checkpoint-failed", "woken", "resume-choice", "stale-lock",
}  # fmt: skip


@dataclass(frozen=True)
class Span:
    """A stretch of a node's or rank's time, in seconds since the job's first moment."""

    kind: str
    start: float
    seconds: float


@dataclass(frozen=True)
class NodeRow:
    """One node."""

    name: str
    spans: tuple[Span, ...]
    stages: Mapping[str, float]
    start_up: float  # seconds until its ranks began, 0 where they did not
    state: str
    code: int | None


@dataclass(frozen=True)
class RankRow:
    """One rank. `step` and `speed` are of its last line that tells any."""

    rank: int
    node: str
    spans: tuple[Span, ...]
    lines: int
    step: float | None
    speed: float | None  # tokens/s
    notices: int


@dataclass(frozen=True)
class StepPoint:
    """What a rank said of one step."""

    step: float
    seconds: float | None
    speed: float | None
    loss: float | None


@dataclass(frozen=True)
class Notice:
    """Something that the launcher noticed."""

    at: float
    node: str
    event: str
    text: str
    ranks: tuple[int, ...]
    stacks: tuple[StackFile, ...]
    stacks_at: str


@dataclass(frozen=True)
class Transfer:
    """A checkpoint, or files that were brought or taken away."""

    at: float
    node: str
    event: str
    name: str
    bytes: float | None
    seconds: float | None


@dataclass(frozen=True)
class JobPage:
    """One attempt of a job."""

    title: str
    file: str
    job: str
    attempt: int
    began: float
    seconds: float
    nodes: int
    world: int
    old_launcher: bool
    whole: bool  # every node has an end
    unread: int
    stages: tuple[StageSeconds, ...]
    node_rows: tuple[NodeRow, ...]
    nodes_left_out: int
    rank_rows: tuple[RankRow, ...]
    ranks_left_out: int
    steps: tuple[StepPoint, ...]
    speed_line: tuple[tuple[float, float], ...]  # points of the picture, 0..1000 and 0..200
    notices: tuple[Notice, ...]
    notices_left_out: int
    transfers: tuple[Transfer, ...]
    ends: tuple[tuple[str, int, str, str], ...]  # how, exit code, nodes, cause with its detail


@dataclass
class _Node:
    rank: int  # -1: of events before the launcher knew its place
    name: str
    events: list[LauncherEvent] = field(default_factory=list)

    def first(self, event: str) -> LauncherEvent | None:
        return next((each for each in self.events if each.event == event), None)

    @property
    def end(self) -> LauncherEvent | None:
        return next((each for each in reversed(self.events) if each.event in ENDS), None)


def job_pages(log: JobLog) -> tuple[JobPage, ...]:
    """A page for each attempt in a log: one file may hold several, of a requeued job."""
    attempts = split_attempts(log.events)
    lines = _lines_of(log, len(attempts))
    return tuple(
        _job_page(log, events, lines[number], number, len(attempts))
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


def _lines_of(log: JobLog, attempts: int) -> list[list[RankLine]]:
    """The ranks' lines by attempt. They bear no time: where steps go back, an attempt begins."""
    if attempts == 1:
        return [log.lines]
    split: list[list[RankLine]] = [[]]
    last: dict[int, float] = {}
    for line in log.lines:
        step = finite(line.values.get("step"))
        if step is not None:
            if step < last.get(line.rank, step) and len(split) < attempts:
                split.append([])
                last = {}
            last[line.rank] = step
        split[-1].append(line)
    return [*split, *([] for _ in range(attempts - len(split)))]


def _job_page(
    log: JobLog,
    events: Sequence[LauncherEvent],
    lines: Sequence[RankLine],
    number: int,
    attempts: int,
) -> JobPage:
    nodes = _nodes(events)
    starts = [start for node in nodes if (start := node.first("start-up"))]
    stages = {node.name: node_stages(node.events) for node in nodes}
    began = min(_moments(events, starts))
    ended = max(event.time for event in events)
    job = next(
        (event_text(start, "job") for start in starts if event_text(start, "job")), log.path.stem
    )
    placed = [node for node in nodes if node.rank >= 0] or nodes
    rows = [_node_row(node, stages[node.name], began, ended) for node in placed]
    ranks, ranks_left_out = _rank_rows(nodes, lines, began, ended)
    notices = [_notice(log, node, event, began) for node in nodes for event in node.events
               if _is_notice(event)]  # fmt: skip
    notices.sort(key=lambda notice: (not notice.stacks, notice.at))
    worlds = [event_number(event, "world") or 0 for event in events if event.event == "ranks"]
    steps = step_points(lines)
    title = f"{job}, attempt {number + 1} of {attempts}" if attempts > 1 else job
    return JobPage(
        title=title,
        file=str(log.path),
        job=job,
        attempt=number + 1,
        began=began,
        seconds=ended - began,
        nodes=len(placed),
        world=int(max(worlds, default=0)),
        old_launcher=not starts,
        whole=all(node.end for node in placed),
        unread=log.unread,
        stages=stage_table(stages),
        node_rows=tuple(rows[:MOST_NODES]),
        nodes_left_out=max(len(rows) - MOST_NODES, 0),
        rank_rows=tuple(ranks),
        ranks_left_out=ranks_left_out,
        steps=steps,
        speed_line=speed_line(steps),
        notices=tuple(sorted(notices[:MOST_NOTICES], key=lambda notice: notice.at)),
        notices_left_out=max(len(notices) - MOST_NOTICES, 0),
        transfers=tuple(_transfers(nodes, began))[:MOST_NOTICES],
        ends=tuple(_ends(nodes)),
    )


def _nodes(events: Sequence[LauncherEvent]) -> list[_Node]:
    named = {event.node: event.host for event in events if event.node >= 0}
    nodes: dict[int, _Node] = {}
    for event in events:
        # What comes before the launcher knows its place is the only node's, where there is one.
        rank = event.node if event.node >= 0 or len(named) != 1 else next(iter(named))
        name = f"{rank} {named.get(rank, '')}".strip() if rank >= 0 else "?"
        nodes.setdefault(rank, _Node(rank, name)).events.append(event)
    return [nodes[rank] for rank in sorted(nodes)]


def _moments(events: Sequence[LauncherEvent], starts: Sequence[LauncherEvent]) -> list[float]:
    """All moments from which a job may have begun; a start that lies far off is not believed."""
    first = min(event.time for event in events)
    told = [event_number(start, name) for start in starts for name in ("job_start", "began")]
    return [first, *(moment for moment in told if moment and first - 86_400 < moment <= first)]


def start_seconds(page: JobPage) -> float:
    """Of the whole start: the slowest of each stage, one after another."""
    return sum(stage.slowest for stage in page.stages)


def _node_row(node: _Node, stages: Mapping[str, float], began: float, ended: float) -> NodeRow:
    ranks = node.first("ranks")
    stopping, end = node.first("stopping"), node.end
    last = end.time if end else max(event.time for event in node.events)
    spans: list[Span] = []
    moment = (ranks.time - began) if ranks else last - began
    before = [(name, stages[name]) for name in STAGES if name in stages and name != "import"]
    at = max(moment - sum(seconds for _, seconds in before), 0.0)
    for name, seconds in before:
        if seconds > 0:
            spans.append(Span(name, at, min(seconds, max(moment - at, 0.0))))
            at += seconds
    if ranks:
        trained = (stopping.time if stopping else last) - began
        imports = min(stages.get("import", 0.0), max(trained - moment, 0.0))
        if imports:
            spans.append(Span("import", moment, imports))
        spans.append(Span("ranks", moment + imports, max(trained - moment - imports, 0.0)))
        if stopping:
            spans.append(Span("stop", trained, max(last - began - trained, 0.0)))
    code = event_number(end, "code") if end else None
    return NodeRow(
        node.name,
        tuple(span for span in spans if span.start <= ended - began),
        stages,
        moment if ranks else 0.0,
        end.event if end else "the log ends before it",
        int(code) if code is not None else None,
    )


def _rank_rows(
    nodes: Sequence[_Node], lines: Sequence[RankLine], began: float, ended: float
) -> tuple[list[RankRow], int]:
    """The ranks that are shown, those that something was noticed of first; and how many are not."""
    spoken: dict[int, list[RankLine]] = {}
    for line in lines:
        spoken.setdefault(line.rank, []).append(line)
    places: dict[int, _Node] = {}
    count = 0
    for node in nodes:
        ranks = node.first("ranks")
        first, here = (int((ranks and event_number(ranks, key)) or 0) for key in ("first", "here"))
        count += max(here, 0)
        for rank in range(first, first + min(max(here, 0), MOST_RANKS)):
            places[rank] = node
    about: dict[int, list[LauncherEvent]] = {}
    for node in nodes:
        for event in node.events:
            for rank in _concerned(event):
                about.setdefault(rank, []).append(event)
    shown = sorted(places, key=lambda rank: (rank not in about, rank))[:MOST_RANKS]
    rows = [
        _rank_row(rank, places[rank], spoken.get(rank, []), about.get(rank, []), (began, ended))
        for rank in sorted(shown)
    ]
    return rows, max(count - len(rows), 0)


def _rank_row(
    rank: int,
    node: _Node,
    said: Sequence[RankLine],
    about: Sequence[LauncherEvent],
    bounds: tuple[float, float],
) -> RankRow:
    began, ended = bounds
    ranks = node.first("ranks")
    start = (ranks.time if ranks else ended) - began
    last = (node.end.time if node.end else ended) - began
    spans = [Span("ranks", start, max(last - start, 0.0))]
    spans += [Span("noticed", event.time - began, 0.0) for event in about[:MOST_RANKS]]
    told = [line.values for line in said if finite(line.values.get("step")) is not None]
    newest = told[-1] if told else {}
    return RankRow(
        rank,
        node.name,
        tuple(spans),
        len(said),
        finite(newest.get("step")),
        finite(newest.get("tokens_per_s")),
        len(about),
    )


def _is_notice(event: LauncherEvent) -> bool:
    return event.event in _NOTICES or event.event.startswith("fetch-")


def _concerned(event: LauncherEvent) -> list[int]:
    ranks = event.fields.get("ranks")
    if not _is_notice(event) or not isinstance(ranks, list):
        return []
    return [rank for rank in ranks[:MOST_RANKS] if isinstance(rank, int)]


def step_points(lines: Sequence[RankLine]) -> tuple[StepPoint, ...]:
    """What the lowest rank that tells of steps said, at even distances; the last one always."""
    ranks = [line.rank for line in lines if finite(line.values.get("step")) is not None]
    if not ranks:
        return ()
    points = [
        StepPoint(
            step,
            finite(line.values.get("step_s")),
            finite(line.values.get("tokens_per_s")),
            finite(line.values.get("loss")),
        )
        for line in lines
        if line.rank == min(ranks) and (step := finite(line.values.get("step"))) is not None
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


def _notice(log: JobLog, node: _Node, event: LauncherEvent, began: float) -> Notice:
    ranks = event.fields.get("ranks")
    texts = [event_text(event, name) for name in _NOTICE_FIELDS if name in event.fields]
    seconds = event_number(event, "seconds")
    if seconds is not None:
        texts.append(f"{seconds:g} s")
    return Notice(
        event.time - began,
        node.name,
        event.event,
        " ".join(texts),
        tuple(r for r in ranks if isinstance(r, int))[:64] if isinstance(ranks, list) else (),
        log.stacks(event) if "stacks" in event.fields else (),
        event_text(event, "stacks"),
    )


def _transfers(nodes: Sequence[_Node], began: float) -> list[Transfer]:
    names = {"checkpoint": "name", "prefetched": "source", "uploaded": "uri", "resume": "path",
             "complete": "uri", "source": "uri"}  # fmt: skip
    transfers = [
        Transfer(
            event.time - began,
            node.name,
            event.event,
            event_text(event, names[event.event]),
            event_number(event, "bytes"),
            event_number(event, "seconds"),
        )
        for node in nodes
        for event in node.events
        if event.event in names and event.fields.get(names[event.event])
    ]
    return sorted(transfers, key=lambda transfer: transfer.at)


def _ends(nodes: Sequence[_Node]) -> list[tuple[str, int, str, str]]:
    """How the nodes ended, those of one way together; failures first."""
    ways: dict[tuple[str, int, str], list[str]] = {}
    for node in nodes:
        end = node.end
        if end is None:
            continue
        cause = event_text(end, "cause") or event_text(end, "text")
        detail = event_text(end, "detail")
        code = int(event_number(end, "code") or 0)
        text = f"{cause}\n{detail}".strip()
        ways.setdefault((end.event, code, text), []).append(node.name)
    return sorted(
        (
            (
                event,
                code,
                ", ".join(names[:8]) + (f" and {len(names) - 8} more" if names[8:] else ""),
                text,
            )
            for (event, code, text), names in ways.items()
        ),
        key=lambda way: (way[0] != "failed", way[1]),
    )

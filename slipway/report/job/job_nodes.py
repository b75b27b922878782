"""The nodes and ranks of a job: what each did when. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from slipway.cluster import LauncherEvent
from slipway.report.job.job_log import RankLine, event_number, is_notice
from slipway.report.job.job_stages import STAGES

ENDS = ("done", "failed", "stopped", "over", "left")
MOST_RANKS = 64


@dataclass(frozen=True)
class Span:
    """A stretch of a node's or rank's time, in seconds since the job's first moment; the queue
    lies before it, with a start below 0."""

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


@dataclass
class JobNode:
    """One node with its events, in the order of the log."""

    rank: int  # -1: of events before the launcher knew its place
    name: str
    events: list[LauncherEvent] = field(default_factory=list)

    def first(self, event: str) -> LauncherEvent | None:
        """Its first event of this name."""
        return next((each for each in self.events if each.event == event), None)

    @property
    def end(self) -> LauncherEvent | None:
        """The last that tells how it ended, None where the log ends before it."""
        return next((each for each in reversed(self.events) if each.event in ENDS), None)


def group_by_node(events: Sequence[LauncherEvent]) -> list[JobNode]:
    """The nodes by their rank, each with its events."""
    named = {event.node: event.host for event in events if event.node >= 0}
    nodes: dict[int, JobNode] = {}
    for event in events:
        # What comes before the launcher knows its place is the only node's, where there is one.
        rank = event.node if event.node >= 0 or len(named) != 1 else next(iter(named))
        name = f"{rank} {named.get(rank, '')}".strip() if rank >= 0 else "?"
        nodes.setdefault(rank, JobNode(rank, name)).events.append(event)
    return [nodes[rank] for rank in sorted(nodes)]


def node_row(
    node: JobNode, stages: Mapping[str, float], began: float, ended: float, lead: float
) -> NodeRow:
    """A node between `began` and `ended`; of its queue `lead` seconds are drawn."""
    ranks = node.first("ranks")
    stopping, end = node.first("stopping"), node.end
    last = end.time if end else max(event.time for event in node.events)
    spans = [Span("queue", -lead, lead)] if lead else []
    moment = (ranks.time - began) if ranks else last - began
    before = [
        (name, stages[name])
        for name in STAGES
        if name in stages and name not in ("queue", "import")
    ]
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


def rank_rows(
    nodes: Sequence[JobNode], lines: Sequence[RankLine], began: float, ended: float
) -> tuple[list[RankRow], int]:
    """The ranks that are shown, those that something was noticed of first; and how many are not."""
    spoken: dict[int, int] = {}
    newest: dict[int, RankLine] = {}
    for line in lines:
        spoken[line.rank] = spoken.get(line.rank, 0) + 1
        if line.step is not None:
            newest[line.rank] = line
    places: dict[int, JobNode] = {}
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
        _rank_row(
            RankLine(rank, None, None, None, None) if rank not in newest else newest[rank],
            spoken.get(rank, 0),
            places[rank],
            about.get(rank, []),
            (began, ended),
        )
        for rank in sorted(shown)
    ]
    return rows, max(count - len(rows), 0)


def _rank_row(
    newest: RankLine,
    lines: int,
    node: JobNode,
    about: Sequence[LauncherEvent],
    bounds: tuple[float, float],
) -> RankRow:
    began, ended = bounds
    ranks = node.first("ranks")
    start = (ranks.time if ranks else ended) - began
    last = (node.end.time if node.end else ended) - began
    spans = [Span("ranks", start, max(last - start, 0.0))]
    spans += [Span("noticed", event.time - began, 0.0) for event in about[:MOST_RANKS]]
    return RankRow(
        newest.rank, node.name, tuple(spans), lines, newest.step, newest.speed, len(about)
    )


def _concerned(event: LauncherEvent) -> list[int]:
    ranks = event.fields.get("ranks")
    if not is_notice(event) or not isinstance(ranks, list):
        return []
    return [rank for rank in ranks[:MOST_RANKS] if isinstance(rank, int)]

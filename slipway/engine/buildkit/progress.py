"""BuildKit's trace as Events for the console and as a full log file."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal, Protocol

from slipway.core import Event, OnEvent
from slipway.engine.buildkit.trace import Trace, Vertex, VertexLog, VertexStatus

_TAIL = 20  # lines of a step that an error shows
_CANCELLED = "context canceled"  # how BuildKit ends the neighbours of a step that failed


State = Literal["new", "start", "done", "cached", "failed"]


class BuildStepLog(Protocol):
    """Where the full output goes: a BuildLog, or anything else that is written like a file."""

    def write(self, text: str, /) -> object:
        """Add text."""

    def flush(self) -> None:
        """Make it visible to readers."""


@dataclass
class BuildStep:
    """One vertex as it was last heard of."""

    number: int
    name: str
    state: State = "new"
    error: str = ""
    started: float | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL))
    partial: dict[int, bytes] = field(default_factory=dict)
    bytes: dict[str, tuple[int, int]] = field(default_factory=dict)


class BuildProgress:
    """Takes Traces in order; tells `on_event` and `log` about each step once per change."""

    def __init__(self, task: str, on_event: OnEvent, log: BuildStepLog) -> None:
        self._task = task
        self._on_event = on_event
        self._log = log
        self._steps: dict[str, BuildStep] = {}

    def take(self, trace: Trace) -> None:
        """Show what one message adds."""
        for vertex in trace.vertexes:
            self._vertex(vertex)
        for status in trace.statuses:
            self._status(status)
        for log in trace.logs:
            self._output(log)
        self._log.flush()

    def finish(self) -> None:
        """Show the last unfinished lines of output."""
        for step in self._steps.values():
            self._flush(step)
        self._log.flush()

    @property
    def failed(self) -> BuildStep | None:
        """The step that made the build fail, None where the failure belongs to no step."""
        failed = [step for step in self._steps.values() if step.state == "failed"]
        own = [step for step in failed if _CANCELLED not in step.error]
        return next(iter(own), None)

    def _step(self, digest: str) -> BuildStep:
        return self._steps.setdefault(digest, BuildStep(len(self._steps) + 1, digest))

    def _vertex(self, vertex: Vertex) -> None:
        step = self._step(vertex.digest)
        step.name = vertex.name or step.name
        if vertex.started is not None and step.state == "new":
            step.started = vertex.started
            self._enter(step, "start", step.name)
        if vertex.error and step.state != "failed":
            self._flush(step)
            step.error = vertex.error
            self._enter(step, "failed", f"ERROR {vertex.error}", vertex.error)
        elif vertex.cached and step.state in ("new", "start"):
            self._enter(step, "cached", "CACHED")
        elif vertex.completed is not None and step.state == "start":
            self._flush(step)
            taken = f"{vertex.completed - (step.started or vertex.completed):.1f}s"
            self._enter(step, "done", f"DONE {taken}", taken)

    def _enter(self, step: BuildStep, state: State, line: str, text: str = "") -> None:
        step.state = state
        self._log.write(f"#{step.number} {line}\n")
        if state != "new":
            self._on_event(Event(state, self._task, step.name, text))

    def _status(self, status: VertexStatus) -> None:
        step = self._step(status.vertex)
        before = step.bytes.get(status.id)
        step.bytes[status.id] = (status.current, status.total)
        if before is None or status.completed:
            count = f" {status.current} B" if status.current else ""
            word = " done" if status.completed else ""
            self._log.write(f"#{step.number} {status.name or status.id}{count}{word}\n")
        current = sum(now for now, _ in step.bytes.values())
        if current and before != (status.current, status.total):
            total = sum(total for _, total in step.bytes.values())
            self._on_event(
                Event("progress", self._task, step.name, current=current, total=total, unit="B")
            )

    def _output(self, log: VertexLog) -> None:
        step = self._step(log.vertex)
        *lines, rest = (step.partial.get(log.stream, b"") + log.data).split(b"\n")
        step.partial[log.stream] = rest
        for line in lines:
            self._line(step, line)

    def _flush(self, step: BuildStep) -> None:
        for rest in step.partial.values():
            if rest:
                self._line(step, rest)
        step.partial.clear()

    def _line(self, step: BuildStep, raw: bytes) -> None:
        # A progress bar redraws its line with \r: what a terminal would show is the last of them.
        line = raw.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
        step.tail.append(line)
        self._log.write(f"#{step.number} | {line}\n")
        self._on_event(Event("log", self._task, step.name, line))

"""How the runs of this checkout went: a file a run, one JSON line for each thing, as it happens.

A run that is cut off leaves what it had said. The first line names the format; a reader passes over
lines that it does not know, so that an older Slipway's files and damaged ones still tell something.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from slipway.core import Event, Project, SlipwayError, redact, say

RUN_FORMAT = "slipway-run/1"
KEPT_RUNS = 100
"""Files that are kept; the oldest go first. One of a whole `ship` takes about 20 kB."""

_LONGEST = 500  # characters of a text: a step's name is a line of a Dockerfile


class RunLog:
    """The log of one run. Use as a context manager; `on_event` may be called from any thread.

    That it cannot be written ends no run: a line says so, and the run goes on without it.
    """

    def __init__(self, project: Project, words: str) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self._path = project.runs / f"{stamp}-{os.getpid()}.jsonl"
        self._words = words
        self._lock = threading.Lock()
        self._stream: TextIO | None = None
        self._open: dict[tuple[str, str], _OpenStep] = {}

    def __enter__(self) -> RunLog:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            for old in sorted(self._path.parent.glob("*.jsonl"))[: -KEPT_RUNS + 1]:
                old.unlink(missing_ok=True)
            self._stream = self._path.open("a", encoding="utf-8")
        except OSError as error:
            self._give_up(error)
        self._write({"format": RUN_FORMAT, "words": self._words})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.note("end", failed=kind is not None)
        with self._lock:
            if self._stream:
                self._stream.close()
                self._stream = None

    def on_event(self, event: Event) -> None:
        """Note when a piece of work or a step of it begins and ends, and its bytes."""
        if event.kind in ("log", "notice"):
            return
        with self._lock:
            key = (event.task, event.step)
            now = time.time()
            if event.kind == "start":
                self._begin(key, now)
            elif event.kind == "progress":
                if event.unit == "B" and event.step:
                    step = self._open.get(key) or self._begin(key, now)
                    step.heard, step.bytes = now, max(step.bytes, event.current)
            else:
                self._end(key, event.kind, event.text)

    def note(self, what: str, **fields: Any) -> None:
        """Add one line that is no event of a piece of work."""
        with self._lock:
            self._write({"what": what, **fields})

    def _begin(self, key: tuple[str, str], now: float) -> _OpenStep:
        task, step = key
        if not step:
            for stale in [other for other in self._open if other[0] == task]:
                del self._open[stale]
        self._write({"what": "start", **_name(key)})
        return self._open.setdefault(key, _OpenStep(now))

    def _end(self, key: tuple[str, str], state: str, text: str) -> None:
        task, step = key
        if not step:  # steps that say no end of their own were last heard of some time ago
            for other in [name for name in self._open if name[0] == task and name[1]]:
                self._close(other, "heard", "")
        self._close(key, state, text)

    def _close(self, key: tuple[str, str], state: str, text: str) -> None:
        step = self._open.pop(key, _OpenStep(time.time()))
        line: dict[str, Any] = {"what": state, **_name(key)}
        line |= {"text": text[:_LONGEST]} if text else {}
        line |= {"bytes": step.bytes} if step.bytes else {}
        line |= {"t": round(step.heard, 3)} if state == "heard" else {}
        self._write(line)

    def _write(self, fields: Mapping[str, Any]) -> None:
        if self._stream is None:
            return
        line = json.dumps({"t": round(time.time(), 3), **fields}, default=str)
        try:
            self._stream.write(redact(line) + "\n")
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._stream = None
        say(f"note: how this run goes is not recorded: {self._path}: {error.strerror}")


@dataclass
class _OpenStep:
    """A step that has begun: when it was last heard of, and the most bytes that it told."""

    heard: float
    bytes: int = 0


def _name(key: tuple[str, str]) -> dict[str, str]:
    return {"task": key[0], **({"step": key[1][:_LONGEST]} if key[1] else {})}


@dataclass(frozen=True)
class RunStep:
    """A piece of work, or a step of one. Times are seconds since 1970; `end` None: not known.

    `state`: done, cached, failed, heard (it said no end of its own), open (the log ends before).
    """

    task: str
    step: str
    start: float
    end: float | None
    state: str
    bytes: int = 0
    text: str = ""


@dataclass(frozen=True)
class RecordedRun:
    """What a log tells. `ended` None: the run was cut off, or is at work."""

    name: str
    words: str
    started: float
    ended: float | None
    steps: tuple[RunStep, ...]
    notes: tuple[Mapping[str, Any], ...] = ()  # lines of `RunLog.note`, each with its `t`
    unread: tuple[int, ...] = ()  # numbers of lines that say nothing that is known

    @property
    def seconds(self) -> float:
        """From the first line to the last that is known."""
        times = [self.ended or 0.0, *(step.end or step.start for step in self.steps)]
        return max(max(times) - self.started, 0.0)


@dataclass
class _RunReader:
    steps: list[RunStep] = field(default_factory=list)
    open: dict[tuple[str, str], float] = field(default_factory=dict)
    notes: list[Mapping[str, Any]] = field(default_factory=list)
    ended: float | None = None

    def take(self, line: Mapping[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError for a line that is none of ours."""
        moment, what = float(line["t"]), line["what"]
        if what == "end":
            self.ended = moment
        if "task" not in line:
            self.notes.append(line)
            return
        key = (str(line["task"]), str(line.get("step", "")))
        if what == "start":
            self.open[key] = moment
        elif what in ("done", "cached", "failed", "heard"):
            start = self.open.pop(key, moment)
            size = int(line.get("bytes", 0))
            text = str(line.get("text", ""))
            self.steps.append(RunStep(*key, start, max(moment, start), what, size, text))
        else:
            raise ValueError(what)


def read_run_log(path: Path) -> RecordedRun:
    """What a log tells; lines that are no lines of a log are passed over, and counted.

    Raises SlipwayError where the file is no log of a run.
    """
    reader, unread, first = _RunReader(), [], None
    for number, line in _lines(path):
        if not isinstance(line, dict):
            unread.append(number)
        elif first is None:
            first = _header(path, line)
        else:
            try:
                reader.take(line)
            except (KeyError, TypeError, ValueError, OverflowError):
                unread.append(number)
    if first is None:
        raise SlipwayError("it has no first line that names its format", where=str(path))
    open_steps = (RunStep(*key, start, reader.ended, "open") for key, start in reader.open.items())
    return RecordedRun(
        path.stem,
        str(first.get("words", "")),
        float(first["t"]),
        reader.ended,
        tuple(sorted([*reader.steps, *open_steps], key=lambda step: step.start)),
        tuple(reader.notes),
        tuple(unread),
    )


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            for number, text in enumerate(stream, 1):
                try:
                    yield number, json.loads(text)
                except (ValueError, RecursionError):
                    yield number, None
    except OSError as error:
        raise SlipwayError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _header(path: Path, line: Mapping[str, Any]) -> Mapping[str, Any]:
    if line.get("format") != RUN_FORMAT or not isinstance(line.get("t"), int | float):
        raise SlipwayError(
            f"this version of Slipway reads {RUN_FORMAT}, and this is"
            f" {str(line.get('format'))[:40]}",
            where=str(path),
        )
    return line

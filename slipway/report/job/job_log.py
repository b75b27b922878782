"""What a job's log tells: the launcher's events, and the JSON lines of its ranks.

The log is what sbatch, CloudWatch or a terminal has kept, whole or cut anywhere; an event is found
wherever it stands in a line. Nothing of it is trusted: lines are read in bounded parts, texts are
cut, and what is no event is passed over and counted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from slipway.cluster import (
    EVENT_MARK,
    JobNotBegunError,
    JobReading,
    LauncherEvent,
    parse_arrival,
    parse_event,
)
from slipway.core import SlipwayError

LONGEST_LINE = 256 * 1024
"""Bytes of a line that are looked at; what the launcher writes is far shorter."""

LONGEST_TEXT = 2000
LONGEST_DETAIL = 8000
MOST_EVENTS = 100_000
MOST_LINES = 1_000_000
MOST_STACKS = 24
LONGEST_STACKS = 6000

START_UP_FORMATS = (1,)

_MARK = EVENT_MARK.encode()
_RANK = re.compile(rb"\[r(\d{1,7})\] (\{.*\})")
_STALL_FOLDER = re.compile(r"\d{3}-[a-z-]{1,20}")
_STACK_FILE = re.compile(r"(0-odd-)?[\w.-]{1,100}\.txt")

_NOTICES = {
    "straggler", "hang", "resumed", "signal", "stopping", "killing", "warning", "waiting",
    "preflight", "gate-lost", "gate-dropped", "gate-trouble", "thread-died", "leader-lost",
    "begin-again", "cut", "spares", "checkpoint-failed", "woken", "resume-choice", "stale-lock",
}  # fmt: skip
"""What the launcher tells that a person should see by itself."""


class RankLine(NamedTuple):
    """What a JSON object that a rank printed tells of a step; None where it does not."""

    rank: int
    step: float | None
    seconds: float | None  # a step
    speed: float | None  # tokens/s
    loss: float | None


@dataclass(frozen=True)
class StackFile:
    """What one process was doing when progress stopped."""

    name: str
    odd: bool
    text: str


@dataclass
class JobLog:
    """One log. `unread`: lines with the launcher's mark that hold no whole event.

    `submitted` and `started` are the scheduler's, in seconds since 1970, 0 where it was not asked.
    """

    name: str
    source: str  # for a person
    path: Path | None = None  # where it is a file of this machine
    submitted: float = 0.0
    started: float = 0.0
    cut: bool = False  # by whoever brought it here
    events: list[LauncherEvent] = field(default_factory=list)
    lines: list[RankLine] = field(default_factory=list)
    arrivals: dict[str, list[float]] = field(default_factory=dict)  # host -> s of each .sqsh
    unread: int = 0
    left_out: int = 0  # events and lines beyond what is kept

    def stacks(self, event: LauncherEvent) -> tuple[StackFile, ...]:
        """The stacks that a stall's event names, where they lie beside the log.

        The path stands in the log, so it is no more than a hint: only files of the names that the
        launcher gives, in a folder `stalls/NNN-KIND` below the log's own folder, are read.
        """
        if self.path is None:
            return ()
        named = Path(event_text(event, "stacks"))
        top = self.path.resolve().parent
        try:
            folder = named.resolve(strict=True)
            if not folder.is_relative_to(top) or folder.parent.name != "stalls":
                return ()
            if not _STALL_FOLDER.fullmatch(folder.name):
                return ()
            files = [
                entry
                for entry in sorted(folder.iterdir())
                if _STACK_FILE.fullmatch(entry.name) and entry.is_file() and not entry.is_symlink()
            ]
            return tuple(_stack(entry) for entry in files[:MOST_STACKS])
        except (OSError, ValueError, RuntimeError):
            return ()


def _stack(path: Path) -> StackFile:
    with path.open("rb") as stream:
        text = stream.read(LONGEST_STACKS).decode("utf-8", "replace")
    return StackFile(path.stem.removeprefix("0-odd-"), path.name.startswith("0-odd-"), text)


def read_job_log(path: Path) -> JobLog:
    """The events of a file. Raises SlipwayError where it cannot be read,
    JobNotBegunError where it has none at all."""
    return take_reading(JobReading(path.stem, str(path), path))


def take_reading(reading: JobReading) -> JobLog:
    """The events of what a scheduler has told, or of a file; raises as `read_job_log`."""
    log = JobLog(
        reading.name, reading.source, reading.path,
        reading.submitted, reading.started, reading.cut,
    )  # fmt: skip
    if reading.path is None:
        _take_all(log, (line[:LONGEST_LINE] for line in reading.lines))
    else:
        try:
            with reading.path.open("rb") as stream:
                _take_all(log, _lines(stream))
        except OSError as error:
            where = str(reading.path)
            raise SlipwayError(f"cannot be read: {error.strerror}", where=where) from error
    if not log.events:
        raise JobNotBegunError(
            "this is no log of a job: no line of it has an event of the launcher (`launch: {...}`)",
            where=log.source,
            cure="Give what sbatch's --output names, or the output of `./inv sagemaker.logs JOB`.",
        )
    return log


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines, of the longer ones the beginning."""
    while line := stream.readline(LONGEST_LINE):
        yield line
        while len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            line = stream.readline(LONGEST_LINE)


def _take_all(log: JobLog, lines: Iterable[bytes]) -> None:
    for line in lines:
        _take(log, line)


def _take(log: JobLog, line: bytes) -> None:
    if _MARK in line:
        event = parse_event(line.decode("utf-8", "replace"))
        if event is None:
            log.unread += 1
        elif len(log.events) < MOST_EVENTS:
            log.events.append(event)
        else:
            log.left_out += 1
        return
    ranked = _RANK.search(line)
    if ranked and len(log.lines) < MOST_LINES:
        try:
            values = json.loads(ranked[2])
        except (ValueError, RecursionError):
            return  # a rank may print what it likes
        if isinstance(values, dict):
            told = (finite(values.get(name)) for name in ("step", "step_s", "tokens_per_s", "loss"))
            log.lines.append(RankLine(int(ranked[1]), *told))
    elif ranked:
        log.left_out += 1
    elif b" MB in " in line and len(log.arrivals) < MOST_EVENTS:
        arrival = parse_arrival(line.decode("utf-8", "replace"))
        if arrival is not None:
            log.arrivals.setdefault(arrival.host, []).append(arrival.seconds)


def event_text(event: LauncherEvent, name: str) -> str:
    """A field as text, cut."""
    return event.field(name)[: LONGEST_DETAIL if name == "detail" else LONGEST_TEXT]


def event_number(event: LauncherEvent, name: str) -> float | None:
    """A field that is a finite number, else None."""
    return finite(event.fields.get(name))


def finite(value: object) -> float | None:
    """A number that can be drawn, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def is_notice(event: LauncherEvent) -> bool:
    """Whether a person should see it by itself."""
    return event.event in _NOTICES or event.event.startswith("fetch-")

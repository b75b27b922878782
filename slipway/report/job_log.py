"""What a job's log tells: the launcher's events, and the JSON lines of its ranks.

The log is what sbatch, `sagemaker.logs` or a terminal has kept, whole or cut anywhere; an event is
found wherever it stands in a line. Nothing of it is trusted: lines are read in bounded parts, texts
are cut, and what is no event is passed over and counted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from slipway.cluster import EVENT_MARK, LauncherEvent, parse_event
from slipway.core import SlipwayError

LONGEST_LINE = 256 * 1024
"""Bytes of a line that are looked at; what the launcher writes is far shorter."""

LONGEST_TEXT = 2000
LONGEST_DETAIL = 8000
MOST_EVENTS = 100_000
MOST_STACKS = 24
LONGEST_STACKS = 6000

START_UP_FORMATS = (1,)

_MARK = EVENT_MARK.encode()
_RANK = re.compile(rb"\[r(\d{1,7})\] (\{.*\})")
_STALL_FOLDER = re.compile(r"\d{3}-[a-z-]{1,20}")
_STACK_FILE = re.compile(r"(0-odd-)?[\w.-]{1,100}\.txt")


@dataclass(frozen=True)
class RankLine:
    """A JSON object that a rank printed, in the order of the log."""

    rank: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class StackFile:
    """What one process was doing when progress stopped."""

    name: str
    odd: bool
    text: str


@dataclass
class JobLog:
    """One file. `unread`: lines with the launcher's mark that hold no whole event."""

    path: Path
    events: list[LauncherEvent] = field(default_factory=list)
    lines: list[RankLine] = field(default_factory=list)
    unread: int = 0
    left_out: int = 0  # events beyond what is kept

    def stacks(self, event: LauncherEvent) -> tuple[StackFile, ...]:
        """The stacks that a stall's event names, where they lie beside the log.

        The path stands in the log, so it is no more than a hint: only files of the names that the
        launcher gives, in a folder `stalls/NNN-KIND` below the log's own folder, are read.
        """
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
    """The events of a log. Raises SlipwayError where it cannot be read or has none at all."""
    log = JobLog(path)
    try:
        with path.open("rb") as stream:
            for line in _lines(stream):
                _take(log, line)
    except OSError as error:
        raise SlipwayError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not log.events:
        raise SlipwayError(
            "this is no log of a job: no line of it has an event of the launcher (`launch: {...}`)",
            where=str(path),
            cure="Give what sbatch's --output names, or the output of `./inv sagemaker.logs JOB`.",
        )
    return log


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines, of the longer ones the beginning."""
    while line := stream.readline(LONGEST_LINE):
        yield line
        while len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            line = stream.readline(LONGEST_LINE)


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
    if ranked and len(log.lines) < MOST_EVENTS:
        try:
            values = json.loads(ranked[2])
        except (ValueError, RecursionError):
            return  # a rank may print what it likes
        if isinstance(values, dict):
            log.lines.append(RankLine(int(ranked[1]), values))


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

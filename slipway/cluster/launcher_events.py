"""What the launcher has told of a job: its events, read from the lines that a job has printed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from slipway.core import DOCUMENT_FAULTS, printable

EVENT_MARK = "launch: {"
"""What stands before the JSON of an event (entrypoints/launcher/events.py)."""


_SQSH_CAME = re.compile(r"(\S+): [\d,.]+ MB in (\d{1,9}(?:\.\d+)?) s: (.*)")


class SqshArrival(NamedTuple):
    """A node that has got the .sqsh of a job (--fetch), before its launcher began."""

    host: str
    seconds: float
    text: str  # from where its bytes came


def parse_arrival(line: str) -> SqshArrival | None:
    """What a job's script says of a node that has its .sqsh; None for any other line.

    The words are those of `launch fetch` (entrypoints/launcher/fetch/fetch_command.py).
    """
    came = _SQSH_CAME.fullmatch(line.rstrip("\n"))
    return SqshArrival(came[1], float(came[2]), came[3]) if came else None


@dataclass(frozen=True)
class LauncherEvent:
    """One event. `time` in seconds since 1970, by the clock of `host`.

    `node` is the rank of the node, -1 where the launcher did not know it yet.
    """

    time: float
    host: str
    event: str
    fields: Mapping[str, Any]
    node: int = -1

    @property
    def text(self) -> str:
        """Its fields for a person, long ones cut."""
        return printable(", ".join(f"{name} {_short(v)}" for name, v in self.fields.items()))

    def field(self, name: str) -> str:
        """A field as text, "" where it has none: what is in a job's log may be anything."""
        value = self.fields.get(name)
        return "" if value is None else printable(str(value))

    def count(self, name: str) -> int:
        """A field that is a number, else 0."""
        value = self.fields.get(name)
        return int(value) if isinstance(value, (int, float)) else 0


def parse_event(line: str, host: str = "") -> LauncherEvent | None:
    """The event in a line; None for one that is cut, or of another program.

    `host` is where the line comes from, for events that do not say so.
    """
    _, mark, text = line.partition(EVENT_MARK)
    if not mark:
        return None
    try:
        fields = json.loads("{" + text)
        event = printable(str(fields.pop("event")))
        moment = float(fields.pop("t"))
    except DOCUMENT_FAULTS:
        return None
    if not 0 <= moment < 1 << 33:  # a date that can be shown
        return None
    node = fields.pop("node_rank", -1)
    host = printable(str(fields.pop("host", host)))
    return LauncherEvent(moment, host, event, fields, node if isinstance(node, int) else -1)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

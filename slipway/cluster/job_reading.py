"""What is told of a job by who runs it: when it was asked for, when it began, what it printed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from slipway.core import SlipwayError


class JobNotBegunError(SlipwayError):
    """A job of which no launcher has told anything yet."""


@dataclass(frozen=True)
class JobReading:
    """One job. Times in seconds since 1970, 0 where nobody tells them.

    `submitted` and `started` bound its time in the queue; of a job that was requeued they are of
    its last start. What it printed is a file of this machine (`path`), or `lines`: of those that
    the launcher and the ranks wrote, in the order in which they came.
    """

    name: str
    source: str  # for a person: where all this comes from
    path: Path | None = None
    lines: Iterable[bytes] = ()
    submitted: float = 0.0
    started: float = 0.0
    cut: bool = False  # there is more than `lines` has

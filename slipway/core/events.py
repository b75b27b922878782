"""What long work says while it runs; the console and the log file are two readers of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Event:
    """One thing that happened in a piece of long work.

    `task` names the whole ("build pytorch-2.13-..."), `step` a part of it (a layer, a Dockerfile
    step). `current` and `total` are bytes where `unit` is "B", else counts; 0 means not known. A
    "notice" is a line that a person should read wherever the work is shown.
    """

    kind: Literal["start", "progress", "log", "notice", "done", "cached", "failed"]
    task: str
    step: str = ""
    text: str = ""
    current: int = 0
    total: int = 0
    unit: Literal["B", ""] = ""


OnEvent = Callable[[Event], None]


def silent(event: Event) -> None:
    """For callers that want no progress."""
    del event

"""What the launcher noticed, brought and took away, and how nodes ended. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slipway.cluster import LauncherEvent
from slipway.report.job.job_log import JobLog, StackFile, event_number, event_text
from slipway.report.job.job_nodes import JobNode

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
MOST_NOTICES = 200


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


def read_notice(log: JobLog, node: JobNode, event: LauncherEvent, began: float) -> Notice:
    """One notice, with its stacks where they are to be read."""
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


def find_transfers(nodes: Sequence[JobNode], began: float) -> list[Transfer]:
    """What was brought and taken away, in order of time."""
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


def group_ends(nodes: Sequence[JobNode]) -> list[tuple[str, int, str, str]]:
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

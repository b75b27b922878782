"""The builds of one image that runs have recorded, and what changed between any two. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slipway.derive import BuildInputs, build_reasons
from slipway.records import RecordedRun

MOST_BUILDS = 8
"""Builds of the history; each pair of them has a line of what changed."""


@dataclass(frozen=True)
class BuildRow:
    """One build of the history. `changed`: against the build before it."""

    build_id: str
    at: float  # seconds since 1970
    seconds: float
    size: int
    changed: tuple[str, ...]


@dataclass(frozen=True)
class BuildPair:
    """What changed between two builds that do not follow each other."""

    old: str
    new: str
    changed: tuple[str, ...]


def built_notes(runs: Sequence[RecordedRun], name: str) -> list[Mapping[str, Any]]:
    """What runs recorded of the builds of one image, oldest first."""
    return [
        note
        for run in runs
        for note in run.notes
        if note.get("what") == "built" and note.get("image") == name
    ]


def build_history(
    notes: Sequence[Mapping[str, Any]],
) -> tuple[tuple[BuildRow, ...], tuple[BuildPair, ...]]:
    """The last builds, newest first, with what changed between any two."""
    last = [note for note in notes if isinstance(note.get("inputs"), dict)][-MOST_BUILDS:]
    rows = [
        BuildRow(
            str(note.get("build_id", "")),
            _number(note.get("t")),
            _number(note.get("seconds")),
            int(_number(note.get("size"))),
            changed_inputs(last[at - 1]["inputs"], note["inputs"]) if at else ("the first",),
        )
        for at, note in enumerate(last)
    ]
    pairs = [
        BuildPair(
            rows[old].build_id,
            rows[new].build_id,
            changed_inputs(last[old]["inputs"], last[new]["inputs"]),
        )
        for new in range(len(last))
        for old in range(new - 1)
    ]
    return tuple(reversed(rows)), tuple(reversed(pairs))


def changed_inputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """Why the second build is another than the first."""
    if old == new:
        return ("nothing: it was built again",)
    try:
        return build_reasons(old, BuildInputs(**new))
    except (TypeError, AttributeError, KeyError):
        return ("recorded by another version of Slipway",)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0

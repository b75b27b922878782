"""Things worth knowing, said once for all that they are about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

MOST_NAMES = 6


class Note(NamedTuple):
    """`text` is true of `about`; the same text about several things is one line for a person."""

    about: str
    text: str


def grouped(notes: Iterable[Note]) -> list[str]:
    """One line for each text, with the names that it is about (the first few where many)."""
    by_text: dict[str, set[str]] = {}
    for note in notes:
        by_text.setdefault(note.text, set()).add(note.about)
    lines = []
    for text, names in sorted(by_text.items()):
        some = sorted(names)
        more = f" and {len(some) - MOST_NAMES} more" if len(some) > MOST_NAMES else ""
        lines.append(f"note: {text}: {', '.join(some[:MOST_NAMES])}{more}")
    return lines

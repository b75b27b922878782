"""Sizes and times as people read them, and the nearest of known names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from slipway.core.events import Event


def human_bytes(count: float) -> str:
    """Decimal units, three digits: what registries and disks are sold in."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def human_seconds(seconds: float) -> str:
    """`12.3 s`, `4 min 05 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def amount(event: Event, elapsed: float) -> str:
    """`120 MB of 500 MB, 40 MB/s, 9.5 s left`, as far as it is known."""
    if event.unit != "B":
        return f"{event.current} of {event.total}" if event.total else ""
    if not event.current:
        return ""
    rate = event.current / elapsed if elapsed > 0.5 else 0.0
    parts = [human_bytes(event.current)]
    if event.total:
        parts[0] += f" of {human_bytes(event.total)}"
    if rate:
        parts.append(f"{human_bytes(rate)}/s")
        if event.total > event.current:
            parts.append(f"{human_seconds((event.total - event.current) / rate)} left")
    return ", ".join(parts)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean ...?)` with the nearest known words, or nothing where none is near."""
    near = get_close_matches(word, sorted(known), n=3, cutoff=0.75)
    words = " or ".join(filter(None, (", ".join(near[:-1]), *near[-1:])))
    return f" (did you mean {words}?)" if near else ""

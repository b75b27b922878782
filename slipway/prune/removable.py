"""One kind of things that can go, for a plan that a person agrees to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slipway.core import human_bytes

_SHOWN = 4


@dataclass(frozen=True)
class Removable:
    """One thing. `size` in bytes: for images, only what no other image shares."""

    name: str
    size: int


@dataclass(frozen=True)
class RemovalStep:
    """Things of one kind. `remove` removes one; a sentence where it had to stay."""

    what: str
    items: tuple[Removable, ...]
    remove: Callable[[Removable], str | None]

    @property
    def size(self) -> int:
        """Bytes that go at least."""
        return sum(item.size for item in self.items)

    def row(self) -> tuple[str, str, str, str]:
        """For a table."""
        names = ", ".join(item.name for item in self.items[:_SHOWN])
        more = len(self.items) - _SHOWN
        shown = f"{names}, and {more} more" if more > 0 else names
        return (self.what, str(len(self.items)), human_bytes(self.size), shown)

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        items = [{"name": item.name, "bytes": item.size} for item in self.items]
        return {"what": self.what, "bytes": self.size, "items": items}

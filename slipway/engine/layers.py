"""The daemon's progress lines of a pull or a push, as Events."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slipway.report.events import Event, OnEvent

# Statuses whose numbers are bytes over the network; extracting counts the same layer again.
_MOVING = ("Downloading", "Pushing")
_DONE = ("Pull complete", "Pushed")
_ARRIVED = ("Download complete", *_DONE)
_CACHED = ("Already exists", "Layer already exists", "Mounted from")


_PUSHED = re.compile(r"^\S+: digest: (\w+:[0-9a-f]+) size: \d+$")


def pushed_digest(line: Mapping[str, Any]) -> str | None:
    """The manifest digest, if this line of a push tells it.

    Engines with graph drivers tell it twice, as a status and as "aux"; those with the containerd
    store as a status alone.
    """
    found = _PUSHED.match(str(line.get("status", "")))
    return found[1] if found else (line.get("aux") or {}).get("Digest")


@dataclass
class Layers:
    """Byte progress over all layers, and one event a layer when it is there."""

    task: str
    on_event: OnEvent
    bytes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, line: Mapping[str, Any]) -> None:
        """One JSON line of the answer; those that tell nothing of a layer are passed over."""
        layer, status = str(line.get("id", "")), str(line.get("status", ""))
        detail = line.get("progressDetail") or {}
        if status in _MOVING and "current" in detail:
            now = int(detail["current"])
            # A push compresses on the way, and its total is that of the uncompressed layer.
            self._moved(layer, now, max(now, int(detail.get("total") or 0)))
        elif status in _ARRIVED and layer in self.bytes:
            total = self.bytes[layer][1]
            self._moved(layer, total, total)
        if status in _DONE:
            self.on_event(Event("done", self.task, layer, status))
        elif status.startswith(_CACHED):
            self.on_event(Event("cached", self.task, layer, status))

    def _moved(self, layer: str, current: int, total: int) -> None:
        if self.bytes.get(layer) == (current, total):
            return
        self.bytes[layer] = (current, total)
        self.on_event(
            Event(
                "progress",
                self.task,
                current=sum(current for current, _ in self.bytes.values()),
                total=sum(total for _, total in self.bytes.values()),
                unit="B",
            )
        )

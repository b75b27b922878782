"""One JSON line on stderr for each thing that the launcher does or notices."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

_lock = threading.Lock()
_place: dict[str, Any] = {}


def at(host: str, node_rank: int) -> None:
    """Name the node that the following events come from."""
    _place.update(host=host, node_rank=node_rank)


def emit(event: str, **fields: Any) -> None:
    """Print one event. `event` is a short verb or state; `fields` must be JSON values."""
    line = json.dumps({"t": round(time.time(), 3), **_place, "event": event, **fields})
    with _lock:
        sys.stderr.write(f"launch: {line}\n")
        sys.stderr.flush()

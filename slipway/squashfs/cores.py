"""How many cores there are to work with."""

from __future__ import annotations

import os


def cpu_count() -> int:
    """Cores that this process may use, which in a container or job are fewer than there are."""
    return len(os.sched_getaffinity(0))

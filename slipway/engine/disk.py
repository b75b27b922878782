"""Telling a full disk from other failures, and saying which disk it is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from slipway.engine.client import Engine
from slipway.engine.errors import DiskFullError

_FULL = re.compile(r"no space left on device|disk quota exceeded|errno 28\b", re.IGNORECASE)


def is_full(text: str) -> bool:
    """Whether an error text of the daemon, or of a program in a container, says ENOSPC."""
    return bool(_FULL.search(text))


def disk_full(engine: Engine, doing: str) -> DiskFullError:
    """The error to raise, with the free space of the engine's disk where it is this machine's."""
    root = Path(engine.data_root)
    free = ""
    if engine.url.startswith("unix:") and root.exists():
        free = f", where {_amount(shutil.disk_usage(root).free)} are free now"
    return DiskFullError(
        f"no space left while {doing}; the engine keeps its data in {root}{free}",
        where=engine.url,
        cure="Make room on that disk (unused images and build cache are the first to go), "
        + (
            "or set SLIPWAY_STATE to a folder on a larger one."
            if engine.embedded
            else "or move the daemon's data-root to a larger one."
        ),
    )


def _amount(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

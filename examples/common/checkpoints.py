"""Checkpoints on this disk: how many, and which. Needs nothing but Python.

The launcher takes a checkpoint for complete by the file that is written last: DCP's `.metadata`,
DeepSpeed's `latest`, `trainer_state.json` (entrypoints/launcher/data/checkpoints.py).
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path


def step_of(path: Path) -> int:
    """The step in a checkpoint's name; -1 without one."""
    number = re.search(r"(\d+)$", path.name)
    return int(number[1]) if number else -1


def old(directory: Path, pattern: str, keep: int) -> list[Path]:
    """All checkpoints but the newest `keep`."""
    found = [path for path in directory.glob(pattern) if step_of(path) >= 0]
    return sorted(found, key=step_of)[:-keep]


def remove(checkpoint: Path, last_file: str) -> None:
    """Delete one; first the file that makes it complete, so that no half of it looks whole."""
    (checkpoint / last_file).unlink(missing_ok=True)
    # On a shared file system another node's rank may be deleting the same.
    shutil.rmtree(checkpoint, ignore_errors=True)

"""A lock on a file: one process at a time, and the pid of the one that holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from slipway.core.errors import SlipwayError


@contextlib.contextmanager
def exclusive(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock file at `path`, or raise SlipwayError naming the process that holds it.

    The kernel drops the lock with the process, so a killed run leaves nothing to clean.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
            raise SlipwayError(
                f"{owner} is at work in this project already",
                where=str(path),
                cure="Wait for it to end, or end it, and run this again.",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"inv {doing} (pid {os.getpid()})\n".encode(), 0)
        yield
    finally:
        os.close(handle)

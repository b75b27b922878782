"""Where uploads stand that a later run goes on with: after Ctrl-C, a kill, a job's time limit.

A record is one file for a blob on its way into a repository, and its lock: two that write into one
session would spoil it, so whoever comes second opens a session of his own. A record may be wrong
(the registry has forgotten the session, or has more of it): the registry is asked first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from slipway.core import FileLock

_LONGEST = 8192  # characters of a location
_OFFSET_DIGITS = 18
_DAY_S = 86400.0  # registries remove uploads that are older (Distribution after a week)


class UploadRecord:
    """Where one upload stands. Without a lock nothing is known, and nothing is kept."""

    def __init__(self, lock: FileLock | None) -> None:
        self._lock = lock

    def session(self) -> tuple[str, int | None] | None:
        """Where the session of an earlier run goes on, and how much of the blob it then had where
        the registry does not tell that; None where no session is known."""
        if self._lock is None:
            return None
        raw = os.pread(self._lock.handle, _LONGEST + _OFFSET_DIGITS + 2, 0)
        location, *noted = raw.decode("ascii", "replace").split("\n")
        if not noted or "://" not in location:  # one that was cut short has no end
            return None
        offset = noted[0] if len(noted) > 1 else ""
        return location, int(offset) if offset.isdigit() else None

    def keep(self, location: str, offset: int | None = None) -> None:
        """The session goes on there; `offset` where only we know how much of the blob it has."""
        if self._lock is not None and len(location) <= _LONGEST and location.isascii():
            lines = [location] if offset is None else [location, str(offset)]
            self._write("".join(f"{line}\n" for line in lines).encode())

    def forget(self) -> None:
        """The blob is there, or the session is lost."""
        self._write(b"")

    def _write(self, content: bytes) -> None:
        # A record that cannot be written is none: it saves bytes and decides nothing.
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._lock.handle, 0)
                os.pwrite(self._lock.handle, content, 0)


@contextlib.contextmanager
def upload_record(folder: Path | None, name: str) -> Iterator[UploadRecord]:
    """The record of an upload, held; an empty one where another has it, or without a folder.

    `name` is the registry's, the repository's and the blob's together.
    """
    lock = _held(folder, name) if folder is not None else None
    record = UploadRecord(lock)
    try:
        yield record
    finally:
        if lock is not None:
            if record.session() is None:
                lock.path.unlink(missing_ok=True)
            lock.release()


def _held(folder: Path, name: str) -> FileLock | None:
    """The lock of a record; None where it is another's, or where nothing can be written."""
    path = folder / hashlib.sha256(name.encode()).hexdigest()[:32]
    try:
        old = path.exists() and time.time() - path.stat().st_mtime > _DAY_S
        lock = FileLock(path)
    except OSError:
        return None
    if not lock.own(wait=False):
        lock.release()
        return None
    os.fchmod(lock.handle, 0o600)  # a location may be signed for whoever has it
    if old:
        UploadRecord(lock).forget()
    return lock

"""One process at a time fetches a file into a folder, on this node or on all that share the folder.

The lock is the kernel's (flock), so that a process that is killed leaves none behind. Folders of
file systems without such locks are worked in all the same, by a file of one's own.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher import events
from launcher.fetch.sqsh_sidecar import FetchError
from launcher.stop_request import StopRequest

_BUSY = (errno.EACCES, errno.EAGAIN)
_POLL_SECONDS = 0.2


@contextmanager
def file_turn(target: Path, halt: StopRequest) -> Iterator[bool]:
    """Wait until no other process fetches `target`; False where nothing tells who does."""
    path = target.with_name(f".{target.name}.lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        # For all users of the node: whoever may write in the folder may fetch into it.
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        raise FetchError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        yield _hold(handle, path, halt)
    finally:
        os.close(handle)


def _hold(handle: int, path: Path, halt: StopRequest) -> bool:
    told = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in _BUSY:
                events.emit("fetch-unlocked", path=str(path), error=str(error))
                return False
        if not told:
            told = True
            events.emit("fetch-waits", path=str(path), why="another process fetches the file")
        halt.sleep(_POLL_SECONDS)

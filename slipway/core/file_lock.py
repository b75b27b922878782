"""Locks that the kernel drops with the process that holds them: a killed run leaves none behind.

All are flock(2) on a file that stays: removing a lock file would let a second process lock a new
one of the same name while the first still holds the old one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from slipway.core.errors import SlipwayError

OnWait = Callable[[str], None]
"""Hears who holds a lock that is waited for."""


class FileLock:
    """A lock file, made where it is missing and not held yet; `release` lets go. Raises OSError."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def share(self, on_wait: OnWait | None = None) -> None:
        """Hold it together with others; waits for one that holds it alone."""
        self._hold(fcntl.LOCK_SH, on_wait)

    def own(self, *, wait: bool = True, on_wait: OnWait | None = None) -> bool:
        """Hold it alone. False where that would mean waiting and `wait` is not wanted."""
        if wait:
            self._hold(fcntl.LOCK_EX, on_wait)
            return True
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _hold(self, how: int, on_wait: OnWait | None) -> None:
        try:
            fcntl.flock(self.handle, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait(describe_holders(self.handle))
            fcntl.flock(self.handle, how)

    def release(self) -> None:
        """Let go."""
        os.close(self.handle)


def _lock_holders(handle: int) -> list[int]:
    """The processes that hold a file's lock, as the kernel lists them (proc_locks(5)).

    A process of another PID namespace is listed as 0. By the inode alone: on overlayfs and btrfs
    the device there is not the one that stat says.
    """
    inode = os.fstat(handle).st_ino
    holders = []
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            holders.append(int(fields[4]))
    return sorted(set(holders) - {0, os.getpid()})


def describe_holders(handle: int) -> str:
    """Who holds a file's lock: `process 71 (python), which is stopped (...)`, for each."""
    described = []
    for pid in _lock_holders(handle):
        text = f"process {pid}"
        with contextlib.suppress(OSError, IndexError):  # it has ended meanwhile
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
            text += f" ({name.partition('(')[2]})"
            if rest.split()[0] in "Tt":
                text += f", which is stopped (`kill -CONT {pid}` lets it go on)"
        described.append(text)
    return " and ".join(described) or "another process"


@contextlib.contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` alone, after waiting for its turn. Raises OSError."""
    lock = FileLock(path)
    try:
        lock.own()
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def exclusive(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock file at `path`, or raise SlipwayError naming the process that holds it."""
    try:
        lock = FileLock(path)
    except OSError as error:
        raise SlipwayError(
            f"the lock file cannot be written: {error.strerror}",
            where=str(path),
            cure="Have its folder belong to this user, on a disk that is writable; "
            "SLIPWAY_STATE names another folder for a checkout's own.",
        ) from error
    try:
        if not lock.own(wait=False):
            owner = os.pread(lock.handle, 200, 0).decode(errors="replace").strip()
            raise SlipwayError(
                f"{owner or 'another process'} is at work in this project already",
                where=str(path),
                cure="Wait for it to end, or end it, and run this again.",
            )
        os.ftruncate(lock.handle, 0)
        os.pwrite(lock.handle, f"inv {doing} (pid {os.getpid()})\n".encode(), 0)
        yield
    finally:
        lock.release()


def lock_is_held(path: Path) -> bool:
    """Whether a process holds this lock alone at this moment; changes nothing."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False

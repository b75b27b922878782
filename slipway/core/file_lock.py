"""Locks that the kernel drops with the process that holds them: a killed run leaves none behind.

All are flock(2) on a file that stays: removing a lock file would let a second process lock a new
one of the same name while the first still holds the old one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from slipway.core.console import say
from slipway.core.errors import SlipwayError

_EVERY_S = 0.05
_QUIET_S = 5.0  # of a wait for one that is at work, where nobody asked to hear of it
_STOPPED_S = 10.0  # Ctrl-Z and `fg` in between are no reason to give up

_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Of Lustre without its mount option `flock`, and of NFS without its lock daemon."""

OnWait = Callable[[str], None]
"""Hears who holds a lock that is waited for."""


class FileLock:
    """A lock file, made where it is missing and not held yet; `release` lets go. Raises OSError.

    A wait for a holder that is stopped (SIGSTOP, Ctrl-Z) would have no end: it is a SlipwayError.
    So is a file system that has no locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
        return self._takes(fcntl.LOCK_EX)

    def _hold(self, how: int, on_wait: OnWait | None) -> None:
        stopped_since, told = None, False
        say_at = time.monotonic() + (0 if on_wait else _QUIET_S)
        while not self._takes(how):
            now = time.monotonic()
            stopped = any(map(_is_stopped, _lock_holders(self.handle)))
            if not told and (stopped or now >= say_at):
                told = True
                holders = describe_holders(self.handle)
                (on_wait or say)(holders if on_wait else f"waiting for {holders}: {self.path}")
            if not stopped:
                stopped_since = None
            elif now - (stopped_since := stopped_since or now) > _STOPPED_S:
                raise SlipwayError(
                    f"it is held by {describe_holders(self.handle)}",
                    where=str(self.path),
                    cure="Let that process go on, or end it, and run this again.",
                )
            time.sleep(_EVERY_S)

    def _takes(self, how: int) -> bool:
        try:
            fcntl.flock(self.handle, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise _lockless(self.path, error) from error
            raise
        return True

    def release(self) -> None:
        """Let go; once more does nothing, as after an interrupt between this and what follows."""
        handle, self.handle = self.handle, -1
        if handle >= 0:
            os.close(handle)


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


def _stat(pid: int) -> tuple[str, str]:
    """The name and state of proc_pid_stat(5), empty for a process that is gone."""
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
        return name.partition("(")[2], rest.split()[0]
    except (OSError, IndexError):
        return "", ""


def _is_stopped(pid: int) -> bool:
    return _stat(pid)[1] in ("T", "t")


def describe_holders(handle: int) -> str:
    """Who holds a file's lock: `process 71 (python), which is stopped (...)`, for each."""
    described = []
    for pid in _lock_holders(handle):
        text = f"process {pid}"
        if name := _stat(pid)[0]:
            text += f" ({name})"
        if _is_stopped(pid):
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
def service_lock(folder: Path, service: str, failure: type[SlipwayError]) -> Iterator[None]:
    """One start or stop of a program of ours at a time; who comes second waits, and may find it
    running. Raises `failure` where the folder takes no lock."""
    try:
        lock = FileLock(folder / "lock")
    except OSError as error:
        raise failure(
            f"{service} cannot keep its files there: {error.strerror}",
            where=str(folder),
            cure="SLIPWAY_STATE names another place for them.",
        ) from error
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
        raise _unwritable(path, error) from error
    try:
        if not lock.own(wait=False):
            owner = os.pread(lock.handle, 200, 0).decode(errors="replace").strip()
            if any(map(_is_stopped, _lock_holders(lock.handle))):
                owner = f"{owner}: {describe_holders(lock.handle)}; it"
            raise SlipwayError(
                f"{owner or 'another process'} is at work in this project already",
                where=str(path),
                cure="Wait for it to end, or end it, and run this again.",
            )
        try:
            os.ftruncate(lock.handle, 0)
            os.pwrite(lock.handle, f"inv {doing} (pid {os.getpid()})\n".encode(), 0)
        except OSError as error:
            raise _unwritable(path, error) from error
        yield
    finally:
        lock.release()


def _lockless(path: Path, error: OSError) -> SlipwayError:
    return SlipwayError(
        f"its file system has no locks: {error.strerror}",
        where=str(path),
        cure="Mount it with them (Lustre: the option `flock`). SLIPWAY_STATE names another folder "
        "for a checkout's own files, SLIPWAY_SHARED one that machines share without locks.",
    )


def _unwritable(path: Path, error: OSError) -> SlipwayError:
    return SlipwayError(
        f"the lock file cannot be written: {error.strerror}",
        where=str(path),
        cure="Have its folder belong to this user, on a disk that is writable and has room; "
        "SLIPWAY_STATE names another folder for a checkout's own.",
    )


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
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    finally:
        os.close(handle)
    return False

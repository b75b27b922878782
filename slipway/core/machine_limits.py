"""What a machine that lacks something says through Python, as an error that a person can act on.

Where a file, a process or memory is asked for there is always one more place that can fail so. What
knows more (whose file it is, what else can be done) raises its own error; this is for the rest.
"""

from __future__ import annotations

import errno

from slipway.core.errors import SlipwayError, printable

_SPACE = "Free some space there, or inodes (df, df -i), and run it again: it goes on."
_CURES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "A limit on the size of files stands in the way: ulimit -f.",
    errno.EMFILE: "Raise the number of open files: ulimit -n 4096.",
    errno.ENFILE: "The whole machine has no open file left: see /proc/sys/fs/file-nr.",
    errno.EAGAIN: "A limit on processes stands in the way: ulimit -u, or the cgroup's pids.max.",
    errno.ENOMEM: "Give it more memory, or end something else.",
    errno.EROFS: "The file system is read-only: mount it writable, or set SLIPWAY_STATE.",
    errno.EIO: "The disk or its connection fails: the kernel's log (dmesg) says which.",
}
_NO_THREAD = "can't start new thread"  # CPython's thread_PyThread_start_new_thread


def machine_limit(error: BaseException) -> SlipwayError | None:
    """The error as ours; None for one that is no limit of the machine."""
    if isinstance(error, MemoryError):
        return SlipwayError("there is no memory left", cure=_CURES[errno.ENOMEM])
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return SlipwayError("no thread can be started", cure=_CURES[errno.EAGAIN])
    if not isinstance(error, OSError) or error.errno not in _CURES:
        return None
    where = printable(str(error.filename)) if error.filename is not None else None
    return SlipwayError(f"{error.strerror}".lower(), where=where, cure=_CURES[error.errno])

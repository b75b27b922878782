"""Copying one entry of a tree so that overlayfs, and everybody else, sees the same thing.

What must survive, beside the bytes: owners, modes, times (ns), holes, device numbers (a character
device 0:0 is a whiteout), and every xattr (`trusted.overlay.opaque` hides a lower folder,
`security.capability` is a file's privileges). Losing a whiteout or an opaque mark brings deleted
files back inside images (the kernel's Documentation/filesystems/overlayfs.rst, "whiteouts and
opaque directories").
"""

# Strings and descriptors, not pathlib: this runs for every file, and the paths are relative to an
# open folder.
# ruff: noqa: PTH101

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SMALL = 256 << 10  # read and written in one go
_CHUNK = 4 << 20

Progress = Callable[[int], None]
"""Called with the bytes copied since the last call, for files larger than one chunk."""


def fd_path(folder: int, name: str) -> str:
    """A path to an entry of an open folder, for the calls that take no folder descriptor."""
    return f"/proc/self/fd/{folder}/{name}"


@contextmanager
def open_entry(name: str, flags: int, folder: int | None = None) -> Iterator[int]:
    """A descriptor of a file or folder, closed with the block. Raises OSError."""
    handle = os.open(name, flags | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield handle
    finally:
        os.close(handle)


def same_entry(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two entries agree in all that stat(2) tells of content and rights.

    A copy gets its mtime last, so a copy that agrees is whole.
    """
    sizes = stat.S_ISDIR(one.st_mode) or (  # a folder's size is the file system's own business
        one.st_size == other.st_size and one.st_rdev == other.st_rdev
    )
    return (
        sizes
        and one.st_mode == other.st_mode
        and one.st_uid == other.st_uid
        and one.st_gid == other.st_gid
        and one.st_mtime_ns == other.st_mtime_ns
    )


def read_entry_xattrs(entry: str | int) -> dict[str, bytes]:
    """All extended attributes of an open file, or of a path that is not followed."""
    follow = isinstance(entry, int)
    names = os.listxattr(entry, follow_symlinks=follow)
    return {name: os.getxattr(entry, name, follow_symlinks=follow) for name in names}


def give_metadata(source: str | int, target: str | int, status: os.stat_result) -> None:
    """Owner, mode, xattrs and times of an entry: both are open, or paths that are not followed."""
    follow = isinstance(target, int)
    # In this order: chown clears set-id bits and file capabilities, and mtime says "whole".
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=follow)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    for name, value in read_entry_xattrs(source).items():
        os.setxattr(target, name, value, follow_symlinks=follow)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=follow)


def _copy_file(
    name: str, status: os.stat_result, source: int, target: int, on_bytes: Progress
) -> None:
    # Without open_entry, whose generators would cost a tenth of what a small file does.
    read = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        write = os.open(name, flags, 0o600, dir_fd=target)
        try:
            if status.st_blocks * 512 < status.st_size:
                _copy_sparse(read, write, status.st_size, on_bytes)
            elif status.st_size:
                _copy_range(read, write, 0, status.st_size, on_bytes)
            give_metadata(read, write, status)
        finally:
            os.close(write)
    finally:
        os.close(read)


def _copy_range(read: int, write: int, start: int, end: int, on_bytes: Progress) -> None:
    if end - start <= _SMALL:
        data = os.pread(read, end - start, start)
        if len(data) == end - start and os.pwrite(write, data, start) == len(data):
            return
    os.lseek(write, start, os.SEEK_SET)
    position = start
    while position < end:
        # sendfile(2) moves pages inside the kernel; copy_file_range(2) works between two file
        # systems only where both are of one type that has it.
        count = os.sendfile(write, read, position, min(_CHUNK, end - position))
        if count == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        position += count
        if end - start > _CHUNK:
            on_bytes(count)


def _copy_sparse(read: int, write: int, size: int, on_bytes: Progress) -> None:
    position = 0
    while position < size:
        try:
            start = os.lseek(read, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                break
            raise
        position = os.lseek(read, start, os.SEEK_HOLE)
        _copy_range(read, write, start, position, on_bytes)
    os.ftruncate(write, size)


def _copy_special(name: str, status: os.stat_result, source: int, target: int) -> None:
    """A symbolic link, a device (a whiteout too), a fifo or a socket."""
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
    give_metadata(fd_path(source, name), fd_path(target, name), status)


def copy_entry(
    name: str,
    status: os.stat_result,
    folders: tuple[int, int],
    on_bytes: Progress,
    *,
    resume: bool,
) -> None:
    """Copy anything but a folder, from one open folder to the other.

    With `resume` an entry that is there and whole is kept. Raises FileExistsError, OSError.
    """
    source, target = folders
    try:
        _copy_new(name, status, source, target, on_bytes)
    except FileExistsError:
        if not resume:
            raise
        if not same_entry(status, os.lstat(fd_path(target, name))):
            os.unlink(name, dir_fd=target)
            _copy_new(name, status, source, target, on_bytes)


def _copy_new(
    name: str, status: os.stat_result, source: int, target: int, on_bytes: Progress
) -> None:
    if stat.S_ISREG(status.st_mode):
        _copy_file(name, status, source, target, on_bytes)
    else:
        _copy_special(name, status, source, target)

"""Copying one entry of a tree so that overlayfs, and everybody else, sees the same thing.

What must survive, beside the bytes: owners, modes, times (ns), holes, device numbers (a character
device 0:0 is a whiteout), and every xattr (`trusted.overlay.opaque` hides a lower folder,
`security.capability` is a file's privileges). Losing a whiteout or an opaque mark brings deleted
files back inside images (the kernel's Documentation/filesystems/overlayfs.rst, "whiteouts and
opaque directories").
"""

# Strings and descriptors, not pathlib: this runs for every file, and the paths are relative to an
# open folder.
# ruff: noqa: PTH101, PTH116

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

_SMALL = 256 << 10  # read and written in one go
_CHUNK = 4 << 20

Progress = Callable[[int], None]
"""Called with the bytes copied since the last call, for files larger than one chunk."""


def join_path(folder: str, name: str) -> str:
    """`folder/name`, for a folder that may be the root ("") of its tree."""
    return f"{folder}/{name}" if folder else name


def fd_path(folder: int, name: str) -> str:
    """A path to an entry of an open folder, for the calls that take no folder descriptor."""
    return f"/proc/self/fd/{folder}/{name}"


def same_entry(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two entries agree in all that stat(2) tells of content and rights.

    A copy gets its mtime last, so a copy that agrees is whole.
    """
    if stat.S_ISDIR(one.st_mode):
        sizes = True  # a folder's size is the file system's own business
    else:
        sizes = one.st_size == other.st_size and one.st_rdev == other.st_rdev
    return (
        sizes
        and one.st_mode == other.st_mode
        and one.st_uid == other.st_uid
        and one.st_gid == other.st_gid
        and one.st_mtime_ns == other.st_mtime_ns
    )


def read_entry_xattrs(path: str | int) -> dict[str, bytes]:
    """All extended attributes of an open file, or of a path that is not followed."""
    follow = isinstance(path, int)
    names = os.listxattr(path, follow_symlinks=follow)
    return {name: os.getxattr(path, name, follow_symlinks=follow) for name in names}


def copy_file(
    name: str, status: os.stat_result, source: int, target: int, on_bytes: Progress
) -> None:
    """Copy a regular file from one open folder to another. Raises FileExistsError, OSError."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    read = os.open(name, flags, dir_fd=source)
    try:
        write = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target
        )
        try:
            if status.st_blocks * 512 < status.st_size:
                _copy_sparse(read, write, status.st_size, on_bytes)
            elif status.st_size:
                _copy_range(read, write, 0, status.st_size, on_bytes)
            _give_metadata(read, write, status)
        finally:
            os.close(write)
    finally:
        os.close(read)


def _give_metadata(read: int, write: int, status: os.stat_result) -> None:
    # In this order: chown clears set-id bits and file capabilities, and mtime says "whole".
    os.fchown(write, status.st_uid, status.st_gid)
    os.fchmod(write, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(read):
        os.setxattr(write, name, os.getxattr(read, name))
    os.utime(write, ns=(status.st_atime_ns, status.st_mtime_ns))


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


def copy_special(name: str, status: os.stat_result, source: int, target: int) -> None:
    """Copy a symbolic link, a device (a whiteout too), a fifo or a socket."""
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)  # mknod obeys the umask
    for key, value in read_entry_xattrs(fd_path(source, name)).items():
        os.setxattr(fd_path(target, name), key, value, follow_symlinks=False)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def copy_entry(
    name: str,
    status: os.stat_result,
    source: int,
    target: int,
    on_bytes: Progress,
    *,
    resume: bool,
) -> None:
    """Copy anything but a folder. With `resume` an entry that is there and whole is kept."""
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
        copy_file(name, status, source, target, on_bytes)
    else:
        copy_special(name, status, source, target)


def finish_folder(source: str, target: str) -> None:
    """Give a folder its owner, mode, xattrs and times, after all its entries are there."""
    status = os.stat(source)
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    for key, value in read_entry_xattrs(source).items():
        os.setxattr(target, key, value)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

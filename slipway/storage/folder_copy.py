"""Copying and comparing one folder of a tree at a time: the jobs of tree_copy's processes."""

# Strings and descriptors, not pathlib: see entry_copy.py.
# ruff: noqa: PTH108, PTH208

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import signal
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from slipway.storage.entry_copy import (
    Progress,
    copy_entry,
    fd_path,
    give_metadata,
    open_entry,
    read_entry_xattrs,
    same_entry,
)

_SAMPLE_EVERY = 50
"""One file in so many has all its bytes compared; a large one is compared in three places."""
_LARGE = 64 << 20
_BLOCK = 1 << 20
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass
class FolderAnswer:
    """What became of a job. `links` are (inode, inode of the copy or 0, path) of hard links."""

    folders: list[str] = field(default_factory=list)
    links: list[tuple[int, int, str]] = field(default_factory=list)
    wrong: list[tuple[str, str]] = field(default_factory=list)  # path, in what the copy differs
    bytes: int = 0


@dataclass(frozen=True)
class TreePair:
    """A tree and its copy, which is expected to stay on `device` (0: not checked)."""

    source: str
    target: str
    device: int = 0
    resume: bool = False

    @contextmanager
    def _open(self, relative: str) -> Iterator[tuple[int, int]]:
        flags = os.O_RDONLY | os.O_DIRECTORY
        with (
            open_entry(_join(self.source, relative), flags) as source,
            open_entry(_join(self.target, relative), flags) as target,
        ):
            # After `umount --lazy` the same path is a folder on the disk below.
            if self.device and os.fstat(target).st_dev != self.device:
                raise OSError(errno.ENODEV, "another file system is mounted there now")
            yield source, target

    def copy(self, relative: str, on_bytes: Progress) -> FolderAnswer:
        """Copy one folder's entries. Its folders are made and named; its hard links are named."""
        answer = FolderAnswer()

        def tell(count: int) -> None:
            answer.bytes -= count
            on_bytes(count)

        with self._open(relative) as folders, os.scandir(folders[0]) as listing:
            device = os.fstat(folders[0]).st_dev
            for entry in listing:
                status = entry.stat(follow_symlinks=False)
                path = _join(relative, entry.name)
                if status.st_dev != device:
                    raise OSError(errno.EXDEV, "something is mounted there", path)
                if stat.S_ISDIR(status.st_mode):
                    with suppress(FileExistsError) if self.resume else nullcontext():
                        os.mkdir(entry.name, 0o700, dir_fd=folders[1])
                    answer.folders.append(path)
                elif status.st_nlink > 1:
                    answer.links.append((status.st_ino, 0, path))
                else:
                    copy_entry(entry.name, status, folders, tell, resume=self.resume)
                    answer.bytes += status.st_blocks * 512
        return answer

    def link(self, groups: list[list[str]], _: Progress) -> FolderAnswer:
        """Copy the first path of each group, and link the others to it."""
        answer = FolderAnswer()
        for first, *others in groups:
            folder, name = os.path.split(first)
            with self._open(folder) as folders:
                status = os.lstat(fd_path(folders[0], name))
                copy_entry(name, status, folders, lambda _: None, resume=self.resume)
                answer.bytes += status.st_blocks * 512
            for other in (_join(self.target, path) for path in others):
                if self.resume:
                    with suppress(FileNotFoundError):
                        os.unlink(other)
                os.link(_join(self.target, first), other, follow_symlinks=False)
        return answer

    def finish(self, folders: list[str], _: Progress) -> FolderAnswer:
        """Give folders their metadata, after all their entries are there."""
        for relative in folders:
            with self._open(relative) as (source, target):
                give_metadata(source, target, os.fstat(source))
        return FolderAnswer()

    def compare(self, relative: str, _: Progress) -> FolderAnswer:
        """Compare one folder's entries on both sides."""
        answer = FolderAnswer()
        with self._open(relative) as (source, target):
            names = set(os.listdir(source))
            for name in sorted(set(os.listdir(target)) - names):
                answer.wrong.append((_join(relative, name), "is only in the copy"))
            for name in sorted(names):
                _compare_entry(answer, _join(relative, name), source, target)
        return answer


def _join(folder: str, name: str) -> str:
    """`folder/name`, either of which may be the root ("") of a tree."""
    return f"{folder}/{name}" if folder and name else folder or name


def _compare_entry(answer: FolderAnswer, path: str, source: int, target: int) -> None:
    name = path.rpartition("/")[2]
    ours = os.lstat(fd_path(source, name))
    try:
        theirs = os.lstat(fd_path(target, name))
    except FileNotFoundError:
        answer.wrong.append((path, "is missing in the copy"))
        return
    if reason := _difference(path, ours, theirs, source, target):
        answer.wrong.append((path, reason))
    elif stat.S_ISDIR(ours.st_mode):
        answer.folders.append(path)
    elif ours.st_nlink > 1:
        answer.links.append((ours.st_ino, theirs.st_ino, path))
    if stat.S_ISREG(ours.st_mode):
        answer.bytes += ours.st_size


def _difference(
    path: str, ours: os.stat_result, theirs: os.stat_result, source: int, target: int
) -> str | None:
    name = path.rpartition("/")[2]
    if not same_entry(ours, theirs):
        return "differs in type, size, owner, mode or time"
    if stat.S_ISLNK(ours.st_mode) and os.readlink(name, dir_fd=source) != os.readlink(
        name, dir_fd=target
    ):
        return "points elsewhere"
    if read_entry_xattrs(fd_path(source, name)) != read_entry_xattrs(fd_path(target, name)):
        return "differs in extended attributes"
    sampled = ours.st_size > _LARGE or zlib.crc32(os.fsencode(path)) % _SAMPLE_EVERY == 0
    if stat.S_ISREG(ours.st_mode) and sampled:
        # The copy's from the disk, not from what was just written to memory.
        digest = _digest(name, ours.st_size, target, cached=False)
        if digest != _digest(name, ours.st_size, source, cached=True):
            return "has other content in the copy"
    return None


def _digest(name: str, size: int, folder: int, *, cached: bool) -> bytes:
    places = [(0, size)]
    if size > _LARGE:
        places = [(start, _BLOCK) for start in (0, size // 2, size - _BLOCK)]
    digest = hashlib.sha256()
    with open_entry(name, os.O_RDONLY | os.O_NOFOLLOW, folder) as handle:
        if not cached:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        for start, length in places:
            for position in range(start, start + length, _BLOCK):
                digest.update(os.pread(handle, min(_BLOCK, start + length - position), position))
    return digest.digest()


def serve_jobs() -> None:
    """Answer jobs that come through stdin; die with the parent, whatever it dies of."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    connection = Connection(0)
    while os.getppid() == parent:
        try:
            work, argument = connection.recv()
        except EOFError:
            return
        try:
            connection.send(work(argument, connection.send))
        except OSError as error:
            where = error.filename if isinstance(error.filename, str) else str(argument)
            connection.send(OSError(error.errno, error.strerror or str(error), where))

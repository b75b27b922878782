"""A process that copies or compares folders, one at a time, on command of the pool beside it.

Processes, because the work is many short system calls: threads would wait for each other's
interpreter lock. One JSON document a line on stdin and stdout. Run as
``python -m slipway.storage.copy.copy_worker SOURCE TARGET DEVICE RESUME``.
"""

# Strings and descriptors, not pathlib: see entry.py.
# ruff: noqa: PTH108

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import signal
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from slipway.storage.copy.entry_copy import (
    copy_entry,
    fd_path,
    finish_folder,
    join_path,
    read_entry_xattrs,
    same_entry,
)

SAMPLE_EVERY = 50
"""One file in so many has all its bytes compared; a large one is compared in three places."""
_LARGE = 64 << 20
_BLOCK = 1 << 20

_PR_SET_PDEATHSIG = 1  # prctl(2)


class CopyWorker:
    """Copies from one tree to another that is expected to stay on `device` (0: not checked)."""

    def __init__(self, source: str, target: str, device: int, *, resume: bool) -> None:
        self.source = source
        self.target = target
        self.device = device
        self.resume = resume

    @contextmanager
    def _folders(self, relative: str) -> Iterator[tuple[int, int]]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        source = os.open(join_path(self.source, relative), flags)
        try:
            target = os.open(join_path(self.target, relative), flags)
            try:
                # After `umount --lazy` the same path is a folder on the disk below.
                if self.device and os.fstat(target).st_dev != self.device:
                    raise OSError(errno.ENODEV, "another file system is mounted there now")
                yield source, target
            finally:
                os.close(target)
        finally:
            os.close(source)

    def copy(self, relative: str) -> dict[str, Any]:
        """Copy one folder's entries. Its folders are made and named; its hard links are named."""
        folders: list[str] = []
        links: list[tuple[str, str]] = []
        entries = size = reported = 0

        def on_bytes(count: int) -> None:
            nonlocal reported
            reported += count
            tell_parent({"bytes": count})

        with self._folders(relative) as (source, target), os.scandir(source) as listing:
            device = os.fstat(source).st_dev
            for entry in listing:
                status = entry.stat(follow_symlinks=False)
                path = join_path(relative, entry.name)
                if status.st_dev != device:
                    raise OSError(errno.EXDEV, "something is mounted there", path)
                entries += 1
                if stat.S_ISDIR(status.st_mode):
                    self._make(entry.name, target)
                    folders.append(path)
                elif status.st_nlink > 1:
                    links.append((f"{status.st_ino}", path))
                else:
                    copy_entry(entry.name, status, source, target, on_bytes, resume=self.resume)
                    size += status.st_blocks * 512
        return {
            "folders": folders,
            "links": links,
            "entries": entries,
            "bytes": size - reported,
        }

    def _make(self, name: str, target: int) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=target)
        except FileExistsError:
            if not self.resume:
                raise

    def link(self, groups: list[list[str]]) -> dict[str, Any]:
        """Copy the first path of each group, and link the others to it."""
        size = 0
        for first, *others in groups:
            folder, name = os.path.split(first)
            with self._folders(folder) as (source, target):
                status = os.lstat(fd_path(source, name))
                copy_entry(name, status, source, target, lambda _: None, resume=self.resume)
                size += status.st_blocks * 512
            path = join_path(self.target, first)
            for other in others:
                self._link(path, join_path(self.target, other))
        return {"bytes": size}

    def _link(self, path: str, other: str) -> None:
        try:
            os.link(path, other, follow_symlinks=False)
        except FileExistsError:
            if not self.resume:
                raise
            os.unlink(other)
            os.link(path, other, follow_symlinks=False)

    def compare(self, relative: str) -> dict[str, Any]:
        """Compare one folder's entries on both sides."""
        with self._folders(relative) as (source, target):
            return vars(compare_folder(relative, source, target))

    def finish(self, folders: list[str]) -> dict[str, Any]:
        """Give folders their metadata."""
        for relative in folders:
            finish_folder(join_path(self.source, relative), join_path(self.target, relative))
        return {}


def tell_parent(answer: dict[str, Any]) -> None:
    """Send one answer."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Answer jobs until stdin ends; die with the parent, whatever it dies of."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    source, target, device, resume = sys.argv[1:]
    worker = CopyWorker(source, target, int(device), resume=resume == "resume")
    jobs: dict[str, Callable[[Any], dict[str, Any]]] = {
        "copy": worker.copy,
        "link": worker.link,
        "finish": worker.finish,
        "compare": worker.compare,
    }
    for line in sys.stdin:
        verb, argument = json.loads(line)
        try:
            tell_parent({"done": verb, **jobs[verb](argument)})
        except OSError as error:
            where = error.filename if isinstance(error.filename, str) else argument
            tell_parent(
                {"error": error.errno, "text": error.strerror or str(error), "where": str(where)}
            )


@dataclass
class FolderComparison:
    """What one folder's comparison found. `links` are (inode, inode of the copy, path)."""

    folders: list[str] = field(default_factory=list)
    links: list[tuple[str, str, str]] = field(default_factory=list)
    wrong: list[tuple[str, str]] = field(default_factory=list)
    entries: int = 0
    bytes: int = 0
    hashed: int = 0
    hashed_bytes: int = 0


def compare_folder(relative: str, source: int, target: int) -> FolderComparison:
    """Compare two open folders that are at `relative` in their trees."""
    comparison = FolderComparison()
    names = set(os.listdir(source))
    for name in sorted(set(os.listdir(target)) - names):
        comparison.wrong.append((join_path(relative, name), "is only in the copy"))
    for name in sorted(names):
        path = join_path(relative, name)
        try:
            ours, theirs = os.lstat(fd_path(source, name)), os.lstat(fd_path(target, name))
        except FileNotFoundError:
            comparison.wrong.append((path, "is missing in the copy"))
            continue
        comparison.entries += 1
        if reason := _difference(name, ours, theirs, source, target):
            comparison.wrong.append((path, reason))
        elif stat.S_ISDIR(ours.st_mode):
            comparison.folders.append(path)
        elif ours.st_nlink > 1:
            comparison.links.append((f"{ours.st_ino}", f"{theirs.st_ino}", path))
        if stat.S_ISREG(ours.st_mode):
            comparison.bytes += ours.st_size
            if _sampled(path, ours.st_size):
                _compare_content(comparison, path, ours.st_size, source, target)
    return comparison


def _difference(
    name: str, ours: os.stat_result, theirs: os.stat_result, source: int, target: int
) -> str | None:
    """In what the two entries differ, content apart."""
    if not same_entry(ours, theirs):
        return "differs in type, size, owner, mode or time"
    if stat.S_ISLNK(ours.st_mode) and os.readlink(name, dir_fd=source) != os.readlink(
        name, dir_fd=target
    ):
        return "points elsewhere"
    if read_entry_xattrs(fd_path(source, name)) != read_entry_xattrs(fd_path(target, name)):
        return "differs in extended attributes"
    return None


def _sampled(path: str, size: int) -> bool:
    return size > _LARGE or zlib.crc32(os.fsencode(path)) % SAMPLE_EVERY == 0


def _compare_content(
    comparison: FolderComparison, path: str, size: int, source: int, target: int
) -> None:
    name = os.path.basename(path)  # noqa: PTH119
    places = [(0, size)]
    if size > _LARGE:
        places = [(start, _BLOCK) for start in (0, size // 2, size - _BLOCK)]
    hashes = []
    for folder in (source, target):
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            if folder == target:  # from the disk, not from what was just written to memory
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            digest = hashlib.sha256()
            for start, length in places:
                for position in range(start, start + length, _BLOCK):
                    digest.update(
                        os.pread(handle, min(_BLOCK, start + length - position), position)
                    )
            hashes.append(digest.digest())
        finally:
            os.close(handle)
    comparison.hashed += 1
    comparison.hashed_bytes += sum(length for _, length in places)
    if hashes[0] != hashes[1]:
        comparison.wrong.append((path, "has other content in the copy"))


if __name__ == "__main__":
    main()

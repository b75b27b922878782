"""Comparing a folder with its copy: every entry's metadata, the content of a sample of files."""

# Strings and descriptors, not pathlib: see entry.py.

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from dataclasses import dataclass, field

from slipway.storage.copying.entry import by_fd, join, same, xattrs

SAMPLE_EVERY = 50
"""One file in so many has all its bytes compared; a large one is compared in three places."""

_LARGE = 64 << 20
_BLOCK = 1 << 20


@dataclass
class Compared:
    """What one folder's comparison found. `links` are (inode, inode of the copy, path)."""

    folders: list[str] = field(default_factory=list)
    links: list[tuple[str, str, str]] = field(default_factory=list)
    wrong: list[tuple[str, str]] = field(default_factory=list)
    entries: int = 0
    bytes: int = 0
    hashed: int = 0
    hashed_bytes: int = 0


def compare_folder(relative: str, source: int, target: int) -> Compared:
    """Compare two open folders that are at `relative` in their trees."""
    found = Compared()
    names = set(os.listdir(source))
    for name in sorted(set(os.listdir(target)) - names):
        found.wrong.append((join(relative, name), "is only in the copy"))
    for name in sorted(names):
        path = join(relative, name)
        try:
            ours, theirs = os.lstat(by_fd(source, name)), os.lstat(by_fd(target, name))
        except FileNotFoundError:
            found.wrong.append((path, "is missing in the copy"))
            continue
        found.entries += 1
        if reason := _difference(name, ours, theirs, source, target):
            found.wrong.append((path, reason))
        elif stat.S_ISDIR(ours.st_mode):
            found.folders.append(path)
        elif ours.st_nlink > 1:
            found.links.append((f"{ours.st_ino}", f"{theirs.st_ino}", path))
        if stat.S_ISREG(ours.st_mode):
            found.bytes += ours.st_size
            if _sampled(path, ours.st_size):
                _compare_content(found, path, ours.st_size, source, target)
    return found


def _difference(
    name: str, ours: os.stat_result, theirs: os.stat_result, source: int, target: int
) -> str | None:
    """In what the two entries differ, content apart."""
    if not same(ours, theirs):
        return "differs in type, size, owner, mode or time"
    if stat.S_ISLNK(ours.st_mode) and os.readlink(name, dir_fd=source) != os.readlink(
        name, dir_fd=target
    ):
        return "points elsewhere"
    if xattrs(by_fd(source, name)) != xattrs(by_fd(target, name)):
        return "differs in extended attributes"
    return None


def _sampled(path: str, size: int) -> bool:
    return size > _LARGE or zlib.crc32(os.fsencode(path)) % SAMPLE_EVERY == 0


def _compare_content(found: Compared, path: str, size: int, source: int, target: int) -> None:
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
    found.hashed += 1
    found.hashed_bytes += sum(length for _, length in places)
    if hashes[0] != hashes[1]:
        found.wrong.append((path, "has other content in the copy"))

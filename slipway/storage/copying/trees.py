"""Whole trees: their size, copying them, checking a copy, removing them."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from slipway.storage.copying.entry import same, xattrs
from slipway.storage.copying.pool import Answer, Job, pool
from slipway.storage.errors import CopyError, StorageError

_GROUP = 256  # folders, or groups of hard links, in one job

OnBytes = Callable[[int], None]
"""Called with the bytes copied or compared so far."""


@dataclass(frozen=True)
class Size:
    """What a tree takes: `bytes` on its disk (no holes, each hard link once), `entries`."""

    bytes: int = 0
    entries: int = 0


@dataclass(frozen=True)
class Checked:
    """What a comparison saw: all entries by their metadata, `hashed` of them by content too."""

    entries: int
    bytes: int
    hashed: int
    hashed_bytes: int


def measure(root: Path) -> Size:
    """The size of a tree on one file system; nothing where it does not exist.

    Raises StorageError where it may not be read.
    """
    seen: set[int] = set()
    total = entries = 0
    folders = [os.fspath(root)]
    device = None
    while folders:
        try:
            with os.scandir(folders.pop()) as found:
                for entry in found:
                    status = entry.stat(follow_symlinks=False)
                    device = device or status.st_dev
                    if status.st_dev != device:
                        continue
                    entries += 1
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(entry.path)
                    elif status.st_nlink > 1:
                        if status.st_ino in seen:
                            continue
                        seen.add(status.st_ino)
                    total += status.st_blocks * 512
        except (FileNotFoundError, NotADirectoryError):
            continue  # a running daemon's files come and go
        except PermissionError as error:
            raise StorageError("may not be read", where=error.filename, cure="Use sudo.") from error
    return Size(total, entries)


def copy_tree(source: Path, target: Path, on_bytes: OnBytes, *, resume: bool = False) -> None:
    """Copy a tree, and have it on the disk. `target` must not exist, unless `resume`.

    Raises CopyError; what was copied so far stays for the caller to remove or to resume.
    """
    target.mkdir(mode=0o700, exist_ok=resume)
    folders = [""]
    links: dict[str, list[str]] = defaultdict(list)
    copied = 0

    def take(answer: Answer) -> Iterable[Job]:
        nonlocal copied
        copied += answer.get("bytes", 0)
        on_bytes(copied)
        for inode, path in answer.get("links", ()):
            links[inode].append(path)
        folders.extend(answer.get("folders", ()))
        return [("copy", path) for path in answer.get("folders", ())]

    with pool(source, target, device=target.stat().st_dev, resume=resume) as running:
        running.run([("copy", "")], take)
        groups = [sorted(paths) for _, paths in sorted(links.items())]
        running.run([("link", part) for part in _parts(groups)], take)
        # Deepest first and last of all: each new entry changes its folder's time.
        running.run([("finish", part) for part in _parts(folders[::-1])], take)
    sync(target)


def compare_trees(source: Path, target: Path, on_bytes: OnBytes) -> Checked:
    """Compare a copy with its source. Raises CopyError naming the first differences."""
    totals = {"entries": 0, "bytes": 0, "hashed": 0, "hashed_bytes": 0}
    wrong: list[tuple[str, str]] = []
    pairs: dict[str, str] = {}
    back: dict[str, str] = {}

    def take(answer: Answer) -> Iterable[Job]:
        for name in totals:
            totals[name] += answer[name]
        on_bytes(totals["bytes"])
        wrong.extend((path, reason) for path, reason in answer["wrong"])
        for ours, theirs, path in answer["links"]:
            if pairs.setdefault(ours, theirs) != theirs or back.setdefault(theirs, ours) != ours:
                wrong.append((path, "is linked to other files in the copy"))
        return [("compare", path) for path in answer["folders"]]

    if not same(source.stat(), target.stat()) or xattrs(str(source)) != xattrs(str(target)):
        wrong.append((".", "differs in owner, mode, time or extended attributes"))
    with pool(source, target) as running:
        running.run([("compare", "")], take)
    if wrong:
        shown = "\n".join(f"  | {path} {reason}" for path, reason in sorted(wrong)[:5])
        raise CopyError(
            f"the copy differs from its source in {len(wrong)} places:\n{shown}", where=str(target)
        )
    return Checked(**totals)


def _parts(items: list[str] | list[list[str]]) -> list[list[str] | list[list[str]]]:
    return [items[start : start + _GROUP] for start in range(0, len(items), _GROUP)]


def sync(path: Path) -> None:
    """Have everything on the disk that was written to the file system of `path`."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(handle) != 0:
            number = ctypes.get_errno()
            raise CopyError(
                f"the disk did not take the copy: {os.strerror(number)}", where=str(path)
            )
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk (a rename is not durable before this)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_tree(root: Path) -> None:
    """Remove a tree; a half-removed one never keeps its name. Nothing to do where there is none.

    A mount point keeps its empty folder. Raises StorageError.
    """
    doomed = root.with_name(f"{root.name}.removed")
    try:
        if doomed.exists():  # of a removal that was interrupted
            shutil.rmtree(doomed)
        if not root.exists():
            return
        if root.is_mount():
            for child in sorted(root.iterdir()):
                shutil.rmtree(
                    child
                ) if child.is_dir() and not child.is_symlink() else child.unlink()
            return
        root.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise StorageError(
            f"cannot remove: {error.strerror}", where=str(error.filename or root)
        ) from error

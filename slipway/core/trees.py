"""Trees of files as a whole: their size on disk, their removal, and what is on the disk already."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from slipway.core.errors import TreeError


@dataclass(frozen=True)
class TreeSize:
    """What a tree takes: `bytes` on its disk (no holes, each hard link once), `entries`."""

    bytes: int = 0
    entries: int = 0


def measure(root: Path) -> TreeSize:
    """The size of a tree on one file system; nothing where it does not exist.

    Raises TreeError where it may not be read.
    """
    seen: set[int] = set()
    total = entries = 0
    folders = [os.fspath(root)]
    device = None
    while folders:
        try:
            with os.scandir(folders.pop()) as listing:
                for entry in listing:
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
            raise TreeError("may not be read", where=error.filename, cure="Use sudo.") from error
    return TreeSize(total, entries)


def sync(path: Path) -> None:
    """Have everything on the disk that was written to the file system of `path`."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(handle) != 0:
            number = ctypes.get_errno()
            raise TreeError(
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

    A mount point keeps its empty folder. Raises TreeError.
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
        raise TreeError(
            f"cannot remove: {error.strerror}", where=str(error.filename or root)
        ) from error

"""Folders that the launcher makes where others may write, too: /tmp, a disk of the node.

Whoever knows a name in such a folder may have been there first: with a folder of their own, or with
a link to somewhere else. `make_place` is the one function by which the launcher makes folders; it
follows no link in a folder that others write to, and takes nothing there that is somebody else's.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections import deque
from pathlib import Path

from launcher.causes import LaunchError

#: What flock(2) says where a file system has no locks: Lustre without its mount option `flock`, NFS
#: without its lock daemon, or with it for a file that may only be read (flock(2), "NFS details").
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF)
#: As the kernel counts (MAXSYMLINKS).
MOST_LINKS = 40
#: Of a job's name in a path.
LONGEST_NAME = 120
_SEARCH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def is_shared(mode: int) -> bool:
    """Whether others put their own things into a folder of this mode."""
    return bool(mode & stat.S_IWOTH or (mode & stat.S_IWGRP and mode & stat.S_ISVTX))


def make_place(path: Path, *, private: int = 0) -> Path:
    """`path`, made where it is missing; its last `private` names are this user's alone (0700).

    A name in a folder that others write to must be this user's (or root's, unless it is to be
    private), and no link; elsewhere links are followed. Raises LaunchError for what is not so, in
    one line that names it.
    """
    todo = deque(path.absolute().parts[1:])
    at, links = "/", 0
    folder = os.open("/", _SEARCH)
    try:
        while todo:
            name = todo.popleft()
            alone = len(todo) < private
            target = _read_link(folder, name)
            shared = is_shared(os.fstat(folder).st_mode)
            here = os.path.join(at, name)  # noqa: PTH118 - `at` may hold ..
            if target is not None:
                if shared or alone:
                    raise _refused(here, "is a link, and others could have put it there")
                links += 1
                if links > MOST_LINKS:
                    raise _refused(here, "is a link to itself")
                todo.extendleft(reversed([part for part in target.split("/") if part]))
                if target.startswith("/"):
                    os.close(folder)
                    folder, at = os.open("/", _SEARCH), "/"
                continue
            below = _enter(folder, name, here, 0o700 if alone else 0o777)
            os.close(folder)
            folder, at = below, here
            if alone or shared:
                _check(os.fstat(folder), here, alone=alone)
    finally:
        os.close(folder)
    return path


def _read_link(folder: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return None  # no link; what else is the matter shows when it is entered


def _enter(folder: int, name: str, here: str, mode: int) -> int:
    """The folder `name` in `folder`, made if it is missing."""
    try:
        try:
            return os.open(name, _SEARCH | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            # Another launch may be quicker: what it made is checked like any other.
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=folder)
            return os.open(name, _SEARCH | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise _refused(here, "is no folder") from error
        raise _refused(here, f"can not be used: {os.strerror(error.errno or 0)}") from error


def _check(found: os.stat_result, here: str, *, alone: bool) -> None:
    me = os.geteuid()
    if found.st_uid != me and (alone or found.st_uid != 0):
        raise _refused(here, f"belongs to uid {found.st_uid}, and this is uid {me}")
    if alone and found.st_mode & 0o077:
        mode = f"{stat.S_IMODE(found.st_mode):o}"
        raise _refused(here, f"is open to others (mode {mode}): chmod 700 it, or remove it")


def _refused(path: str, why: str) -> LaunchError:
    return LaunchError(f"{path} {why}", kind="PlaceError")


def check_file_owner(file: int, path: Path) -> None:
    """LaunchError where an open file in a folder that others write to is not this user's."""
    found, me = os.fstat(file), os.geteuid()
    if found.st_uid not in (me, 0) and is_shared(path.parent.stat().st_mode):
        raise _refused(str(path), f"belongs to uid {found.st_uid}, and this is uid {me}")


def path_word(text: str) -> str:
    """A job's name as one name in a path: another text gives another word."""
    word = re.sub(r"[^\w.+@=-]", "_", text, flags=re.ASCII)[:LONGEST_NAME]
    if word and word == text and not word.startswith("."):
        return word
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]
    return f"{word.lstrip('.')}-{digest}"

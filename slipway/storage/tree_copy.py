"""Whole trees: copied and compared by several processes, which pays where a disk serves several.

Processes, because the work is many short system calls: threads would wait for each other's
interpreter lock. Fresh ones, because a fork of a program with threads may wait for ever.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import slipway
from slipway.core import public_environment, sync
from slipway.storage.entry_copy import Progress, read_entry_xattrs, same_entry
from slipway.storage.errors import CopyError
from slipway.storage.folder_copy import FolderAnswer, TreePair

_AHEAD = 3  # jobs given to a worker before it has answered the first
_GROUP = 256  # folders, or groups of hard links, in one job
_PACKAGE = str(Path(slipway.__file__).parents[1])
_SERVE = "from slipway.storage.folder_copy import serve_jobs; serve_jobs()"

OnBytes = Callable[[int], None]
"""Called with the bytes copied or compared so far."""

Work = Callable[[Any, Progress], FolderAnswer]
OnAnswer = Callable[[FolderAnswer | int], Iterable[Any]]
"""Takes what became of a job, or bytes of a large file; returns further arguments for the work."""


def copy_tree(source: Path, target: Path, on_bytes: OnBytes, *, resume: bool = False) -> None:
    """Copy a tree, and have it on the disk. `target` must not exist, unless `resume`.

    Raises CopyError; what was copied so far stays for the caller to remove or to resume.
    """
    target.mkdir(mode=0o700, exist_ok=resume)
    folders = [""]
    links: dict[int, list[str]] = defaultdict(list)
    copied = 0

    def take(answer: FolderAnswer | int) -> Iterable[str]:
        nonlocal copied
        copied += answer if isinstance(answer, int) else answer.bytes
        on_bytes(copied)
        if isinstance(answer, int):
            return ()
        for inode, _, path in answer.links:
            links[inode].append(path)
        folders.extend(answer.folders)
        return answer.folders

    pair = TreePair(str(source), str(target), target.stat().st_dev, resume)
    with _workers(target) as workers:
        workers.run(pair.copy, [""], take)
        workers.run(pair.link, _parts([sorted(paths) for _, paths in sorted(links.items())]), take)
        # Deepest first and last of all: each new entry changes its folder's time.
        workers.run(pair.finish, _parts(folders[::-1]), take)
    sync(target)


def compare_trees(source: Path, target: Path, on_bytes: OnBytes) -> None:
    """Compare all entries by their metadata, and a sample by content.

    Raises CopyError naming the first differences.
    """
    compared = 0
    wrong: list[tuple[str, str]] = []
    pairs: dict[int, int] = {}
    back: dict[int, int] = {}

    def take(answer: FolderAnswer | int) -> Iterable[str]:
        nonlocal compared
        assert isinstance(answer, FolderAnswer)
        compared += answer.bytes
        on_bytes(compared)
        wrong.extend(answer.wrong)
        for ours, theirs, path in answer.links:
            if pairs.setdefault(ours, theirs) != theirs or back.setdefault(theirs, ours) != ours:
                wrong.append((path, "is linked to other files in the copy"))
        return answer.folders

    if not same_entry(source.stat(), target.stat()) or read_entry_xattrs(
        str(source)
    ) != read_entry_xattrs(str(target)):
        wrong.append((".", "differs in owner, mode, time or extended attributes"))
    with _workers(target) as workers:
        workers.run(TreePair(str(source), str(target)).compare, [""], take)
    if wrong:
        shown = "\n".join(f"  | {path} {reason}" for path, reason in sorted(wrong)[:5])
        raise CopyError(
            f"the copy differs from its source in {len(wrong)} places:\n{shown}", where=str(target)
        )


def _parts(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + _GROUP] for start in range(0, len(items), _GROUP)]


class _Workers:
    """Processes that wait for jobs, each at the other end of a connection."""

    def __init__(self, connections: Iterable[Connection], target: Path) -> None:
        self._load = dict.fromkeys(connections, 0)
        self._target = target

    def run(self, work: Work, arguments: Iterable[Any], on_answer: OnAnswer) -> None:
        """Do the work with each argument, and with all that `on_answer` adds.

        Raises CopyError at the first failure.
        """
        waiting = list(arguments)
        while waiting or any(self._load.values()):
            self._hand_out(work, waiting)
            for connection in wait(list(self._load)):
                assert isinstance(connection, Connection)
                waiting.extend(on_answer(self._answer(connection)))

    def _hand_out(self, work: Work, waiting: list[Any]) -> None:
        while waiting:
            connection = min(self._load, key=self._load.__getitem__)
            if self._load[connection] >= _AHEAD:
                return
            # The newest first: a tree is then walked depth first, and the list stays short.
            try:
                connection.send((work, waiting.pop()))
            except ConnectionError as error:
                raise _ended(self._target) from error
            self._load[connection] += 1

    def _answer(self, connection: Connection) -> FolderAnswer | int:
        try:
            answer = connection.recv()
        except (EOFError, ConnectionError) as error:
            raise _ended(self._target) from error
        if isinstance(answer, OSError):
            raise _failure(answer, self._target)
        if not isinstance(answer, int):
            self._load[connection] -= 1
        assert isinstance(answer, FolderAnswer | int)
        return answer


@contextmanager
def _workers(target: Path) -> Iterator[_Workers]:
    """Two processes a core while one waits for the disk, and no more than disks have use for."""
    processes: list[subprocess.Popen[bytes]] = []
    connections: list[Connection] = []
    try:
        for _ in range(max(2, min(8, 2 * (os.cpu_count() or 1)))):
            ours, theirs = socket.socketpair()
            connections.append(Connection(ours.detach()))
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-c", _SERVE],
                    stdin=theirs.fileno(),
                    env={**public_environment(os.environ), "PYTHONPATH": _PACKAGE},
                    cwd="/",  # which no folder here may be in the way of, nor be held by
                    start_new_session=True,  # a Ctrl-C is for us; they end with us
                )
            processes.append(process)
        yield _Workers(connections, target)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for connection in connections:
            connection.close()


def _ended(target: Path) -> CopyError:
    return CopyError(
        "a copying process was ended from outside",
        where=str(target),
        cure="`dmesg` tells whether the kernel did it, for want of memory.",
    )


def _failure(error: OSError, target: Path) -> CopyError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CopyError(
            "the target ran out of space", where=str(target), cure="Free some, or choose another."
        )
    if error.errno in (errno.EROFS, errno.EIO, errno.ENODEV, errno.ENOTCONN, errno.ESTALE):
        return CopyError(
            f"a disk failed or went away during the copy: {error.strerror}",
            where=error.filename,
            cure="`dmesg` and `findmnt` tell which one.",
        )
    return CopyError(f"cannot copy: {error.strerror}", where=error.filename)

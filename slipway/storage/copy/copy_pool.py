"""Copying and comparing trees with several worker processes at once."""

from __future__ import annotations

import errno
import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import slipway
from slipway.core import public_environment
from slipway.storage.errors import CopyError

Answer = dict[str, Any]
Job = tuple[str, Any]

_AHEAD = 3  # jobs given to a worker before it has answered the first
_PACKAGE = Path(slipway.__file__).parents[1]


def copy_workers() -> int:
    """How many: two a core while one waits for the disk, and no more than disks have use for."""
    return max(2, min(8, 2 * (os.cpu_count() or 1)))


class CopyPool:
    """Worker processes for one pair of trees. Use as a context manager."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], target: Path) -> None:
        self._processes = processes
        self._target = target
        self._load = dict.fromkeys(range(len(processes)), 0)
        self._torn = dict.fromkeys(range(len(processes)), b"")
        self._selector = selectors.DefaultSelector()
        for number, process in enumerate(processes):
            assert process.stdout is not None
            self._selector.register(process.stdout, selectors.EVENT_READ, number)

    def run(self, jobs: Iterable[Job], on_answer: Callable[[Answer], Iterable[Job]]) -> None:
        """Do the jobs and all that `on_answer` adds. Raises CopyError at the first failure."""
        waiting = deque(jobs)
        while waiting or any(self._load.values()):
            self._hand_out(waiting)
            for key, _ in self._selector.select():
                for answer in self._read(key.data):
                    if "error" in answer:
                        raise _failure(answer, self._target)
                    waiting.extend(on_answer(answer))

    def _hand_out(self, waiting: deque[Job]) -> None:
        while waiting:
            number = min(self._load, key=self._load.__getitem__)
            if self._load[number] >= _AHEAD:
                return
            stdin = self._processes[number].stdin
            assert stdin is not None
            # The newest first: a tree is then walked depth first, and the list stays short.
            try:
                stdin.write(json.dumps(waiting.pop()).encode() + b"\n")
            except BrokenPipeError as error:
                raise _ended(self._target) from error
            self._load[number] += 1

    def _read(self, number: int) -> Iterator[Answer]:
        stdout = self._processes[number].stdout
        assert stdout is not None
        data = os.read(stdout.fileno(), 1 << 20)
        if not data:
            raise _ended(self._target)
        *lines, self._torn[number] = (self._torn[number] + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            if "done" in answer or "error" in answer:
                self._load[number] -= 1
            yield answer

    def close(self) -> None:
        """End the processes."""
        self._selector.close()
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


@contextmanager
def copy_pool(
    source: Path, target: Path, *, device: int = 0, resume: bool = False
) -> Iterator[CopyPool]:
    """Workers for `source` and `target`, ended with the block.

    `device` (st_dev) is what the target must stay on; 0 checks nothing.
    """
    command = [
        sys.executable,
        "-m",
        "slipway.storage.copy.copy_worker",
        str(source),
        str(target),
        str(device),
        "resume" if resume else "new",
    ]
    environment = {**public_environment(os.environ), "PYTHONPATH": str(_PACKAGE)}
    processes = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,  # a Ctrl-C is for us; they end with us
        )
        for _ in range(copy_workers())
    ]
    running = CopyPool(processes, target)
    try:
        yield running
    finally:
        running.close()


def _ended(target: Path) -> CopyError:
    return CopyError(
        "a copying process was ended from outside",
        where=str(target),
        cure="`dmesg` tells whether the kernel did it, for want of memory.",
    )


def _failure(answer: Answer, target: Path) -> CopyError:
    number, text = answer["error"], answer["text"]
    if number in (errno.ENOSPC, errno.EDQUOT):
        return CopyError(
            "the target ran out of space", where=str(target), cure="Free some, or choose another."
        )
    if number in (errno.EROFS, errno.EIO, errno.ENODEV, errno.ENOTCONN, errno.ESTALE):
        return CopyError(
            f"a disk failed or went away during the copy: {text}",
            where=answer["where"],
            cure="`dmesg` and `findmnt` tell which one.",
        )
    return CopyError(f"cannot copy: {text}", where=answer["where"])

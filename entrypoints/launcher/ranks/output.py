"""Ranks write to files; this prints those files as they grow, each line with its rank.

Files rather than pipes: a rank never blocks on us, its output survives whatever happens, and the
last traceback can be read back when it has died. All runners end up with the same picture.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

#: torchrun: <log dir>/<run id>_<random>/attempt_<n>/<local rank>/{stdout,stderr}.log
_TORCHRUN = re.compile(r"/attempt_(\d+)/(\d+)/(?:stdout|stderr)\.log$")
#: Ours, and DeepSpeed's --enable_each_rank_log (<time>_rank<global rank>.log).
_RANKED = re.compile(r"rank(\d+)\.log$")

POLL_SECONDS = 0.1
PROGRESS_SECONDS = 2.0
LINE_BYTES = 64 * 1024


def rank_logs(log_dir: Path, first_rank: int) -> dict[Path, int]:
    """The ranks' log files below `log_dir`, with their global ranks."""
    found: dict[Path, int] = {}
    for path in sorted(log_dir.rglob("*.log")):
        torchrun = _TORCHRUN.search(str(path))
        ranked = _RANKED.search(path.name)
        if torchrun:
            found[path] = first_rank + int(torchrun.group(2))
        elif ranked:
            found[path] = int(ranked.group(1))
    return found


class _Tail:
    """One file: what has been read, and the line that is not finished yet."""

    def __init__(self, path: Path, rank: int) -> None:
        self._path = path
        self.file: BinaryIO = path.open("rb")
        self.prefix = f"[r{rank}] ".encode() if rank >= 0 else b""
        self.rest = b""
        self.shown_progress = 0.0

    def read(self) -> tuple[list[bytes], bool]:
        """Complete new lines, and whether the file has grown."""
        chunk = self.file.read(LINE_BYTES)
        if not chunk and self._begun_anew():
            chunk = self.file.read(LINE_BYTES)
        if not chunk:
            return [], False
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        if len(self.rest) > LINE_BYTES:
            lines.append(self.rest)
            self.rest = b""
        shown = [self.prefix + line.rsplit(b"\r", 1)[-1] + b"\n" for line in lines]
        # A progress bar rewrites one line with \r for hours; show where it stands now and then.
        if b"\r" in self.rest and time.monotonic() - self.shown_progress > PROGRESS_SECONDS:
            self.shown_progress = time.monotonic()
            done, self.rest = self.rest.rsplit(b"\r", 1)
            shown.append(self.prefix + done.rsplit(b"\r", 1)[-1] + b"\n")
        return shown, True

    def _begun_anew(self) -> bool:
        """torchrun deletes and reuses a rank's file when another node made it start again."""
        try:
            new, old = self._path.stat(), os.fstat(self.file.fileno())
        except FileNotFoundError:
            return False
        if new.st_ino == old.st_ino and old.st_size >= self.file.tell():
            return False
        self.file.close()
        self.file = self._path.open("rb")
        self.rest = b""
        return True

    def finish(self) -> list[bytes]:
        """The unfinished last line."""
        self.file.close()
        return [self.prefix + self.rest.rsplit(b"\r", 1)[-1] + b"\n"] if self.rest else []


class Follower:
    """Prints what ranks write until `finish`; `quiet_since` is when anything last grew.

    A file of rank -1 is the runner's own, whose lines get no prefix.
    """

    def __init__(
        self, logs: Callable[[], Mapping[Path, int]], write: Callable[[bytes], object]
    ) -> None:
        self._logs = logs
        self._write = write
        self._tails: dict[Path, _Tail] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self.quiet_since = time.monotonic()

    def start(self) -> None:
        """Begin to print."""
        self._thread.start()

    def finish(self) -> None:
        """Print what is left, to the last byte, and close the files."""
        self._done.set()
        self._thread.join()
        self.look()
        for tail in self._tails.values():
            self._print(tail.finish())

    def _follow(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            self.look()

    def look(self) -> None:
        """Print what has been written since the last look."""
        for path, rank in self._logs().items():
            if path not in self._tails:
                self._tails[path] = _Tail(path, rank)
        grown = True
        while grown:
            grown = False
            for tail in self._tails.values():
                lines, more = tail.read()
                grown = grown or more
                self._print(lines)
            if grown:
                self.quiet_since = time.monotonic()

    def _print(self, lines: list[bytes]) -> None:
        if lines:
            self._write(b"".join(lines))

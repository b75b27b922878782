"""Ranks write to files; this prints those files as they grow, each line with its rank.

Files rather than pipes: a rank never blocks on us, its output survives whatever happens, and the
last traceback can be read back when it has died. All runners end up with the same picture.

What is printed is what the file holds, byte for byte, but for the rank before each line and an end
for a last line that has none. Carriage returns are bytes like others.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from launcher import events

#: torchrun: <log dir>/<run id>_<random>/attempt_<n>/<local rank>/{stdout,stderr}.log
_TORCHRUN = re.compile(r"/attempt_(\d+)/(\d+)/(?:stdout|stderr)\.log$")
#: Ours, and DeepSpeed's --enable_each_rank_log (<time>_rank<global rank>.log).
_RANKED = re.compile(r"rank(\d+)\.log$")

POLL_SECONDS = 0.1
#: Between two searches for files of new ranks, once some are known: a restart's, seldom.
SEARCH_SECONDS = 1.0
PROGRESS_SECONDS = 30.0
PROGRESS_CHARS = 200
PART_BYTES = 256 * 1024


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
    """One file: up to where it has been printed, and up to where there is no line's end.

    The file is the buffer: a line is printed once it is whole, however long it is, and until then
    two numbers are all that is kept of it.
    """

    def __init__(self, path: Path, rank: int) -> None:
        self._path = path
        self.rank = rank
        self._file: BinaryIO = path.open("rb")
        self._prefix = f"[r{rank}] ".encode() if rank >= 0 else b""
        self._printed = self._looked = 0
        self._next_progress = time.monotonic() + PROGRESS_SECONDS

    def read(self, write: Callable[[bytes], object]) -> bool:
        """Print what is complete of the next part; whether the file had grown."""
        part = self._part(self._looked, PART_BYTES)
        if not part and self._begun_anew(write):
            part = self._part(self._looked, PART_BYTES)
        if not part:
            return False
        end = part.rfind(b"\n") + 1
        if end:
            self._print_to(self._looked + end, write)
            self._next_progress = time.monotonic() + PROGRESS_SECONDS
        self._looked += len(part)
        if b"\r" in part[end:]:
            self._tell_progress(part[end:])
        return True

    def _part(self, at: int, size: int) -> bytes:
        self._file.seek(at)
        return self._file.read(size)

    def _print_to(self, end: int, write: Callable[[bytes], object]) -> None:
        """Everything up to `end`, every line with its rank before it and nothing else changed."""
        begins = True
        while self._printed < end:
            part = self._part(self._printed, min(PART_BYTES, end - self._printed))
            if not part:
                return  # truncated under our hands
            self._printed += len(part)
            body, last = (part[:-1], b"\n") if part.endswith(b"\n") else (part, b"")
            head = self._prefix if begins else b""
            write(head + body.replace(b"\n", b"\n" + self._prefix) + last)
            begins = bool(last)

    def _tell_progress(self, part: bytes) -> None:
        """A progress bar rewrites one line for hours: as an event, where it stands now and then."""
        if time.monotonic() < self._next_progress:
            return
        self._next_progress = time.monotonic() + PROGRESS_SECONDS
        states = [state for state in part.split(b"\r") if state.strip()]
        if states:
            text = states[-1][:PROGRESS_CHARS].decode("utf-8", errors="replace")
            events.emit("progress", rank=self.rank, text=text)

    def _begun_anew(self, write: Callable[[bytes], object]) -> bool:
        """torchrun deletes and reuses a rank's file when another node made it start again."""
        try:
            new, old = self._path.stat(), os.fstat(self._file.fileno())
        except FileNotFoundError:
            return False
        if new.st_ino == old.st_ino and old.st_size >= self._looked:
            return False
        self.finish(write)
        self._file = self._path.open("rb")
        self._printed = self._looked = 0
        return True

    def finish(self, write: Callable[[bytes], object]) -> None:
        """The unfinished last line, with an end so that other ranks' lines do not go on in it."""
        if self._printed < self._looked:
            self._print_to(self._looked, write)
            write(b"\n")
        self._file.close()


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
        self._search_at = 0.0
        self._heard = False
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
        self._search_at = 0.0
        self.look()
        for tail in self._tails.values():
            tail.finish(self._write)

    def _follow(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            self.look()

    def look(self) -> None:
        """Print what has been written since the last look."""
        now = time.monotonic()
        if now >= self._search_at:
            for path, rank in self._logs().items():
                if path not in self._tails:
                    self._tails[path] = _Tail(path, rank)
            if any(tail.rank >= 0 for tail in self._tails.values()):
                self._search_at = now + SEARCH_SECONDS
        grown = True
        while grown:
            grown = False
            for tail in self._tails.values():
                new = tail.read(self._write)
                if new and not self._heard and tail.rank >= 0:
                    self._heard = True
                    events.emit("first-output", rank=tail.rank)
                grown = new or grown
            if grown:
                self.quiet_since = time.monotonic()

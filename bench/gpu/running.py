"""Start a command, read what it prints while it runs, and see that nothing of it stays."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from launcher.ranks import kill_tree


class OutOfTimeError(Exception):
    """A part's time is over; `Bench.end_all` ends what it was running."""


class Running:
    """One command and every line that it has printed, its stderr included."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        deadline: float,
        log: TextIO,
    ) -> None:
        self.deadline = deadline
        self._log = log
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._open = True
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._log.write(f"{time.strftime('%H:%M:%S')} {line}")
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        self._log.flush()
        with self._changed:
            self._open = False
            self._changed.notify_all()

    @property
    def lines(self) -> list[str]:
        """All lines so far."""
        with self._changed:
            return list(self._lines)

    def wait_for(self, pattern: str, count: int = 1) -> list[re.Match[str]]:
        """Until `count` lines match; those matches. Fewer when the command ends before."""
        wanted = re.compile(pattern)

        def found() -> list[re.Match[str]]:
            return [match for match in map(wanted.search, self._lines) if match]

        with self._changed:
            left = self.deadline - time.monotonic()
            came = self._changed.wait_for(lambda: len(found()) >= count or not self._open, left)
            matches = found()
        if not came:
            raise OutOfTimeError(f"{len(matches)} of {count} lines like {pattern!r} had come")
        return matches

    def terminate(self) -> None:
        """SIGTERM to the command alone, as a platform sends it."""
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        """Wait for it; its exit code. `seconds` then says how long it ran."""
        try:
            code = self.process.wait(max(0.0, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise OutOfTimeError(f"it ran {time.monotonic() - self.began:.0f} s") from error
        self.seconds = time.monotonic() - self.began
        self._reader.join()
        return code

    def kill(self) -> None:
        """SIGKILL for all that it started, then for itself; nothing if it has ended."""
        if self.process.poll() is None:
            kill_tree(self.process.pid)
            self.process.kill()
            self.process.wait()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def events(self) -> list[dict[str, Any]]:
        """The launcher's own lines."""
        return events(self.lines)


def events(lines: Sequence[str]) -> list[dict[str, Any]]:
    """The JSON of every line ``launch: {...}``."""
    mark = "launch: {"
    return [json.loads(line[len(mark) - 1 :]) for line in lines if line.startswith(mark)]

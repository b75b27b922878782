"""Who made a half-finished thing: a process that may have been killed since."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """A process. `host` tells hosts apart on a shared file system, and containers on one host."""

    host: str
    pid: int
    start: int  # clock ticks after boot: tells a process from a later one with the same pid

    def __str__(self) -> str:
        return f"{self.host}.{self.pid}.{self.start}"

    def as_label(self) -> str:
        """The value of slipway.engine.images.OWNER_LABEL on a container of this process."""
        return f"{platform.node()}/{self.pid}/{self.start}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner that `str` wrote, None for any other text."""
        host, _, rest = text.partition(".")
        pid, _, start = rest.partition(".")
        return cls(host, int(pid), int(start)) if pid.isdigit() and start.isdigit() else None

    @property
    def is_gone(self) -> bool:
        """Whether it ran here and has ended. Of other hosts nothing is known: not gone."""
        return self.host == _host() and _start(self.pid) != self.start


def _start(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc(5)); the command before it may hold blanks and brackets."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[19])


def _host() -> str:
    namespace = Path("/proc/self/ns/pid").readlink()
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:12]


def this_process() -> Owner:
    """The process that runs this."""
    pid = os.getpid()
    return Owner(_host(), pid, _start(pid) or 0)

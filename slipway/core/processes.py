"""Processes that outlive us: starting them, knowing them again, ending them by their pid.

A pid alone names nobody: after a crash the number may belong to another program. So every signal
is sent only after the process has been recognised again.
"""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.core.errors import ProcessError

_PROC = Path("/proc")

# Run by a fresh interpreter in its own session: the daemon becomes a child of init, so that no
# zombie of it stays with us, and a Ctrl-C in the terminal does not reach it.
_LAUNCH = """
import os, sys
told, tell = os.pipe()  # closed by a successful exec
pid = os.fork()
if pid:
    os.close(tell)
    failed = os.read(told, 4096).decode()
    print(failed or pid)
    sys.exit(bool(failed))
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(log, 1)
os.dup2(log, 2)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    os.write(tell, f"{sys.argv[2]}: {error.strerror}".encode())
    os._exit(127)
"""


def spawn(command: Sequence[str], *, log: Path, env: Mapping[str, str]) -> int:
    """Start `command` detached, with its output appended to `log`; returns its pid.

    It has been executed when this returns. Raises ProcessError where it cannot be.
    """
    launched = subprocess.run(
        [sys.executable, "-c", _LAUNCH, str(log), *command],
        env=dict(env),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=False,
        text=True,
    )
    if launched.returncode != 0:
        raise ProcessError(f"cannot run {launched.stdout.strip()}")
    pid = int(launched.stdout)
    # The pipe closes a moment before the kernel shows the new program's arguments.
    wait_until(lambda: bool(command_line(pid)) or start_time(pid) is None, 10, every=0.001)
    return pid


def _stat(pid: int) -> list[str]:
    """proc(5)'s stat from its third field (the state) on; empty for a process that is gone.

    The command before it may hold blanks and brackets.
    """
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def child_processes(pid: int) -> Iterator[int]:
    """The pids of a process's children."""
    return find_process(lambda candidate: _stat(candidate)[1:2] == [str(pid)])


def descends_from(pid: int, ancestor: int) -> bool:
    """Whether a process is a child of another one, or a child's child, and so on."""
    while parent := int((_stat(pid)[1:2] or ["0"])[0]):
        if parent == ancestor:
            return True
        pid = parent
    return False


def command_line(pid: int) -> list[str]:
    """The process's arguments, which compare with paths; none where it is gone, or a zombie."""
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(part) for part in raw.split(b"\0") if part]


def find_process(matches: Callable[[int], bool]) -> Iterator[int]:
    """The pids of all processes that match, ours left out."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and matches(int(entry.name)):
            yield int(entry.name)


def read_pid(path: Path) -> int | None:
    """The pid in a pid file, None where it is missing or torn by a crash."""
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    return int(text) if text.isdigit() else None


def end_process(pid: int, matches: Callable[[int], bool], *, grace_s: float) -> bool:
    """SIGTERM, and SIGKILL after `grace_s` seconds; True when the process is gone.

    `matches` is asked before each signal, so that a reused pid is never hit.
    """
    for number, patience in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
        if not matches(pid):
            return True
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        if wait_until(lambda: not matches(pid), patience):
            return True
    return False


def wait_until(condition: Callable[[], bool], seconds: float, *, every: float = 0.05) -> bool:
    """Poll until `condition` holds; False when `seconds` have passed without it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


@dataclass(frozen=True)
class Owner:
    """A process. `host` tells hosts apart on a shared file system, and containers on one host."""

    host: str
    pid: int
    start: int  # clock ticks after boot: tells a process from a later one with the same pid

    def __str__(self) -> str:
        return f"{self.host}.{self.pid}.{self.start}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner that `str` wrote, None for any other text."""
        host, _, rest = text.partition(".")
        pid, _, start = rest.partition(".")
        return cls(host, int(pid), int(start)) if pid.isdigit() and start.isdigit() else None

    @property
    def is_gone(self) -> bool:
        """Whether it ran here and has ended. Of other hosts nothing is known: not gone."""
        return self.host == _host() and start_time(self.pid) != self.start


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks after boot: with the pid, that names one process.

    None for one that is gone, or a zombie that only waits for its parent to look.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in "XZ" else None


def _host() -> str:
    namespace = Path("/proc/self/ns/pid").readlink()
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:12]


def this_process() -> Owner:
    """The process that runs this."""
    pid = os.getpid()
    return Owner(_host(), pid, start_time(pid) or 0)


def cpu_count() -> int:
    """Cores that this process may use, which in a container or job are fewer than there are."""
    return len(os.sched_getaffinity(0))

"""Daemons that run without systemd: who they are, how to start the same again, how to end them."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slipway.core import command_line, spawn, start_time, wait_until
from slipway.engine import ping
from slipway.storage.errors import StorageError

START_S = 90.0
STOP_S = 120.0
_SETTLE_S = 0.5  # a supervisor that starts a daemon again does so at once

_PROC = Path("/proc")


@dataclass(frozen=True)
class DaemonProcess:
    """A daemon's process, as much of it as is needed to start the same again.

    `socket` is where it listens; `log` is where its output went, None where that is no file.
    """

    name: str
    pid: int
    started: int  # clock ticks since boot: with the pid, it names one process
    command: tuple[str, ...]
    environment: Mapping[str, str]
    socket: Path
    log: Path | None

    def alive(self) -> bool:
        """Whether this very process, not another one with its pid, is there."""
        return start_time(self.pid) == self.started


def listener(path: Path) -> int | None:
    """The pid of the process that listens on a unix socket; None where nobody does.

    SO_PEERCRED (unix(7)) names who called listen(2): systemd where it activates the socket.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        try:
            sock.connect(str(path))
        except OSError:
            return None
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", raw)[0]
    return pid or None


def describe_process(name: str, pid: int, listens: Path) -> DaemonProcess:
    """Everything about a running daemon. Raises StorageError where it cannot be started again."""
    started = start_time(pid)
    command = command_line(pid)
    if started is None or not command:
        raise StorageError(f"{name} went away while it was looked at")
    folder = _PROC / str(pid)
    if os.geteuid() != 0:
        raise StorageError(f"only root may look at {name} (pid {pid})", cure="Use sudo.")
    if not same_namespace(pid):
        raise StorageError(
            f"{name} (pid {pid}) runs in another mount namespace: in a container, rootless, or "
            "by a unit with PrivateMounts, ProtectSystem or the like",
            cure="Move its data where it runs; its paths mean something else here.",
        )
    program = (folder / "exe").readlink()
    if "/snap/" in str(program):
        raise StorageError(
            f"{name} comes from snap, which lets it use only its own folders",
            where=str(program),
            cure="Install Docker from your distribution's or Docker's packages.",
        )
    log = (folder / "fd" / "2").readlink()
    return DaemonProcess(
        name=name,
        pid=pid,
        started=started,
        command=(str(program), *command[1:]),
        environment=_environment(folder / "environ"),
        socket=listens,
        log=log if log.is_file() else None,
    )


def same_namespace(pid: int) -> bool:
    """Whether the process sees the same mounts as we do."""
    return (_PROC / str(pid) / "ns/mnt").readlink() == (_PROC / "self/ns/mnt").readlink()


def _environment(path: Path) -> dict[str, str]:
    parts = os.fsdecode(path.read_bytes()).split("\0")
    return dict(part.split("=", 1) for part in parts if "=" in part)


@dataclass(frozen=True)
class ProcessService:
    """dockerd, and a separate containerd where its root moves too, without systemd."""

    dockerd: DaemonProcess
    containerd: DaemonProcess | None
    log: Path  # a folder for the output of daemons whose own log is not known
    kind: Literal["process"] = "process"

    def _now(self, daemon: DaemonProcess) -> DaemonProcess:
        pid = listener(daemon.socket)
        return describe_process(daemon.name, pid, daemon.socket) if pid else daemon

    def running(self) -> bool:
        """Whether somebody listens on dockerd's socket."""
        return listener(self.dockerd.socket) is not None

    def stop(self) -> None:
        """dockerd first: it talks to containerd while it stops."""
        for daemon in (self.dockerd, self.containerd):
            if daemon is not None:
                _stop(self._now(daemon))

    def start(self, environment: Mapping[str, str]) -> None:
        """containerd first."""
        for daemon in (self.containerd, self.dockerd):
            if daemon is not None and listener(daemon.socket) is None:
                added = environment if daemon is self.dockerd else {}
                _start(daemon, added, self.log / f"{daemon.name}.log")

    def steps(self) -> tuple[str, str]:
        """By pid."""
        daemons = [d for d in (self.dockerd, self.containerd) if d is not None]
        stop = ", then ".join(f"{daemon.name} (pid {daemon.pid})" for daemon in daemons)
        return f"stop {stop}", f"start {' and '.join(d.name for d in reversed(daemons))}"


def _stop(process: DaemonProcess) -> None:
    """SIGTERM, and wait until it is gone. Raises StorageError; never kills with SIGKILL."""
    if process.alive():
        os.kill(process.pid, signal.SIGTERM)
        if not wait_until(lambda: not process.alive(), STOP_S):
            raise StorageError(
                f"{process.name} (pid {process.pid}) did not stop within {STOP_S:.0f} s",
                where=str(process.log) if process.log else None,
                cure="Its log tells what it waits for.",
            )
    # One that was started since, by a person or by a supervisor.
    if wait_until(lambda: listener(process.socket) is not None, _SETTLE_S):
        raise StorageError(
            f"{process.name} was started again by somebody else",
            where=str(process.socket),
            cure="Stop what supervises it, then run this again.",
        )


def _start(process: DaemonProcess, environment: Mapping[str, str], log: Path) -> None:
    """Start the same command again, and wait until it serves. Raises StorageError.

    dockerd listens long before it has read its data; it serves, or ends, after that.
    """
    output = process.log or log
    begin = output.stat().st_size if output.exists() else 0
    pid = spawn(process.command, log=output, env={**process.environment, **environment})

    def serves() -> bool:
        if process.name == "dockerd":
            return ping(process.socket, timeout_s=1.0) is None
        return listener(process.socket) is not None

    up = wait_until(lambda: start_time(pid) is None or serves(), START_S)
    if not up or start_time(pid) is None:
        state = "stopped at once" if start_time(pid) is None else "does not answer"
        raise StorageError(
            f"{process.name} {state}; it says:\n{_last_lines(output, begin)}", where=str(output)
        )


def _last_lines(log: Path, begin: int) -> str:
    with log.open("rb") as stream:
        stream.seek(begin)
        lines = stream.read().decode(errors="replace").splitlines()
    telling = [line for line in lines if "level=info" not in line] or lines
    return "\n".join(f"  | {line}" for line in telling[-5:]) or "  | (nothing)"

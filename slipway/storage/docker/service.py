"""How a Docker is stopped and started: by systemd, by its processes, or as the embedded engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slipway.core import Project
from slipway.engine import daemon_status, start_daemon, stop_daemon
from slipway.storage.docker import daemon_process, data_path
from slipway.storage.docker.daemon_process import DaemonProcess
from slipway.storage.docker.systemd import SystemdService


@dataclass(frozen=True)
class ProcessService:
    """dockerd, and a separate containerd where its root moves too, without systemd."""

    dockerd: DaemonProcess
    containerd: DaemonProcess | None
    log: Path  # a folder for the output of daemons whose own log is not known
    kind: Literal["process"] = "process"

    def _now(self, daemon: DaemonProcess) -> DaemonProcess:
        pid = daemon_process.listener(daemon.socket)
        return (
            daemon
            if pid is None
            else daemon_process.describe_process(daemon.name, pid, daemon.socket)
        )

    def running(self) -> bool:
        """Whether somebody listens on dockerd's socket."""
        return daemon_process.listener(self.dockerd.socket) is not None

    def stop(self) -> None:
        """dockerd first: it talks to containerd while it stops."""
        for daemon in (self.dockerd, self.containerd):
            if daemon is not None:
                daemon_process.stop_process(self._now(daemon))

    def start(self, environment: Mapping[str, str]) -> None:
        """containerd first."""
        for daemon in (self.containerd, self.dockerd):
            if daemon is not None and daemon_process.listener(daemon.socket) is None:
                added = environment if daemon is self.dockerd else {}
                daemon_process.start_process(daemon, added, self.log / f"{daemon.name}.log")

    def steps(self) -> tuple[str, str]:
        """By pid."""
        daemons = [d for d in (self.dockerd, self.containerd) if d is not None]
        stop = ", then ".join(f"{daemon.name} (pid {daemon.pid})" for daemon in daemons)
        return f"stop {stop}", f"start {' and '.join(d.name for d in reversed(daemons))}"


@dataclass(frozen=True)
class EmbeddedService:
    """Slipway's own engine. While it is stopped for a move, its data folder is behind a link."""

    root: Path
    state: Path
    kind: Literal["embedded"] = "embedded"

    @property
    def project(self) -> Project:
        """The checkout whose engine this is."""
        return Project(self.root, self.state)

    @property
    def data(self) -> Path:
        """The folder, or the link, that the engine opens."""
        return self.project.engine / "data"

    def running(self) -> bool:
        """Whether it answers."""
        return daemon_status(self.project).running

    def stop(self) -> None:
        """Stop it, and have its data where a link can point to it."""
        stop_daemon(self.project)
        data_path.settle_link(self.data)

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it; data that did not move is a plain folder again."""
        del environment  # the engine keeps its temporary files below its data
        data_path.unsettle_link(self.data)
        start_daemon(self.project)

    def steps(self) -> tuple[str, str]:
        """One engine, one step."""
        return "stop the embedded engine", "start the embedded engine"


Service = ProcessService | EmbeddedService | SystemdService
"""A Docker that can be stopped and started again exactly as it was, by another process too.

`stop` stops all of it, in an order in which nothing starts it again; `start` adds these variables
where no configuration file sets them; `steps` says what both do, for a person. Both raise
StorageError.
"""

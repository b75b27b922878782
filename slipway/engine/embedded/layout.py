"""Where the embedded engine's files are, and the commands that follow from it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from slipway.core import Project, command_line

# A unix socket's path has at most 107 bytes (unix(7)); the longest name that the daemons put
# below the run folder is "exec/libnetwork/<12 hex>.sock".
_LONGEST_SOCKET = 107
_BELOW_RUN = len("/exec/libnetwork/0123456789ab.sock")

_ERROR_WORDS = ("level=fatal", "level=error", "failed to start daemon", "panic:", "containerd: ")


@dataclass(frozen=True)
class EmbeddedPaths:
    """`home` has everything that stays; `run` has the sockets and what dies with the processes."""

    home: Path
    run: Path

    @property
    def data_root(self) -> Path:
        """Images, layers and build cache: dockerd's and containerd's both, one folder to move."""
        return self.home / "data"

    @property
    def socket(self) -> Path:
        """Where the daemon listens."""
        return self.run / "docker.sock"

    @property
    def url(self) -> str:
        """What DOCKER_HOST would be set to."""
        return f"unix://{self.socket}"

    @property
    def containerd_socket(self) -> Path:
        """Where our containerd listens."""
        return self.run / "containerd.sock"

    @property
    def dockerd_pid(self) -> Path:
        """Written by dockerd itself."""
        return self.home / "dockerd.pid"

    @property
    def containerd_pid(self) -> Path:
        """Written by us."""
        return self.home / "containerd.pid"

    @property
    def log(self) -> Path:
        """What both daemons print, since their last start."""
        return self.home / "engine.log"

    @property
    def binds_data_root(self) -> Path:
        """There while dockerd keeps data_root mounted on itself, to be undone after it.

        Where a person mounted a disk at data_root, dockerd does not make this file
        (moby/moby:daemon/daemon_linux.go, getUnmountOnShutdownPath).
        """
        return self.run / "exec" / "unmount-on-shutdown"

    def owns(self, pid: int) -> bool:
        """Whether the process is a daemon, or a containerd shim, of this engine.

        Told by the program's name and a path of ours in its arguments: an editor that has one of
        our files open is not a daemon, and a daemon of another project has other paths.
        """
        program, *arguments = command_line(pid) or [""]
        return Path(program).name.startswith(("dockerd", "containerd")) and any(
            f"{self.run}/" in argument for argument in arguments
        )

    def create(self) -> None:
        """Make the folders and configuration files; keeps the last log as engine.log.1."""
        self.data_root.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(parents=True, exist_ok=True)
        self.run.chmod(0o700)  # who reaches the socket is root on this machine
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        # An own, empty file: the system's daemon.json may name hosts, a data-root or runtimes.
        (self.home / "daemon.json").write_text("{}\n")
        (self.home / "containerd.toml").write_text(self._containerd_config())
        (self.home / "engine.json").write_text(
            json.dumps({"url": self.url, "run": str(self.run)}, indent=2) + "\n"
        )

    def _containerd_config(self) -> str:
        # The plugins left out serve Kubernetes, or reach for folders of the system.
        return f"""\
version = 2
root = {json.dumps(str(self.data_root / "containerd"))}
state = {json.dumps(str(self.run / "containerd"))}
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.cri.v1.images",
  "io.containerd.cri.v1.runtime",
  "io.containerd.nri.v1.nri",
]
[grpc]
  address = {json.dumps(str(self.containerd_socket))}
[plugins."io.containerd.internal.v1.opt"]
  path = {json.dumps(str(self.data_root / "containerd-opt"))}
"""

    def containerd_command(self) -> list[str]:
        """containerd, all of it under our folders."""
        config = str(self.home / "containerd.toml")
        return ["containerd", "--config", config, "--address", str(self.containerd_socket)]

    def dockerd_command(self) -> list[str]:
        """dockerd, without a bridge, firewall rules or IP forwarding of its own."""
        return [
            "dockerd",
            f"--host={self.url}",
            f"--data-root={self.data_root}",
            f"--exec-root={self.run / 'exec'}",
            f"--pidfile={self.dockerd_pid}",
            f"--config-file={self.home / 'daemon.json'}",
            f"--containerd={self.containerd_socket}",
            # Named, so that a disk without overlayfs is an error and not a silent fall-back to
            # vfs, which copies the whole image for every layer.
            "--storage-driver=overlay2",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            "--userland-proxy=false",
            "--shutdown-timeout=10",
        ]

    def last_errors(self) -> str:
        """The log's last five lines that report an error, or its last lines if none does."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        errors = [line for line in lines if any(word in line for word in _ERROR_WORDS)] or lines
        return "\n".join(f"  | {line}" for line in errors[-5:]) or "  | (nothing)"


def embedded_paths(project: Project) -> EmbeddedPaths:
    """The project's layout. A deep checkout's sockets move to a short folder under /run."""
    home = project.engine
    run = home / "run"
    if len(os.fsencode(run)) + _BELOW_RUN > _LONGEST_SOCKET:
        run = Path("/run") / f"slipway-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    return EmbeddedPaths(home, run)

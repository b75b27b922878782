"""Where this machine keeps what a move reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """A machine's well-known places, all below `root`."""

    root: Path = Path("/")

    def at(self, path: str | Path) -> Path:
        """An absolute path of the machine."""
        return self.root / str(path).lstrip("/")

    @property
    def systemd(self) -> bool:
        """Whether systemd is PID 1: sd_booted(3) asks the same."""
        return self.at("/run/systemd/system").is_dir()

    @property
    def state(self) -> Path:
        """Journals of moves: one folder for each daemon, whichever checkout moved it."""
        return self.at("/var/lib/slipway/storage")

    @property
    def docker_url(self) -> str:
        """Where the system's dockerd listens."""
        return f"unix://{self.at('/var/run/docker.sock')}"

    @property
    def daemon_json(self) -> Path:
        """dockerd's configuration where no --config-file names another."""
        return self.at("/etc/docker/daemon.json")

    @property
    def containerd_toml(self) -> Path:
        """containerd's configuration where no --config names another."""
        return self.at("/etc/containerd/config.toml")

    @property
    def enroot_conf(self) -> Path:
        """enroot's configuration."""
        return self.at("/etc/enroot/enroot.conf")

    def drop_in(self, unit: str) -> Path:
        """Our addition to a systemd unit."""
        return self.at(f"/etc/systemd/system/{unit}.d/50-slipway-storage.conf")

    def has_unit(self, unit: str) -> bool:
        """Whether a unit file of that name is installed."""
        folders = ("/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")
        return any(self.at(folder).joinpath(unit).exists() for folder in folders)

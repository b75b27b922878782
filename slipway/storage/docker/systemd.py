"""docker.service and its socket, and containerd.service, through systemctl.

The socket unit is stopped in the same command as the service: left listening, it starts the daemon
again for the first client that knocks. Units that stop together with docker.service (they say
Requires= or BindsTo=) are started again with it. Read systemd.unit(5), systemd.socket(5).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slipway.storage.errors import StorageError

MOUNT_WAIT_S = 120
"""How long a unit waits at boot for the disk, as the HyperPod lifecycle scripts do."""
_HEADER = """\
# Written by `inv storage.move`; `inv storage.restore` takes it away again.
"""

DOCKER = "docker.service"
CONTAINERD = "containerd.service"


def systemctl(*arguments: str, check: bool = True) -> str:
    """Run systemctl; raises StorageError with what it says where it fails and `check` is set."""
    command = ["systemctl", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise StorageError("systemctl is not on PATH") from error
    output = os.fsdecode(done.stdout)
    if check and done.returncode != 0:
        text = os.fsdecode(done.stderr or done.stdout).strip()
        raise StorageError(f"`{' '.join(command)}` failed: {text}")
    return output


def show_unit(unit: str, *properties: str) -> dict[str, str]:
    """Properties of a unit; one that systemd does not know is left out."""
    text = systemctl("show", unit, "--property", ",".join(properties))
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def unit_is_active(unit: str) -> bool:
    """Whether the unit is active (for a socket: it listens)."""
    return show_unit(unit, "ActiveState").get("ActiveState") == "active"


@dataclass(frozen=True)
class SystemdService:
    """Units to stop and to start, as they were when this was looked up."""

    sockets: tuple[str, ...]
    containerd: bool  # its root moves too
    dependents: tuple[str, ...]
    kind: Literal["systemd"] = "systemd"

    @classmethod
    def find(cls, *, containerd: bool) -> SystemdService:
        """What belongs to docker.service and is active now."""
        shown = show_unit(DOCKER, "TriggeredBy", "RequiredBy", "BoundBy", "ConsistsOf")
        sockets = shown.get("TriggeredBy", "").split()
        others = " ".join(shown.get(name, "") for name in ("RequiredBy", "BoundBy", "ConsistsOf"))
        dependents = sorted(
            unit
            for unit in set(others.split())
            if unit.endswith(".service") and unit_is_active(unit)
        )
        return cls(tuple(sockets), containerd, tuple(dependents))

    def running(self) -> bool:
        """Whether docker.service is active."""
        return unit_is_active(DOCKER)

    def stop(self) -> None:
        """Sockets and service together, then containerd."""
        systemctl("stop", *self.sockets, DOCKER)
        if self.containerd:
            systemctl("stop", CONTAINERD)
        for unit in (DOCKER, *([CONTAINERD] if self.containerd else [])):
            if unit_is_active(unit):
                raise StorageError(f"{unit} is still active after `systemctl stop`")

    def start(self, environment: Mapping[str, str]) -> None:
        """containerd, then the sockets and the service, then what was stopped with them."""
        del environment  # drop-ins say it
        systemctl("daemon-reload")
        units = (*self.sockets, DOCKER, *([CONTAINERD] if self.containerd else []))
        # After three failures within a minute systemd refuses to start docker.service at all
        # (StartLimitBurst in the packaged unit); it forgets them when told to.
        systemctl("reset-failed", *units, check=False)
        try:
            if self.containerd:
                systemctl("start", CONTAINERD)
            systemctl("start", *self.sockets, DOCKER)
        except StorageError as error:
            status = systemctl("status", "--no-pager", "--lines=8", DOCKER, check=False)
            shown = "\n".join(f"  | {line}" for line in status.strip().splitlines()[-8:])
            raise StorageError(f"{error.what}\n{shown}", where=DOCKER) from error
        if self.dependents:
            systemctl("start", *self.dependents)

    def steps(self) -> tuple[str, str]:
        """The units, in order."""
        stop = [" and ".join([*self.sockets, DOCKER]), *([CONTAINERD] if self.containerd else [])]
        start = [*reversed(stop), *self.dependents]
        return f"stop {', then '.join(stop)}", f"start {', then '.join(start)}"


def drop_in(disk: Path, *, tmp: Path | None, dlami: bool) -> str:
    """The text for a unit whose data is on `disk` (a mount point) from now on.

    A daemon that starts before its disk is mounted fills the folder below the mount point
    instead, so the unit waits, and fails rather than do that. `tmp` is for dockerd: it sets
    DOCKER_TMPDIR. `dlami`: the Deep Learning AMIs' own service mounts the disk.
    """
    after = "After=dlami-nvme.service\nWants=dlami-nvme.service\n" if dlami else ""
    # Packaged docker.service files have no time limit; containerd's has systemd's 90 seconds.
    extra = f'Environment="DOCKER_TMPDIR={tmp}"' if tmp else f"TimeoutStartSec={2 * MOUNT_WAIT_S}"
    wait = f"until findmnt --mountpoint {disk} >/dev/null; do sleep 1; done"
    return (
        f"{_HEADER}[Unit]\nRequiresMountsFor={disk}\n{after}\n"
        f"[Service]\n{extra}\n"
        f'ExecStartPre=/usr/bin/timeout {MOUNT_WAIT_S} /bin/sh -c "{wait}"\n'
    )

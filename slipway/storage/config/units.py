"""Drop-ins for docker.service and containerd.service: packaged unit files are not edited."""

from __future__ import annotations

from pathlib import Path

MOUNT_WAIT_S = 120
"""How long a unit waits at boot for the disk, as the HyperPod lifecycle scripts do."""

_HEADER = """\
# Written by `inv storage.move`; `inv storage.restore` takes it away again.
"""


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

"""What is mounted where, as findmnt(8) tells it, and what Docker can live on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.storage.errors import StorageError

_COLUMNS = "TARGET,SOURCE,FSTYPE,OPTIONS,FSROOT,MAJ:MIN"

_NETWORK = "is on the network: overlayfs cannot keep its upper layers there, nor keep owners"
_FOREIGN = "has no Unix owners, hard links or extended attributes"
_UNUSABLE = {
    "lustre": "is Lustre, which Docker's storage drivers do not work on",
    "nfs": _NETWORK,
    "nfs4": _NETWORK,
    "cifs": _NETWORK,
    "smb3": _NETWORK,
    "ceph": _NETWORK,
    "glusterfs": _NETWORK,
    "beegfs": _NETWORK,
    "gpfs": _NETWORK,
    "afs": _NETWORK,
    "vfat": _FOREIGN,
    "msdos": _FOREIGN,
    "exfat": _FOREIGN,
    "ntfs": _FOREIGN,
    "ntfs3": _FOREIGN,
    "9p": "is a folder that a virtual machine's host shares, without what overlayfs needs",
    "virtiofs": "is a folder that a virtual machine's host shares, without what overlayfs needs",
    "overlay": "is itself an overlay, and overlays do not stack as Docker needs it",
    "aufs": "is itself a union of folders",
    "ecryptfs": "is encrypted file by file, which overlayfs does not stand on",
    "tmpfs": "is memory: everything is gone after a restart",
    "ramfs": "is memory: everything is gone after a restart",
    "devtmpfs": "is memory: everything is gone after a restart",
    "squashfs": "can only be read",
    "iso9660": "can only be read",
    "erofs": "can only be read",
}

KNOWN_GOOD = ("ext4", "xfs", "btrfs")
"""File systems offered as candidates. Others, if named as TARGET, are tried before use."""


@dataclass(frozen=True)
class Mount:
    """One mounted file system; `device` is its number, "8:1"."""

    target: Path
    source: str
    fstype: str
    options: tuple[str, ...]
    device: str
    fsroot: str = "/"

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written there."""
        return "ro" in self.options

    def unusable(self) -> str | None:
        """Why Docker cannot keep its data here, None where nothing speaks against it."""
        if reason := _UNUSABLE.get(self.fstype):
            return f"{self.target} ({self.fstype}) {reason}"
        if self.fstype.startswith("fuse"):
            return f"{self.target} ({self.fstype}) is a file system in user space"
        if self.read_only:
            return f"{self.target} is mounted read-only"
        return None


def parse_findmnt(text: str) -> tuple[Mount, ...]:
    """findmnt's JSON; an empty text means that there is nothing."""
    found: list[dict[str, Any]] = json.loads(text)["filesystems"] if text.strip() else []
    return tuple(
        Mount(
            target=Path(entry["target"]),
            source=entry.get("source") or "",
            fstype=entry.get("fstype") or "",
            options=tuple((entry.get("options") or "").split(",")),
            device=(entry.get("maj:min") or "").strip(),
            fsroot=entry.get("fsroot") or "/",
        )
        for entry in found
    )


def _findmnt(*arguments: str) -> str:
    command = ["findmnt", "--json", "--list", "--output", _COLUMNS, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise StorageError(
            "findmnt is not installed", cure="It is part of util-linux; install that."
        ) from error
    # It exits with 1 both for "nothing found" and for an error; only the latter says something.
    if done.returncode != 0 and done.stderr.strip():
        raise StorageError(f"findmnt failed: {done.stderr.strip()}")
    return done.stdout


def read_mount_table() -> tuple[Mount, ...]:
    """All that is mounted now, in order: later entries cover earlier ones at the same place."""
    return parse_findmnt(_findmnt())


def read_fstab() -> tuple[Path, ...]:
    """Where /etc/fstab says that something is to be mounted."""
    text = _findmnt("--fstab")
    return tuple(mount.target for mount in parse_findmnt(text) if mount.target.is_absolute())


def mount_of(path: Path, mounted: Sequence[Mount]) -> Mount:
    """The mount that `path` is on, or would be made on. Raises StorageError where there is none."""
    best: Mount | None = None
    for mount in mounted:
        inside = path.is_relative_to(mount.target)
        if inside and (best is None or len(mount.target.parts) >= len(best.target.parts)):
            best = mount
    if best is None:
        raise StorageError("nothing is mounted there", where=str(path))
    return best


def mounts_under(path: Path, mounted: Sequence[Mount]) -> tuple[Mount, ...]:
    """What is mounted inside `path`, not at it."""
    return tuple(m for m in mounted if m.target != path and m.target.is_relative_to(path))


def expected_mount(path: Path, places: Sequence[Path]) -> Path | None:
    """The deepest of `places` (fstab, a profile's disks) that `path` is at or in; "/" is none."""
    above = [place for place in places if path.is_relative_to(place) and place != Path("/")]
    return max(above, key=lambda place: len(place.parts), default=None)

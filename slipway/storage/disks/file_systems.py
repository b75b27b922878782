"""What Docker's data can live on, and which disk a path is on or should be on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slipway.core import Mount, mount_of, read_mount_table

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


def why_unusable(mount: Mount) -> str | None:
    """Why Docker cannot keep its data there, None where nothing speaks against it."""
    if reason := _UNUSABLE.get(mount.fstype):
        return f"{mount.target} ({mount.fstype}) {reason}"
    if mount.fstype.startswith("fuse"):
        return f"{mount.target} ({mount.fstype}) is a file system in user space"
    if mount.read_only:
        return f"{mount.target} is mounted read-only"
    return None


def is_mounted(folder: Path) -> bool:
    """Whether something is mounted at exactly this path."""
    return any(mount.target == folder for mount in read_mount_table())


def home_of(path: Path, mounts: Sequence[Mount]) -> Mount:
    """The disk that a path is on: not a folder of it that is bound to itself, as dockerd does."""
    device = mount_of(path, mounts).device
    same = [mount for mount in mounts if mount.device == device]
    return min(same, key=lambda mount: len(mount.fsroot + str(mount.target)))


def expected_mount(path: Path, places: Sequence[Path]) -> Path | None:
    """The deepest of `places` (fstab, a profile's disks) that `path` is at or in; "/" is none."""
    above = [folder for folder in places if path.is_relative_to(folder) and folder != Path("/")]
    return max(above, key=lambda folder: len(folder.parts), default=None)

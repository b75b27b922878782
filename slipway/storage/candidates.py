"""Which disk is the best place for the data: one rule.

1. A candidate is a mounted, writable file system (ext4, xfs, btrfs) on another device than the
   data, that is neither the root disk nor /boot and its like, and has room for the data and a tenth
   more.
2. Disks that the profile names come first, in the profile's order: they are meant for this.
3. Then the one with the most free space; the shorter path where two are equal.
4. A candidate that does not come before the disk where the data is now is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from slipway.core import (
    DiskSpace,
    Mount,
    disk_space,
    human_bytes,
    mount_of,
    read_mount_table,
    wait_until,
)
from slipway.storage.errors import StorageError
from slipway.storage.machine import Machine
from slipway.storage.profiles import Profile, expected_disk

WAIT_S = 120.0
"""Seconds that a late disk is waited for, as the HyperPod lifecycle scripts do."""

_SYSTEM = ("/boot", "/efi", "/snap", "/run", "/dev", "/proc", "/sys", "/var/lib/docker")
_NETWORKED = ("nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "beegfs", "gpfs", "afs")
_UNUSABLE = {
    "lustre": "is Lustre, which Docker's storage drivers do not work on",
    **dict.fromkeys(
        _NETWORKED,
        "is on the network: overlayfs cannot keep its upper layers there, nor keep owners",
    ),
    **dict.fromkeys(
        ("vfat", "msdos", "exfat", "ntfs", "ntfs3"),
        "has no Unix owners, hard links or extended attributes",
    ),
    **dict.fromkeys(
        ("9p", "virtiofs"),
        "is a folder that a virtual machine's host shares, without what overlayfs needs",
    ),
    "overlay": "is itself an overlay, and overlays do not stack as Docker needs it",
    "aufs": "is itself a union of folders",
    "ecryptfs": "is encrypted file by file, which overlayfs does not stand on",
    **dict.fromkeys(
        ("tmpfs", "ramfs", "devtmpfs"), "is memory: everything is gone after a restart"
    ),
    **dict.fromkeys(("squashfs", "iso9660", "erofs"), "can only be read"),
}

_KNOWN_GOOD = ("ext4", "xfs", "btrfs")
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


def with_margin(amount: int) -> int:
    """A tenth more: other file systems have other block sizes, and work needs some room."""
    return amount + amount // 10


@dataclass(frozen=True)
class Candidate:
    """A disk that could take the data, and why it is ranked where it is."""

    mount: Mount
    space: DiskSpace
    reason: str

    @property
    def path(self) -> Path:
        """The disk's mount point."""
        return self.mount.target


def _is_system(mount: Mount, root_device: str) -> bool:
    """The root disk wherever it is mounted, and mount points that belong to the system."""
    if mount.device == root_device:
        return True
    return any(mount.target.is_relative_to(folder) for folder in _SYSTEM)


def _is_whole(mount: Mount) -> bool:
    """Not a folder of a disk that is bound elsewhere; of btrfs, a subvolume will do."""
    return mount.fsroot == "/" or mount.fstype == "btrfs"


def rank_candidates(
    mounted: Sequence[Mount],
    spaces: Mapping[str, DiskSpace],
    preferred: Sequence[Path],
    *,
    current: Mount,
    needed: int,
) -> tuple[Candidate, ...]:
    """The candidates, best first, for data of `needed` bytes that is on the disk `current` now.

    `spaces` goes by device; a device without one is no candidate.
    """

    def order(mount: Mount) -> tuple[int, int, int]:
        rank = preferred.index(mount.target) if mount.target in preferred else len(preferred)
        free = spaces[mount.device].free if mount.device in spaces else 0
        return (rank, -free, len(str(mount.target)))

    root_device = next((m.device for m in mounted if m.target == Path("/")), "")
    best: dict[str, Mount] = {}
    for mount in mounted:
        usable = (
            mount.fstype in _KNOWN_GOOD
            and why_unusable(mount) is None
            and _is_whole(mount)
            and not _is_system(mount, root_device)
        )
        if usable and mount.device != current.device and mount.device in spaces:
            # One device may be mounted at several places.
            best[mount.device] = min(best.get(mount.device, mount), mount, key=order)
    fitting = [
        mount
        for mount in best.values()
        if spaces[mount.device].free >= with_margin(needed)
        and order(mount)[:2] < order(current)[:2]
    ]
    return tuple(
        Candidate(
            mount,
            spaces[mount.device],
            f"{'the disk meant for this, ' if mount.target in preferred else ''}"
            f"{human_bytes(spaces[mount.device].free)} free on {mount.fstype}",
        )
        for mount in sorted(fitting, key=order)
    )


def preferred_disk(profile: Profile, machine: Machine) -> tuple[Path, ...]:
    """The disks that the profile names, as paths of this machine."""
    return tuple(machine.at(disk) for disk in profile.disks)


def candidate_disks(
    profile: Profile, machine: Machine, data_root: Path, needed: int
) -> tuple[Candidate, ...]:
    """The disks that could take `needed` bytes that are in `data_root` now, the best first."""
    mounted = read_mount_table()
    spaces: dict[str, DiskSpace] = {}
    for mount in mounted:
        if mount.fstype in _KNOWN_GOOD and mount.device not in spaces:
            spaces[mount.device] = disk_space(mount.target)
    return rank_candidates(
        mounted,
        spaces,
        preferred_disk(profile, machine),
        current=home_of(data_root, mounted),
        needed=needed,
    )


def choose_disk(
    profile: Profile, machine: Machine, data_root: Path, needed: int, *, wait: bool
) -> Path | None:
    """The best disk for the data; None where it is on it already.

    With `wait` a disk of the profile that this machine has, and that is not mounted yet, is
    waited for. Raises StorageError where there is no better place.
    """
    for disk, folder in zip(profile.disks, preferred_disk(profile, machine), strict=True):
        if wait and expected_disk(machine, disk) and not is_mounted(folder):
            wait_until(partial(is_mounted, folder), WAIT_S, every=0.5)
        if is_mounted(folder):
            break
    candidates = candidate_disks(profile, machine, data_root, needed)
    if candidates:
        return candidates[0].path
    if home_of(data_root, read_mount_table()).target not in preferred_disk(profile, machine):
        raise StorageError(
            "no other disk here is a better place with room for "
            f"{human_bytes(with_margin(needed))}",
            cure="Attach one, mount it, and name it: `./inv storage.move /its/mount/point`. "
            "`./inv storage.status` lists what there is.",
        )
    return None

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
from pathlib import Path

from slipway.core import DiskSpace, Mount, human_bytes
from slipway.storage.disks.file_systems import KNOWN_GOOD, why_unusable

_SYSTEM = ("/boot", "/efi", "/snap", "/run", "/dev", "/proc", "/sys", "/var/lib/docker")


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
    now = (
        _rank(current, preferred),
        -spaces[current.device].free if current.device in spaces else 0,
    )
    root_device = next((m.device for m in mounted if m.target == Path("/")), "")
    best: dict[str, Mount] = {}
    for mount in mounted:
        usable = (
            mount.fstype in KNOWN_GOOD
            and why_unusable(mount) is None
            and _is_whole(mount)
            and not _is_system(mount, root_device)
        )
        if not usable or mount.device == current.device or mount.device not in spaces:
            continue
        # One device may be mounted at several places: prefer the profile's, then the shortest.
        known = best.get(mount.device)
        if known is None or _place(mount, preferred) < _place(known, preferred):
            best[mount.device] = mount
    candidates = []
    for mount in best.values():
        space = spaces[mount.device]
        if space.free >= with_margin(needed) and (_rank(mount, preferred), -space.free) < now:
            candidates.append(Candidate(mount, space, _reason(mount, space, preferred)))
    return tuple(
        sorted(
            candidates, key=lambda c: (_rank(c.mount, preferred), -c.space.free, len(str(c.path)))
        )
    )


def _rank(mount: Mount, preferred: Sequence[Path]) -> int:
    return preferred.index(mount.target) if mount.target in preferred else len(preferred)


def _place(mount: Mount, preferred: Sequence[Path]) -> tuple[int, int]:
    return (_rank(mount, preferred), len(str(mount.target)))


def _reason(mount: Mount, space: DiskSpace, preferred: Sequence[Path]) -> str:
    meant = "the disk meant for this, " if mount.target in preferred else ""
    return f"{meant}{human_bytes(space.free)} free on {mount.fstype}"

"""What is mounted where, and what room the file system of a path has.

The kernel's own table, /proc/self/mountinfo (proc(5)), is read: `Path.is_mount` cannot see a folder
that is bound to itself, which is what dockerd does with its data. The table is in the order of
mounting, so that of two lines for one place the later one counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.core.errors import SlipwayError

_MOUNTINFO = Path("/proc/self/mountinfo")
_FSTAB = Path("/etc/fstab")
_ESCAPED = re.compile(r"\\([0-7]{3})")  # proc(5), fstab(5): a blank is written as \040


@dataclass(frozen=True)
class Mount:
    """One mounted file system; `device` is its number, "8:1".

    `options` are those of the mount point and of the file system; `fsroot` is the folder of the
    file system that is seen there, "/" unless a part of it was bound.
    """

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


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """The mounts that a text of /proc/PID/mountinfo lists, in its order."""
    mounts = []
    for line in text.splitlines():
        # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
        left, _, right = line.partition(" - ")
        _, _, device, fsroot, target, options, *_ = left.split(" ")
        fstype, source, *more = right.split(" ")
        every = dict.fromkeys([*options.split(","), *_unescape(",".join(more)).split(",")])
        mounts.append(
            Mount(
                target=Path(_unescape(target)),
                source=_unescape(source),
                fstype=fstype,
                options=tuple(filter(None, every)),
                device=device,
                fsroot=_unescape(fsroot),
            )
        )
    return tuple(mounts)


def read_mount_table(mountinfo: Path = _MOUNTINFO) -> tuple[Mount, ...]:
    """All that is mounted now, in order: later entries cover earlier ones at the same place."""
    return parse_mountinfo(os.fsdecode(mountinfo.read_bytes()))


def parse_fstab(text: str) -> tuple[Path, ...]:
    """Where a text of /etc/fstab says that something is to be mounted."""
    fields = [line.split() for line in text.splitlines() if not line.lstrip().startswith("#")]
    targets = [Path(_unescape(words[1])) for words in fields if len(words) > 1]
    return tuple(target for target in targets if target.is_absolute())


def read_fstab() -> tuple[Path, ...]:
    """Where /etc/fstab says that something is to be mounted; nowhere without that file."""
    return parse_fstab(os.fsdecode(_FSTAB.read_bytes())) if _FSTAB.exists() else ()


def mount_of(path: Path, mounts: Sequence[Mount]) -> Mount:
    """The mount that `path` is on, or would be made on. Raises SlipwayError where there is none."""
    best: Mount | None = None
    for mount in mounts:
        inside = path.is_relative_to(mount.target)
        if inside and (best is None or len(mount.target.parts) >= len(best.target.parts)):
            best = mount
    if best is None:
        raise SlipwayError("nothing is mounted there", where=str(path))
    return best


def mounts_under(mounts: Sequence[Mount], *folders: Path) -> tuple[Mount, ...]:
    """What is mounted inside the folders (not at the folders themselves), the deepest first."""
    inside = [m for m in mounts if any(folder in m.target.parents for folder in folders)]
    return tuple(sorted(inside, key=lambda mount: len(mount.target.parts), reverse=True))


def nearest_existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path


@dataclass(frozen=True)
class DiskSpace:
    """What a file system has; bytes and inodes are those that this user may still take.

    `file_system` is its type as the kernel names it: "ext4", "lustre". `inodes` is None where the
    file system makes them as needed.
    """

    free: int
    file_system: str = ""
    total: int = 0
    inodes: int | None = None


def disk_space(path: Path) -> DiskSpace:
    """What the file system has that `path` is on, or would be made on."""
    existing = nearest_existing(path).resolve()
    stats = os.statvfs(existing)
    block = stats.f_frsize
    return DiskSpace(
        free=stats.f_bavail * block,
        file_system=mount_of(existing, read_mount_table()).fstype,
        total=stats.f_blocks * block,
        # xfs counts inodes that it could still make; btrfs says 0 of 0.
        inodes=stats.f_favail if stats.f_files else None,
    )


def free_bytes(data_root: str | Path) -> int | None:
    """Free space where an engine keeps images; None when that is not on this machine."""
    try:
        return disk_space(Path(data_root)).free
    except OSError:
        return None

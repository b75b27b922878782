"""Where file systems are mounted, of which type they are, and what room they have."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")  # proc(5): mountinfo writes blanks as \040


def free_bytes(data_root: str | Path) -> int | None:
    """Free space where an engine keeps images; None when that is not on this machine."""
    place = Path(data_root)
    while not place.exists() and place != place.parent:
        place = place.parent  # not made yet: its file system is that of the folder above
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def mount_points(mountinfo: str) -> list[str]:
    """Where something is mounted; a folder bound to itself too, which Path.is_mount cannot see."""
    return [unescape_mount(line.split(" ", 5)[4]) for line in mountinfo.splitlines()]


def mounts_below(points: list[str], folders: tuple[Path, ...]) -> list[str]:
    """The mount points inside the folders (not the folders themselves), the deepest first."""
    found = [point for point in points if any(point.startswith(f"{path}/") for path in folders)]
    return sorted(found, key=lambda point: point.count("/"), reverse=True)


def unescape_mount(text: str) -> str:
    """A path as mountinfo writes it (blanks and line ends as octal) -> the path."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


@dataclass(frozen=True)
class DiskSpace:
    """What a destination offers."""

    free: int  # bytes that this user may still write
    file_system: str  # type as the kernel names it: "ext4", "lustre"; empty where unknown


def existing_parent(path: Path) -> Path:
    """The nearest folder above `path` that is there already."""
    return next(parent for parent in path.parents if parent.exists())


def file_system_of(path: Path, mountinfo: str) -> str:
    """The type of the file system that `path` is on, from the text of /proc/self/mountinfo."""
    best, found = -1, ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        mount = Path(unescape_mount(left.split()[4]))
        # Later lines cover earlier ones at the same place.
        if path.is_relative_to(mount) and len(mount.parts) >= best:
            best, found = len(mount.parts), right.split()[0]
    return found


def disk_space(destination: Path) -> DiskSpace:
    """Look at the file system that `destination` is on or would be made on."""
    folder = existing_parent(destination).resolve()
    stats = os.statvfs(folder)
    mountinfo = MOUNTINFO.read_text(errors="surrogateescape")
    return DiskSpace(stats.f_bavail * stats.f_frsize, file_system_of(folder, mountinfo))


@dataclass(frozen=True)
class FileSystemSpace:
    """What a file system has, in bytes and in free inodes (None: it makes them as needed)."""

    total: int
    free: int
    inodes: int | None


def nearest_existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path


def file_system_space(path: Path) -> FileSystemSpace:
    """What the file system of `path` has, for root."""
    stats = os.statvfs(nearest_existing(path))
    block = stats.f_frsize
    # xfs counts inodes that it could still make; btrfs says 0 of 0.
    inodes = stats.f_favail if stats.f_files else None
    return FileSystemSpace(stats.f_blocks * block, stats.f_bavail * block, inodes)

"""Which disk of the node holds scratch and caches: one rule, shown by `launch plan`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.causes import LaunchError
from launcher.platforms.places import is_shared, make_place

#: Where instances mount their NVMe disks (DLAMI, HyperPod), and where every system keeps what is
#: temporary. After TMPDIR, if that is set.
DISKS = ("/opt/dlami/nvme", "/opt/sagemaker", "/tmp", "/var/tmp")  # noqa: S108 - folders, not files
_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
_OVERLAYS = ("overlay", "fuse-overlayfs", "fuse.fuse-overlayfs")


@dataclass(frozen=True)
class LocalDisk:
    """The folder of a disk, the reason for it, and a warning ("" for none)."""

    path: Path
    why: str
    warning: str = ""

    @property
    def own(self) -> Path:
        """This user's folder on it."""
        return self.path / f"launch-{os.geteuid()}"

    def make(self, *names: str) -> Path:
        """A private folder below this user's own, made if it is missing."""
        return make_place(self.own.joinpath(*names), private=1 + len(names))


def choose_disk(
    env: Mapping[str, str], asked: str = "", candidates: Iterable[str] = DISKS
) -> LocalDisk:
    """`asked` (--local-dir), else the folder with the most free space that is on a real disk.

    Under enroot /tmp is memory, and so is everything else when a container starts from its file:
    what a cache takes there, the job lacks. Where nothing else is to be had, memory is used, with a
    warning. LaunchError where nothing can be written to.
    """
    if asked:
        return LocalDisk(Path(asked).absolute(), "--local-dir")
    named = env.get("TMPDIR", "")
    folders = list(dict.fromkeys([*([named] if named.startswith("/") else []), *candidates]))
    free: dict[int, int] = {}  # a disk's, taken once: of two folders on it the first one wins
    real, memory, passed = [], [], []
    for folder in folders:
        try:
            found = os.stat(folder)  # noqa: PTH116 - names, until one is chosen
            space = free.setdefault(found.st_dev, shutil.disk_usage(folder).free)
        except OSError:
            continue  # not there
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            passed.append(f"{folder} is not writable")
        elif is_shared(found.st_mode) and not found.st_mode & 0o1000:
            passed.append(f"in {folder} others may replace what is this user's (chmod +t)")
        elif in_memory(folder):
            memory.append((space, folder))
            passed.append(f"{folder} is memory")
        else:
            real.append((space, folder))
    told = f"; {', '.join(passed)}" if passed else ""
    if real:
        space, folder = max(real, key=lambda item: item[0])
        return LocalDisk(Path(folder), f"a disk of this node, {_gib(space)} free{told}")
    if not memory:
        raise LaunchError(
            f"there is no folder for scratch and caches ({', '.join(passed) or 'none is there'}): "
            "name one with --local-dir",
            kind="PlaceError",
        )
    space, folder = max(memory, key=lambda item: item[0])
    return LocalDisk(
        Path(folder),
        f"nothing but memory is writable{told}",
        f"scratch and caches are kept in memory, in {folder} ({_gib(space)} free): mount a disk of "
        "the node into the container and name it with --local-dir",
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def in_memory(folder: str, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether what is written to a folder takes memory, not disk."""
    kind = file_system(os.path.realpath(folder), mounts)
    if kind not in _OVERLAYS:
        return kind in _MEMORY
    # An overlay answers for the layer that is written to. A tmpfs without limits of its own, as
    # enroot's is, has as many inodes as it has pages; a disk's numbers are never equal.
    found = os.statvfs(folder)
    return found.f_files == found.f_blocks and found.f_blocks > 0


def file_system(path: str, mounts: Path) -> str:
    """The type of the file system that a path is on; "" where it is not known."""
    best, kind = -1, ""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        head, _, tail = line.partition(" - ")
        words = head.split(" ")
        if len(words) < 5 or not tail:
            continue
        point = words[4].replace(r"\040", " ").replace(r"\011", "\t").replace(r"\134", "\\")
        inside = path == point or path.startswith(f"{point.rstrip('/')}/")
        if inside and len(point) >= best:  # the later of two on one point hides the earlier
            best, kind = len(point), tail.split(" ")[0]
    return kind


def small_scratch(env: Mapping[str, str], *names: str) -> Path:
    """A private folder for notes of a few bytes, at a place that is the same for all processes."""
    folders = [folder for folder in (env.get("TMPDIR", ""), "/tmp", "/var/tmp") if folder]  # noqa: S108
    for folder in folders:
        if os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            return LocalDisk(Path(folder), "for notes").make(*names)
    raise LaunchError(f"none of {', '.join(folders)} can be written to", kind="PlaceError")

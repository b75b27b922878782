"""The disk that the data goes to: found, waited for, and asked whether it will do."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slipway.core import (
    DiskSpace,
    Mount,
    TreeSize,
    UsageError,
    disk_space,
    human_bytes,
    mount_of,
    nearest_existing,
    read_fstab,
    read_mount_table,
    wait_until,
)
from slipway.storage.candidates import (
    expected_mount,
    is_mounted,
    preferred_disk,
    why_unusable,
    with_margin,
)
from slipway.storage.errors import StorageError
from slipway.storage.machine import Machine
from slipway.storage.profiles import Profile

_ATTRIBUTES = ("user.slipway", "trusted.slipway", "security.slipway")

_OVERLAY_SIGNS = re.compile(r"[,:\\]")
_PLAIN = re.compile(r"[\w.+@/-]*")


@dataclass(frozen=True)
class TargetDisk:
    """A folder on a disk, as it is now."""

    disk: Path
    mount: Mount
    space: DiskSpace


def check_disk_name(disk: Path, *, in_files: bool) -> None:
    """Refuse a path that one of its readers takes for something else. Raises UsageError.

    `in_files`: it will stand in unit files, enroot.conf and daemon.json, not in a link alone.
    """
    name = str(disk)
    if not name.isprintable() or _OVERLAY_SIGNS.search(name):
        raise UsageError(
            "no comma, colon, backslash or unprintable character is allowed in the path: "
            "overlayfs takes them for signs of its own",
            where=name,
        )
    if in_files and not _PLAIN.fullmatch(name):
        raise UsageError(
            "only letters, digits and . _ + @ - are allowed in the path: unit files and "
            "enroot.conf read others, blanks too, as signs of their own",
            where=name,
        )


def inspect_disk(
    disk: Path,
    profile: Profile,
    machine: Machine,
    *,
    in_files: bool,
    wait_s: float,
    on_wait: Callable[[Path], None],
) -> TargetDisk:
    """The disk that `disk` is on, once it is mounted. Raises UsageError, StorageError.

    A path at or below a mount point that fstab or the profile names is on that disk, or nowhere:
    while it is not mounted, the same path is a folder of the root disk. `in_files`: see
    `check_disk_name`.
    """
    check_disk_name(disk, in_files=in_files)
    expected = expected_mount(disk, [*read_fstab(), *preferred_disk(profile, machine)])
    if expected is not None and not is_mounted(expected):
        on_wait(expected)
        if not wait_until(lambda: is_mounted(expected), wait_s, every=0.5):
            raise StorageError(
                f"nothing is mounted there after {wait_s:.0f} s, so the data would land on the "
                "disk below it",
                where=str(expected),
                cure="Mount it (`systemctl status dlami-nvme` on Deep Learning AMIs), "
                "or name another disk.",
            )
    real = nearest_existing(disk).resolve() / disk.relative_to(nearest_existing(disk))
    return TargetDisk(
        real,
        mount_of(real, read_mount_table()),
        disk_space(real),
    )


def check_target_disk(target: TargetDisk, old: Sequence[Path], size: TreeSize) -> None:
    """Refuse a disk that will not do, with the reason. `old` is where the data is now."""
    if reason := why_unusable(target.mount):
        raise StorageError(f"Docker cannot keep its data there: {reason}", where=str(target.disk))
    mounted = read_mount_table()
    for path in old:
        if target.disk.is_relative_to(path):
            raise UsageError("the target is inside the data that is to move", where=str(path))
        if mount_of(path, mounted).device == target.mount.device:
            raise StorageError(
                f"{path} is on the same disk ({target.mount.source}): a move gains nothing",
                where=str(target.disk),
                cure="Name a folder on another disk.",
            )
    needed = with_margin(size.bytes)
    if target.space.free < needed:
        raise StorageError(
            f"there is not enough space: {human_bytes(target.space.free)} free, "
            f"{human_bytes(needed)} needed ({human_bytes(size.bytes)} of data and a tenth more)",
            where=str(target.mount.target),
            cure="Choose a larger disk, `./inv storage.prune` first, or use --mode fresh.",
        )
    if target.space.inodes is not None and target.space.inodes < with_margin(size.entries):
        raise StorageError(
            f"there are not enough inodes: {target.space.inodes} free, {size.entries} files",
            where=str(target.mount.target),
            cure="Make the file system with more of them (mkfs.ext4 -i 8192), or use xfs.",
        )


def try_disk(folder: Path) -> None:
    """Raise StorageError with the first thing that the file system of `folder` cannot do."""
    trial = folder / f".slipway-trial-{os.getpid()}"
    try:
        trial.mkdir(mode=0o700)
        try:
            _try(trial)
        finally:
            shutil.rmtree(trial)
    except OSError as error:
        raise StorageError(
            f"the disk cannot be used: {error.strerror}",
            where=str(error.filename or folder),
            cure="Docker needs a local ext4 or xfs that root may write to.",
        ) from error


def _try(trial: Path) -> None:
    file = trial / "file"
    file.write_bytes(b"x")
    os.chown(file, 12345, 12345)
    os.link(file, trial / "link")
    for name in _ATTRIBUTES:
        os.setxattr(file, name, b"1")
    os.mknod(trial / "whiteout", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    for name in ("lower", "upper", "work", "merged"):
        (trial / name).mkdir()
    (trial / "lower" / "gone").touch()
    _try_overlay(trial)


def _try_overlay(trial: Path) -> None:
    options = ",".join(f"{name}dir={trial / name}" for name in ("lower", "upper", "work"))
    merged = trial / "merged"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StorageError(
            f"no overlay can be mounted there: {done.stderr.strip()}", where=str(trial.parent)
        )
    try:
        (merged / "gone").unlink()
    finally:
        subprocess.run(["umount", str(merged)], check=True)
    status = (trial / "upper" / "gone").lstat()
    if not (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0):
        raise StorageError("overlayfs makes no whiteouts there", where=str(trial.parent))

"""Trying on the target disk, in a folder that goes again, all that Docker's data is made of."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

from slipway.storage.errors import StorageError

_ATTRIBUTES = ("user.slipway", "trusted.slipway", "security.slipway")


def try_disk(folder: Path) -> None:
    """Raise StorageError with the first thing that the file system of `folder` cannot do."""
    place = folder / f".slipway-trial-{os.getpid()}"
    try:
        place.mkdir(mode=0o700)
        try:
            _try(place)
        finally:
            shutil.rmtree(place)
    except OSError as error:
        raise StorageError(
            f"the disk cannot be used: {error.strerror}",
            where=str(error.filename or folder),
            cure="Docker needs a local ext4 or xfs that root may write to.",
        ) from error


def _try(place: Path) -> None:
    file = place / "file"
    file.write_bytes(b"x")
    os.chown(file, 12345, 12345)
    os.link(file, place / "link")
    for name in _ATTRIBUTES:
        os.setxattr(file, name, b"1")
    os.mknod(place / "whiteout", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    for name in ("lower", "upper", "work", "merged"):
        (place / name).mkdir()
    (place / "lower" / "gone").touch()
    _try_overlay(place)


def _try_overlay(place: Path) -> None:
    options = ",".join(f"{name}dir={place / name}" for name in ("lower", "upper", "work"))
    merged = place / "merged"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StorageError(
            f"no overlay can be mounted there: {done.stderr.strip()}", where=str(place.parent)
        )
    try:
        (merged / "gone").unlink()
    finally:
        subprocess.run(["umount", str(merged)], check=True)
    status = (place / "upper" / "gone").lstat()
    if not (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0):
        raise StorageError("overlayfs makes no whiteouts there", where=str(place.parent))

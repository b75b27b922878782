"""Caches that must be on a local disk, and the locks that killed builds leave in them."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from launcher.platforms import EnvironmentChange, unless_set

#: Where instances mount their NVMe disks, largest first in practice; /tmp is on it in SageMaker.
LOCAL_DISKS = ("/opt/dlami/nvme", "/opt/sagemaker", "/tmp")  # noqa: S108 - a place, not a file


def local_disk(candidates: tuple[str, ...] = LOCAL_DISKS) -> Path:
    """The writable local directory with the most free space."""
    usable = [Path(name) for name in candidates if os.access(name, os.W_OK)]
    return max(usable, key=lambda path: shutil.disk_usage(path).free, default=Path("/tmp"))  # noqa: S108


def cache_variables(env: Mapping[str, str], disk: Path, home: Path) -> list[EnvironmentChange]:
    """Hugging Face, torch extension and Triton caches below `disk`, where the user has no say.

    The home directory may be one share for all nodes, where builds of eight nodes collide. A
    Hugging Face cache that is in it already (baked into the image, or a token) stays in use.
    """
    root = disk / "launch-cache"
    why = "a local disk: not shared between nodes, and fast"
    rows = [
        unless_set(env, "TORCH_EXTENSIONS_DIR", str(root / "torch_extensions"), why),
        unless_set(env, "TRITON_CACHE_DIR", str(root / "triton"), why),
    ]
    if not (home / ".cache" / "huggingface").exists():
        rows.append(unless_set(env, "HF_HOME", str(root / "huggingface"), why))
    return rows


class ExtensionsCache:
    """This node's torch extensions directory, in use by this launch until `close`."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._users = (path / ".launch-users").open("a")

    def clean(self) -> list[Path]:
        """Delete the `lock` files that killed builds have left; which ones.

        torch waits for such a file for ever, without a word (torch/utils/file_baton.py). They are
        certainly stale while no other launch uses the directory, which is what is checked.
        """
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            removed = []
        else:
            # NAME/lock, or with the default layout py311_cu130/NAME/lock.
            removed = [*self._path.glob("*/lock"), *self._path.glob("*/*/lock")]
            for lock in removed:
                lock.unlink(missing_ok=True)
        fcntl.flock(self._users, fcntl.LOCK_SH)
        return removed

    def close(self) -> None:
        """Let go of the directory."""
        self._users.close()

"""Caches that must be on a local disk, and the locks that killed builds leave in them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from launcher.platforms import NO_LOCKS, EnvironmentChange, LocalDisk, make_place, unless_set

#: Below a user's own folder on a disk.
CACHES = "cache"


def cache_variables(
    env: Mapping[str, str], disk: LocalDisk, python: str
) -> list[EnvironmentChange]:
    """Caches of compiled code and of Hugging Face on the node's own disk, unless the user says so.

    The home directory may be one share for all nodes, where builds of eight nodes collide, or of
    another user. A Hugging Face cache that is in it already (baked into the image, or a token)
    stays in use. Extensions are compiled against one torch, and a disk may outlive a container:
    each torch has its own.
    """
    root = disk.own / CACHES
    why = "a cache on this node's disk, this user's alone"
    rows = [
        unless_set(env, "TORCH_EXTENSIONS_DIR", str(root / _torch_word(python)), why),
        unless_set(env, "TORCHINDUCTOR_CACHE_DIR", str(root / "torchinductor"), why),
        unless_set(env, "TRITON_CACHE_DIR", str(root / "triton"), why),
    ]
    home = env.get("HOME", "")
    # Not Path.exists: another user's home is a PermissionError to it.
    if not home or not os.path.exists(f"{home}/.cache/huggingface"):  # noqa: PTH110
        rows.append(unless_set(env, "HF_HOME", str(root / "huggingface"), why))
    return rows


def _torch_word(python: str) -> str:
    """A name for what extensions are compiled against: the interpreter and its torch."""
    digest = hashlib.sha256(f"{python} {sys.version}".encode())
    libraries = Path(python).parent.parent / "lib"
    for path in sorted(libraries.glob("python3*/site-packages/torch/version.py")):
        digest.update(path.read_bytes())
    return f"torch_extensions-{digest.hexdigest()[:12]}"


class ExtensionsCache:
    """This node's torch extensions directory, in use by this launch until `close`."""

    def __init__(self, path: Path) -> None:
        make_place(path)
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
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return []  # nothing tells whether another launch uses it
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

"""The embedded engine's data folder as a link, so that one rename moves it to another disk.

The engine opens a fixed path. Before a move that folder and a link to it change places in one
system call (renameat2(2), RENAME_EXCHANGE): at no moment is there neither, whatever is killed.
"""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import Any

from slipway.core import write_atomic
from slipway.storage.errors import StorageError

_FIELDS = ("LogPath", "HostnamePath", "HostsPath", "ResolvConfPath")

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def own_data_path(data: Path) -> Path:
    """Where the data is while `data` is a link, before it has moved anywhere."""
    return data.with_name(f"{data.name}-own")


def settle_link(data: Path) -> None:
    """Make a plain data folder a link to itself under another name. Again: nothing to do."""
    if data.is_symlink() or not data.exists():
        return
    aside = own_data_path(data)
    if aside.is_symlink():  # of a run that was killed here
        aside.unlink()
    if aside.exists():
        raise StorageError(
            "this folder is in the way: the engine's data would get its name",
            where=str(aside),
            cure="Look what it is, and rename or remove it.",
        )
    aside.symlink_to(aside.name)
    try:
        _exchange(data, aside)
    except StorageError:
        aside.unlink()
        raise


def unsettle_link(data: Path) -> None:
    """Undo `settle`, unless the link points to another disk by now."""
    aside = own_data_path(data)
    if data.is_symlink() and data.readlink() == Path(aside.name) and aside.is_dir():
        _exchange(data, aside)
        aside.unlink()


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    paths = (os.fsencode(one), os.fsencode(other))
    if libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) != 0:
        why = os.strerror(ctypes.get_errno())
        raise StorageError(f"this file system cannot exchange two names: {why}", where=str(one))


def repoint(data_root: Path, old: Path, new: Path) -> None:
    """Have the containers in `data_root` know `new` where they know `old`.

    What a person gave as a bind mount stays as it is. Again: nothing changes.
    """
    for path in sorted(data_root.glob("containers/*/config.v2.json")):
        try:
            record = json.loads(path.read_bytes())
            if _repoint(record, old, new):
                text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
                write_atomic(path, text, mode=path.stat().st_mode & 0o7777)
        except (ValueError, AttributeError) as error:
            raise StorageError(f"not a container's record: {error}", where=str(path)) from error


def _repoint(record: dict[str, Any], old: Path, new: Path) -> bool:
    changed = False
    named = [point for point in (record.get("MountPoints") or {}).values() if point.get("Name")]
    for holder, field in [(record, field) for field in _FIELDS] + [(p, "Source") for p in named]:
        value = holder.get(field)
        if isinstance(value, str) and value.startswith(f"{old}/"):
            holder[field] = f"{new}{value[len(str(old)) :]}"
            changed = True
    return changed

"""The embedded engine: stopped for a move, its data folder is a link that one rename moves.

The engine opens a fixed path. Before a move that folder and a link to it change places in one
system call (renameat2(2), RENAME_EXCHANGE): at no moment is there neither, whatever is killed.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slipway.core import Project
from slipway.engine import daemon_status, start_daemon, stop_daemon
from slipway.storage.errors import StorageError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@dataclass(frozen=True)
class EmbeddedService:
    """Slipway's own engine. While it is stopped for a move, its data folder is behind a link."""

    root: Path
    state: Path
    kind: Literal["embedded"] = "embedded"

    @property
    def project(self) -> Project:
        """The checkout whose engine this is."""
        return Project(self.root, self.state)

    @property
    def data(self) -> Path:
        """The folder, or the link, that the engine opens."""
        return self.project.engine / "data"

    def running(self) -> bool:
        """Whether it answers."""
        return daemon_status(self.project).running

    def stop(self) -> None:
        """Stop it, and have its data where a link can point to it."""
        stop_daemon(self.project)
        settle_link(self.data)

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it; data that did not move is a plain folder again."""
        del environment  # the engine keeps its temporary files below its data
        unsettle_link(self.data)
        start_daemon(self.project)

    def steps(self) -> tuple[str, str]:
        """One engine, one step."""
        return "stop the embedded engine", "start the embedded engine"


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

"""What a move has done so far, on the disk before it is done: the way on, or back, after a crash.

One file for each daemon. A phase is written, and flushed, before anything of it happens, so that
"copying" means: a copy may have begun. Every phase can be done again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from slipway.core import TreeSize
from slipway.storage.docker import (
    DOCKERS_NAMESPACES,
    DataFolders,
    DockerInventory,
    own_data_path,
)
from slipway.storage.move.edits import FileEdit

Phase = Literal[
    "planned",
    "stopping",
    "copying",
    "verifying",
    "placing",
    "switching",
    "starting",
    "checking",
    "deleting",
    "done",
    "undoing",
    "undone",
]
FORWARD: tuple[Phase, ...] = (
    "planned",
    "stopping",
    "copying",
    "verifying",
    "placing",
    "switching",
    "starting",
    "checking",
    "deleting",
    "done",
)
BEFORE_START = FORWARD[: FORWARD.index("starting")]
"""Phases in which nothing has run on the new place, unless somebody else started it there."""

_OVER = ("done", "undone")


@dataclass(frozen=True)
class DataRoot:
    """One folder of data that moves from `old` to `new`.

    `copy`: its content goes along; else the daemon starts there on nothing, or, with `adopt`, on
    what is there. `file` is the configuration file, or link, that decides which one is in use.
    `known` is how the daemon itself calls the old place.
    """

    name: str
    old: Path
    new: Path
    size: TreeSize
    copy: bool
    adopt: bool
    file: Path
    known: Path

    @property
    def partial(self) -> Path:
        """Where the copy is made: it gets its name when it is whole and verified."""
        return self.new.with_name(f"{self.new.name}.partial")

    def called(self, path: Path) -> Path:
        """How the daemon calls one of its places: see slipway.storage.docker.data_path."""
        return self.file if path == own_data_path(self.file) else path


@dataclass(frozen=True)
class KeptFolder:
    """Data that a finished move or restore left behind. `holds` names what exists only there."""

    path: Path
    holds: str = ""


@dataclass(frozen=True)
class MoveJournal:
    """A move (or a restore, which is a move back) with everything needed to go on or back."""

    kind: Literal["move", "restore"]
    phase: Phase
    url: str
    embedded: bool
    service: Mapping[str, Any]
    was_running: bool
    disk: Path  # the mount point that the data goes to
    device: str
    roots: tuple[DataRoot, ...]
    edits: tuple[FileEdit, ...]
    folders: tuple[tuple[Path, int], ...] = ()  # to make, with their modes
    scratch: tuple[Path, ...] = ()  # what the daemon makes there beside the roots
    environment: Mapping[str, str] = field(default_factory=dict)  # after the move
    containerd: Path | None = None  # the socket of the one whose root moves
    before: DockerInventory | None = None
    delete_old: bool = False
    made: tuple[Path, ...] = ()  # folders that were made, removed on the way back if empty
    clear: tuple[Path, ...] = ()  # folders that an earlier move made, removed at the end if empty
    ours: tuple[Path, ...] = ()  # trees that were made, removed on the way back
    kept: tuple[KeptFolder, ...] = ()
    left_behind: str = ""  # what exists only in the old roots once the new ones are in use
    notes: tuple[str, ...] = ()  # for the person who reads the plan
    keep_new: bool = False  # on the way back
    own_namespaces: tuple[str, ...] = DOCKERS_NAMESPACES
    boot: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.phase in _OVER

    @property
    def carries(self) -> bool:
        """Whether everything of before is to be there afterwards."""
        return self.kind == "restore" or any(root.copy for root in self.roots)

    def folders_in_use(self, *, moved: bool) -> DataFolders:
        """Where the roots of this move are, after it or before."""
        used = {root.name: root.new if moved else root.old for root in self.roots}
        docker = used.get("docker", used.get("engine", Path("/nonexistent")))
        return DataFolders(docker, used.get("containerd"), self.own_namespaces)

    def at(self, phase: Phase, **changes: Any) -> MoveJournal:
        """The same in another phase."""
        return dataclasses.replace(self, phase=phase, boot=boot_id(), **changes)


def boot_id() -> str:
    """Another one after each boot (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()

"""What a move has done so far, on the disk before it is done: the way on, or back, after a crash.

One file for each daemon, written whole and flushed. A phase is written before anything of it
happens, so that "copying" means: a copy may have begun. Every phase can be done again.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from slipway.core import Project, exclusive, lock_is_held, sync_folder, write_atomic
from slipway.engine import daemon_status
from slipway.storage.docker import (
    DOCKERS_NAMESPACES,
    DataFolders,
    DockerInventory,
    Service,
    choose_daemon,
    installation_key,
)
from slipway.storage.errors import StorageError
from slipway.storage.machine import Machine
from slipway.storage.move.changes import DataRoot, FileEdit

FORMAT = "slipway-storage/1"

_CURRENT = "journal.json"
_LAST = "last.json"

Forward = Literal[
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
]
Phase = Literal[Forward, "undoing", "undone"]
FORWARD: tuple[Forward, ...] = get_args(Forward)
BEFORE_START = FORWARD[: FORWARD.index("starting")]
"""Phases in which nothing has run on the new place, unless somebody else started it there."""


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
    service: Service
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
        return self.phase in ("done", "undone")

    @property
    def carries(self) -> bool:
        """Whether everything of before is to be there afterwards."""
        return self.kind == "restore" or any(root.copy for root in self.roots)

    @property
    def restarts(self) -> bool:
        """Whether the daemon is stopped and started: enroot alone needs neither.

        Data moves without an edit where the file names the new place, and nobody restarted.
        """
        return bool(self.roots) or any(edit.kind != "enroot" for edit in self.edits)

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


@functools.cache
def _form() -> TypeAdapter[MoveJournal]:
    return TypeAdapter(MoveJournal)


def journal_folder(machine: Machine, url: str) -> Path:
    """Where the journal, the lock and the logs of one daemon are."""
    return machine.state / installation_key(url)


def begin_journal(machine: Machine, journal: MoveJournal) -> None:
    """Write a new journal; the last finished one is put aside until this one is."""
    folder = journal_folder(machine, journal.url)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # a daemon's environment may hold passwords of proxies
    last = read_journal(machine, journal.url)
    if last is not None and last.phase == "done" and (folder / _CURRENT).exists():
        (folder / _CURRENT).replace(folder / _LAST)
    write_journal(machine, journal)


def finish_journal(machine: Machine, journal: MoveJournal) -> MoveJournal:
    """Write the last word of a journal. One that was undone makes way for the one before it.

    Returns the journal that counts from now on.
    """
    folder = journal_folder(machine, journal.url)
    write_journal(machine, journal)
    if journal.phase == "undone" and (folder / _LAST).exists():
        (folder / _LAST).replace(folder / _CURRENT)
        last = read_journal(machine, journal.url)
        assert last is not None
        write_journal(machine, dataclasses.replace(last, kept=journal.kept))
    else:
        (folder / _LAST).unlink(missing_ok=True)
    return journal


def write_journal(machine: Machine, journal: MoveJournal) -> None:
    """Replace the journal, for good. It names environment variables: only root may read it."""
    data = {"format": FORMAT, **_form().dump_python(journal, mode="json")}
    path = journal_folder(machine, journal.url) / _CURRENT
    # Not pydantic's own JSON, which has no escapes for file names that are not UTF-8 (PEP 383).
    write_atomic(path, json.dumps(data, indent=1) + "\n", mode=0o600)
    sync_folder(path.parent)


def read_journal(machine: Machine, url: str) -> MoveJournal | None:
    """The last move of a daemon, None where there was none. Raises StorageError.

    One of an earlier version of Slipway may lack what has a default.
    """
    folder = journal_folder(machine, url)
    for path in (folder / _CURRENT, folder / _LAST):  # the latter alone: killed inside `begin`
        try:
            data = json.loads(path.read_bytes())
            if data.pop("format") != FORMAT:
                raise ValueError("it is of another version of Slipway")
            return _form().validate_python(data)
        except ValidationError as error:
            wrong = error.errors()[0]
            name = ".".join(str(part) for part in wrong["loc"])
            raise StorageError(f"not a journal: {name}: {wrong['msg']}", where=str(path)) from error
        except FileNotFoundError:
            continue
        except PermissionError as error:
            raise StorageError("may not be read", where=str(path), cure="Use sudo.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"not a journal: {error}", where=str(path)) from error
    return None


@dataclass(frozen=True)
class DockerDaemon:
    """The daemon whose data is moved, as a checkout sees it: its last move, and its lock."""

    project: Project
    machine: Machine
    url: str  # "embedded" for the embedded engine

    @classmethod
    def of(cls, project: Project, machine: Machine, engine: str) -> DockerDaemon:
        """The daemon that the settings name.

        With "auto", a system Docker whose move was cut off is the one meant, though it is down.
        """
        url = choose_daemon(engine, machine)
        if engine == "auto" and url == "embedded":
            last = read_journal(machine, machine.docker_url)
            if last is not None and not last.over:
                url = machine.docker_url
        return cls(project, machine, url)

    @property
    def _journal_url(self) -> str:
        return daemon_status(self.project).url if self.url == "embedded" else self.url

    @property
    def _lock(self) -> Path:
        return journal_folder(self.machine, self._journal_url) / "lock"

    def journal(self) -> MoveJournal | None:
        """The daemon's last move."""
        return read_journal(self.machine, self._journal_url)

    def has_kept(self) -> bool:
        """Whether earlier moves left data behind."""
        journal = self.journal()
        return journal is not None and bool(journal.kept)

    def is_moving(self) -> bool:
        """Whether a process moves this daemon's data at this moment."""
        return lock_is_held(self._lock)

    @contextmanager
    def locked(self, doing: str) -> Iterator[None]:
        """Nobody else moves this daemon's data, and no task of this checkout uses it."""
        with exclusive(self._lock, doing), exclusive(self.project.state / "lock", doing):
            yield

"""The journal of each daemon's last move as a file: written whole, flushed, read after a crash."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from slipway.core import TreeSize, lock_is_held, sync_folder, write_atomic
from slipway.storage.docker import DOCKERS_NAMESPACES, DockerInventory, installation_key
from slipway.storage.errors import StorageError
from slipway.storage.machine import Machine
from slipway.storage.move.edits import FileEdit
from slipway.storage.move.journal import DataRoot, KeptFolder, MoveJournal

FORMAT = "slipway-storage/1"

_CURRENT = "journal.json"
_LAST = "last.json"


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
    data = {
        "format": FORMAT,
        **{f.name: getattr(journal, f.name) for f in dataclasses.fields(journal)},
        "roots": [dataclasses.asdict(root) for root in journal.roots],
        "edits": [edit.as_json() for edit in journal.edits],
        "before": journal.before.as_json() if journal.before else None,
        "kept": [dataclasses.asdict(kept) for kept in journal.kept],
    }
    path = journal_folder(machine, journal.url) / _CURRENT
    write_atomic(path, json.dumps(data, indent=1, default=str) + "\n", mode=0o600)
    sync_folder(path.parent)


def read_journal(machine: Machine, url: str) -> MoveJournal | None:
    """The last move of a daemon, None where there was none. Raises StorageError."""
    folder = journal_folder(machine, url)
    for path in (folder / _CURRENT, folder / _LAST):  # the latter alone: killed inside `begin`
        try:
            data = json.loads(path.read_bytes())
            if data.pop("format") != FORMAT:
                raise ValueError("it is of another version of Slipway")
            return _from_json(data)
        except FileNotFoundError:
            continue
        except PermissionError as error:
            raise StorageError("may not be read", where=str(path), cure="Use sudo.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"not a journal: {error}", where=str(path)) from error
    return None


def _from_json(data: dict[str, Any]) -> MoveJournal:
    roots = tuple(
        DataRoot(
            **{
                **root,
                **{name: Path(root[name]) for name in ("old", "new", "file", "known")},
                "size": TreeSize(**root["size"]),
            }
        )
        for root in data["roots"]
    )
    return MoveJournal(
        **{
            **data,
            "disk": Path(data["disk"]),
            "roots": roots,
            "edits": tuple(FileEdit.from_json(edit) for edit in data["edits"]),
            "folders": tuple((Path(path), mode) for path, mode in data["folders"]),
            "scratch": tuple(Path(path) for path in data["scratch"]),
            "containerd": Path(data["containerd"]) if data["containerd"] else None,
            "before": DockerInventory.from_json(data["before"]) if data["before"] else None,
            "made": tuple(Path(path) for path in data["made"]),
            "clear": tuple(Path(path) for path in data["clear"]),
            "notes": tuple(data.get("notes", ())),
            "own_namespaces": tuple(data.get("own_namespaces", DOCKERS_NAMESPACES)),
            "ours": tuple(Path(path) for path in data["ours"]),
            "kept": tuple(KeptFolder(Path(kept["path"]), kept["holds"]) for kept in data["kept"]),
        }
    )


def move_lock_path(machine: Machine, url: str) -> Path:
    """Held by whoever moves this daemon's data."""
    return journal_folder(machine, url) / "lock"


def move_at_work(machine: Machine, url: str) -> bool:
    """Whether a process moves this daemon's data at this moment."""
    return lock_is_held(move_lock_path(machine, url))

"""Where everything is: on which disk, how much it takes, and what would be a better place."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slipway.errors import SlipwayError
from slipway.storage import ledger
from slipway.storage.daemons import subject
from slipway.storage.daemons.subject import Subject
from slipway.storage.disks import mounts, target
from slipway.storage.disks.candidates import Candidate
from slipway.storage.disks.profiles import profile
from slipway.storage.errors import StorageError
from slipway.storage.journal import Journal
from slipway.storage.moving import Room
from slipway.storage.places import Place, of_docker, of_enroot, of_slipway, place


@dataclass(frozen=True)
class Status:
    """The whole answer. `move` says what became of the last move, None where there was none."""

    profile: str
    daemon: str
    places: tuple[Place, ...]
    candidates: tuple[Candidate, ...]
    move: str | None
    unfinished: bool
    kept: tuple[Path, ...]

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            "profile": self.profile,
            "daemon": self.daemon,
            "places": [asdict(found) for found in self.places],
            "candidates": [
                {
                    "path": candidate.path,
                    "device": candidate.mount.source,
                    "file_system": candidate.mount.fstype,
                    "free": candidate.space.free,
                    "total": candidate.space.total,
                    "reason": candidate.reason,
                }
                for candidate in self.candidates
            ],
            "move": self.move,
            "unfinished": self.unfinished,
            "kept": list(self.kept),
        }


def look(room: Room, profile_name: str) -> Status:
    """Look at everything; changes and starts nothing. Raises UsageError for an unknown profile."""
    chosen = profile(profile_name, room.machine)
    mounted = mounts.mounts()
    places: list[Place] = []
    found: Subject | None = None
    try:
        found = subject.find(room.project, room.url, room.machine)
        daemon = f"{found.name}, {'running' if found.running else 'stopped'}"
    except SlipwayError as error:
        daemon = f"Docker is not known: {error.what}"
    wanted = [*(of_docker(found, room) if found else ()), *of_enroot(room), *of_slipway(room)]
    anchor = found.data_root if found else Path("/")
    needed = max((used or 0 for _, _, _, used, _ in wanted), default=0)
    ranked = target.candidates(chosen, room.machine, anchor, needed)
    for what, path, note, used, there in wanted:
        places.append(place(what, path, note, used, there, mounted, ranked))
    journal, told = _last_move(room)
    return Status(
        profile=chosen.name,
        daemon=daemon,
        places=tuple(places),
        candidates=ranked,
        move=told,
        unfinished=journal is not None and not journal.over,
        kept=tuple(kept.path for kept in journal.kept) if journal else (),
    )


def _last_move(room: Room) -> tuple[Journal | None, str | None]:
    try:
        journal = room.journal()
    except StorageError as error:
        return None, str(error)
    if journal is None:
        return None, None
    route = ", ".join(f"{root.old} -> {root.new}" for root in journal.roots)
    if ledger.at_work(room.machine, journal.url):
        return journal, f"a {journal.kind} is at work now ({journal.phase}): {route}"
    if not journal.over:
        return journal, (
            f"a {journal.kind} was cut off while {journal.phase}: {route}. "
            "`./inv storage.move --resume` goes on with it, `./inv storage.restore` goes back"
        )
    return journal, f"the last {journal.kind} is {journal.phase}: {route}"


def notes(status: Status) -> tuple[str, ...]:
    """What a person should know beside the tables."""
    lines = [f"profile {status.profile}; {status.daemon}"]
    if status.move:
        lines.append(status.move)
    if status.kept:
        kept = ", ".join(str(path) for path in status.kept)
        lines.append(f"left behind by earlier moves: {kept} (`storage.move --delete-old`)")
    return tuple(lines)

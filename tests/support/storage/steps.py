"""What the storage tasks do, one call each, on a box."""

from __future__ import annotations

from pathlib import Path

from slipway.core import OnEvent, silent
from slipway.storage import (
    DockerDaemon,
    MoveOptions,
    inspect_storage,
    move_data,
    plan_move,
    restore_data,
    resume_move,
)
from slipway.storage.move.journal import MoveJournal
from slipway.storage.move.move_plan import PlannedMove
from slipway.storage.storage_status import StorageStatus
from tests.support.storage.box import Box
from tests.support.storage.content import seen


def room_of(made: Box) -> DockerDaemon:
    return DockerDaemon.of(made.project, made.machine, made.url)


def planned(
    made: Box, disk: Path | None, profile: str = "auto", *, dry_run: bool = False, **options: object
) -> PlannedMove:
    wanted = MoveOptions(**options)  # type: ignore[arg-type]  # what Options refuses, it refuses
    return plan_move(room_of(made), disk, profile, wanted, dry_run=dry_run, say=print)


def move(
    made: Box,
    disk: Path | None,
    profile: str = "auto",
    on_event: OnEvent = silent,
    **options: object,
) -> MoveJournal | None:
    """Plan and apply, as the task does."""
    room = room_of(made)
    with room.locked("storage.move"):
        journal = planned(made, disk, profile, **options).journal  # type: ignore[arg-type]
        return None if journal is None else move_data(room, journal, on_event)


def resume(made: Box) -> MoveJournal:
    room = room_of(made)
    with room.locked("storage.move"):
        return resume_move(room, silent)


def restore(made: Box, *, stop: bool = False, agree: bool = False) -> MoveJournal:
    room = room_of(made)
    with room.locked("storage.restore"):
        return restore_data(room, silent, stop=stop, agree=lambda _: agree)


def look(made: Box) -> dict[str, object]:
    with made.engine() as engine:
        return seen(engine)


def look_at_status(made: Box) -> StorageStatus:
    return inspect_storage(room_of(made), "auto")

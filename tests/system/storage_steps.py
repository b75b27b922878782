"""What the storage tasks do, one call each, on a box."""

from __future__ import annotations

from pathlib import Path

from slipway.report.events import OnEvent, silent
from slipway.storage import moving, recovery, status
from slipway.storage.journal import Journal
from slipway.storage.moving import Planned, Room
from slipway.storage.plan import Options
from slipway.storage.status import Status
from tests.system.storage_box import Box
from tests.system.storage_content import seen


def room_of(made: Box) -> Room:
    return Room.of(made.project, made.machine, made.url)


def planned(
    made: Box, disk: Path | None, profile: str = "auto", *, dry_run: bool = False, **options: object
) -> Planned:
    wanted = Options(**options)  # type: ignore[arg-type]  # what Options refuses, it refuses
    return moving.plan_move(room_of(made), disk, profile, wanted, dry_run=dry_run, say=print)


def move(
    made: Box,
    disk: Path | None,
    profile: str = "auto",
    on_event: OnEvent = silent,
    **options: object,
) -> Journal | None:
    """Plan and apply, as the task does."""
    room = room_of(made)
    with room.locked("storage.move"):
        journal = planned(made, disk, profile, **options).journal  # type: ignore[arg-type]
        return None if journal is None else moving.apply(room, journal, on_event)


def resume(made: Box) -> Journal:
    room = room_of(made)
    with room.locked("storage.move"):
        return recovery.resume(room, silent)


def restore(made: Box, *, stop: bool = False, agree: bool = False) -> Journal:
    room = room_of(made)
    with room.locked("storage.restore"):
        return recovery.restore(room, silent, stop=stop, agree=lambda _: agree)


def look(made: Box) -> dict[str, object]:
    with made.engine() as engine:
        return seen(engine)


def look_at_status(made: Box) -> Status:
    return status.look(room_of(made), "auto")

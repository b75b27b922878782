"""All that can go, in the order in which it goes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from slipway.core import (
    EntryFaults,
    Project,
    UsageError,
    disk_space,
    exclusive,
    human_bytes,
    nearest_existing,
    print_json,
    print_table,
    say,
)
from slipway.engine import Engine, connect, daemon_status
from slipway.prune import engine_images, project_files
from slipway.prune.removable import RemovalStep
from slipway.records import Locks, load_locks
from slipway.storage import DockerDaemon, ask_user

_AGE = re.compile(r"(\d+)([dhw]?)")
_SECONDS = {"h": 3600, "d": 86400, "": 86400, "w": 7 * 86400}


def image_age(text: str) -> int:
    """Seconds in `30d`, `12h`, `2w`, or a plain number of days. Raises UsageError."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no age", cure="Say 30d, 12h or 2w.")
    return int(match[1]) * _SECONDS[match[2]]


def plan_removals(
    project: Project, engine: Engine | None, locks: Locks, older_than: int, faults: EntryFaults
) -> tuple[RemovalStep, ...]:
    """The steps in which something can go; `engine` None leaves images out. What cannot be read is
    kept in `faults`, and in its place."""
    before = time.time() - older_than
    steps = (
        *(engine_images.image_steps(engine, locks, before, faults) if engine else ()),
        *project_files.file_steps(project, before, faults),
    )
    return tuple(step for step in steps if step.items)


def remove_steps(steps: Sequence[RemovalStep], say: Callable[[str], None]) -> None:
    """Remove it all; says what had to stay, and why."""
    for step in steps:
        for item in step.items:
            if reason := step.remove(item):
                say(reason)


def prune(room: DockerDaemon, older_than: str, *, yes: bool, dry_run: bool, json: bool) -> None:
    """Show what can go, ask, and remove it, while no other task of this checkout works."""
    seconds = image_age(older_than)
    project, faults = room.project, EntryFaults()
    with exclusive(project.state / "lock", "storage.prune"), _engine(room) as connected:
        steps = plan_removals(project, connected, load_locks(project), seconds, faults)
        show_prune(steps, as_json=json)
        if not dry_run and steps and ask_user("Remove all this?", yes=yes):
            free = _free(project, connected)
            remove_steps(steps, say)
            say(f"{human_bytes(max(_free(project, connected) - free, 0))} freed")
    faults.raise_any()


@contextmanager
def _engine(room: DockerDaemon) -> Iterator[Engine | None]:
    """The engine; None where there is only an embedded one that was never started."""
    if room.url == "embedded" and not daemon_status(room.project).data_root.exists():
        yield None
        return
    connected = connect(room.project, room.url)
    try:
        yield connected
    finally:
        connected.close()


def _free(project: Project, engine: Engine | None) -> int:
    """Free bytes on the disks of the project's state and of the engine, each counted once."""
    places = [project.state, *([Path(engine.data_root)] if engine else [])]
    devices = {nearest_existing(path).stat().st_dev: path for path in places}
    return sum(disk_space(path).free for path in devices.values())


def show_prune(steps: Sequence[RemovalStep], *, as_json: bool) -> None:
    """What can go."""
    total = sum(step.size for step in steps)
    if as_json:
        print_json({"bytes": total, "steps": [step.as_json() for step in steps]})
        return
    print_table(("what", "count", "frees", "which"), [step.row() for step in steps])
    say(f"frees at least {human_bytes(total)}" if steps else "there is nothing to remove")

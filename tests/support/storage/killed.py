"""Runs one move and kills itself with SIGKILL at a named moment of it.

    python -m tests.support.storage.killed FOLDER URL DISK MOMENT

MOMENT is what the move says when a phase begins, or "half copied". Used by the tests as a process
of its own: nothing of it is left to clean up after itself.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from slipway.core import Event, Project
from slipway.storage import DockerDaemon, Machine, MoveOptions, move_data, plan_move

HALF = "half copied"


def main() -> None:
    folder, url, disk, moment = sys.argv[1:]
    project = Project(Path(folder) / "checkout", Path(folder) / "checkout" / ".slipway")
    room = DockerDaemon.of(project, Machine(Path(folder)), url)

    def on_event(event: Event) -> None:
        begun = event.kind == "start" and event.step == moment
        half = moment == HALF and event.unit == "B" and event.current > 1_000_000
        if begun or half:
            os.kill(os.getpid(), signal.SIGKILL)

    with room.locked("storage.move"):
        options = MoveOptions(mode="copy", delete_old=moment == "deleting the old data")
        planned = plan_move(room, Path(disk), "auto", options, dry_run=False, say=lambda _: None)
        assert planned.journal is not None
        move_data(room, planned.journal, on_event)
    sys.exit("it was not killed")


if __name__ == "__main__":
    main()

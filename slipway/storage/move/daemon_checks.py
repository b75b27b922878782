"""Asking a daemon after a start whether it is where it should be, with all that it should have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.core import Project
from slipway.engine import Engine, connect, sdk_errors
from slipway.storage.docker import (
    IN_FILES,
    DockerInventory,
    current_root,
    lost_objects,
    run_trial_container,
    take_inventory,
)
from slipway.storage.errors import StorageError
from slipway.storage.machine import Machine
from slipway.storage.move.changes import DataRoot
from slipway.storage.move.journal import MoveJournal, journal_folder

_NO_PROJECT = Project(Path("/nonexistent"), Path("/nonexistent"))
"""A URL alone decides which daemon is meant."""


@contextmanager
def daemon_engine(journal: MoveJournal) -> Iterator[Engine]:
    """A connection to the journal's daemon, which must run."""
    connected = connect(_NO_PROJECT, journal.url)
    try:
        yield connected
    finally:
        connected.close()


def stop_containers(journal: MoveJournal) -> None:
    """Stop what ran when the move was planned; those that are gone are stopped enough."""
    if journal.before is None or not journal.before.running:
        return
    with daemon_engine(journal) as connected:
        for container in take_inventory(connected).running:
            with sdk_errors(connected, "stopping a container"):
                connected.client.api.stop(container)  # with the container's own patience


def start_containers(connected: Engine, before: DockerInventory) -> None:
    """Start again what ran before; `--rm` containers are gone for good."""
    running = set(take_inventory(connected).running)
    for container in before.running:
        if container not in running and container not in before.transient:
            with sdk_errors(connected, f"starting {before.containers[container]}"):
                connected.client.api.start(container)


def check_running(machine: Machine, journal: MoveJournal) -> None:
    """The daemon uses the new roots, has what went along, and runs a container."""
    _check(machine, journal, moved=True)


def check_restored(machine: Machine, journal: MoveJournal) -> None:
    """The daemon uses the old roots again, and has everything of before."""
    _check(machine, journal, moved=False)


def _check(machine: Machine, journal: MoveJournal, *, moved: bool) -> None:
    with daemon_engine(journal) as connected:
        for root in journal.roots:
            _check_root(journal, root, connected, moved=moved)
        before = journal.before
        if before is not None:
            now = take_inventory(connected, journal.folders_in_use(moved=moved))
            if now.driver != before.driver and before.driver in IN_FILES:
                raise StorageError(
                    f"the daemon uses the storage driver {now.driver} now, not {before.driver}"
                )
            lost = lost_objects(before, now) if journal.carries or not moved else ()
            if lost:
                raise StorageError(f"these are not there any more: {', '.join(lost)}")
        if moved:
            run_trial_container(connected, journal_folder(machine, journal.url))
        if before is not None and (journal.carries or not moved):
            start_containers(connected, before)


def _check_root(journal: MoveJournal, root: DataRoot, connected: Engine, *, moved: bool) -> None:
    wanted = root.called(root.new if moved else root.old)
    if root.name == "containerd":
        assert journal.containerd is not None
        used = current_root(journal.containerd)
    else:
        used = Path(connected.data_root)
    if used.resolve() != wanted.resolve():
        raise StorageError(f"the daemon uses {used}, not {wanted}")

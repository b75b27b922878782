"""Moving: look at everything, plan, do it; delete what is left over."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slipway.core import OnEvent, Project, SlipwayError, TreeSize, measure, remove_tree
from slipway.engine import start_daemon
from slipway.storage.disks import (
    WAIT_S,
    DataPlaces,
    Profile,
    check_disk_name,
    check_target_disk,
    choose_disk,
    inspect_disk,
    profile,
)
from slipway.storage.docker import (
    DockerInstallation,
    DockerInventory,
    daemon_at_rest,
    engine_of_installation,
    find_installation,
    take_inventory,
)
from slipway.storage.errors import StorageError
from slipway.storage.move import move_plan
from slipway.storage.move.changes import config_changes
from slipway.storage.move.daemon_checks import check_running
from slipway.storage.move.docker_move import DockerDaemon
from slipway.storage.move.journal import KeptFolder, MoveJournal, begin_journal, write_journal
from slipway.storage.move.transaction import Transaction

Say = Callable[[str], None]


def require_root() -> None:
    """Raise StorageError unless this is root: asked before anything else."""
    if os.geteuid() != 0:
        raise StorageError(
            "this needs root: it stops daemons and writes their data and configuration",
            cure="Run the same command with sudo.",
        )


@dataclass(frozen=True)
class PlannedMove:
    """A move that has not begun; `journal` is None where there is nothing to do.

    `folders`, with their modes, are missing on a disk where everything else is in place: instance
    store is empty after a stop of the instance.
    """

    journal: MoveJournal | None
    profile: Profile
    disk: Path | None
    folders: tuple[tuple[Path, int], ...] = ()

    def make_folders(self) -> None:
        """Make the missing folders."""
        for folder, mode in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)


def plan_move(
    room: DockerDaemon,
    disk: Path | None,
    profile_name: str,
    options: move_plan.MoveOptions,
    *,
    dry_run: bool,
    say: Say,
) -> PlannedMove:
    """Look at everything, change nothing. Raises SlipwayError for all that speaks against it."""
    last = room.journal()
    if last is not None and not last.over:
        raise _unfinished(last)
    chosen = profile(profile_name, room.machine)
    if room.url == "embedded" and not dry_run:
        start_daemon(room.project)
    installation = find_installation(room.project, room.url, room.machine)
    move_plan.check_config(installation)
    before, containerd_store = move_inventory(installation, room.project)
    mode = move_plan.mode_of(options, before)
    move_plan.check_driver(before, mode)
    sizes = _sizes(installation)
    needed = sum(size.bytes for size in sizes.values()) if mode == "copy" else 0
    if disk is None:
        disk = choose_disk(chosen, room.machine, installation.data_root, needed, wait=not dry_run)
    if disk is None:
        return PlannedMove(None, chosen, None)
    check_disk_name(disk, in_files=not installation.embedded)
    looked = inspect_disk(
        disk,
        chosen,
        room.machine,
        wait_s=0.0 if dry_run else WAIT_S,
        on_wait=lambda place: say(f"waiting for {place} to be mounted"),
    )
    also = move_plan.moves_containerd(installation, containerd_store=containerd_store)
    change = config_changes(
        installation, DataPlaces(looked.disk), looked, chosen, room.machine, containerd=also
    )
    journal = move_plan.make_move_journal(
        installation,
        looked,
        change,
        move_plan.DataToMove(before, sizes, also, last.kept if last else ()),
        dataclasses.replace(options, mode=mode),
    )
    if journal is not None:
        size = TreeSize(needed, sum(root.size.entries for root in journal.roots if root.copy))
        check_target_disk(looked, [root.old for root in journal.roots], size)
        if before and before.running and not options.stop:
            raise StorageError(
                f"containers are running: {before.names(before.running)}",
                cure="Stop them, or have them stopped and started again with --stop.",
            )
    missing = tuple(folder for folder in change.folders if not folder[0].is_dir())
    return PlannedMove(journal, chosen, looked.disk, missing)


def _unfinished(journal: MoveJournal) -> SlipwayError:
    return StorageError(
        f"a {journal.kind} was cut off while {journal.phase}",
        cure="`./inv storage.move --resume` goes on with it, `./inv storage.restore` goes back.",
    )


def move_inventory(
    installation: DockerInstallation, project: Project
) -> tuple[DockerInventory | None, bool]:
    """What the daemon has, and whether its images are in containerd; None where it cannot tell."""
    if not installation.running:
        return daemon_at_rest(installation.folders), False
    connected = engine_of_installation(installation, project)
    try:
        return take_inventory(connected, installation.folders), connected.containerd_store
    finally:
        connected.close()


def _sizes(installation: DockerInstallation) -> dict[Path, TreeSize]:
    sizes = {installation.at_rest: measure(installation.data_root)}
    if installation.containerd:
        sizes[installation.containerd.root] = measure(installation.containerd.root)
    return sizes


def move_data(room: DockerDaemon, journal: MoveJournal, on_event: OnEvent) -> MoveJournal:
    """Do a planned move. The caller holds the lock."""
    begin_journal(room.machine, journal)
    return Transaction(room.machine, journal, on_event).run()


def delete_kept(room: DockerDaemon, say: Say) -> tuple[KeptFolder, ...]:
    """Delete what earlier moves left behind, once the daemon is seen to work without it.

    Returns what was deleted. Raises StorageError for what exists nowhere else. The caller holds
    the lock.
    """
    journal = room.journal()
    if journal is None or not journal.over or not journal.kept:
        return ()
    installation = find_installation(room.project, room.url, room.machine)
    for kept in journal.kept:
        if kept.holds:
            raise StorageError(
                f"only there: {kept.holds}",
                where=str(kept.path),
                cure="Have Docker use that folder again and take it along with --mode copy "
                "(after a move to a fresh place: `./inv storage.restore` first), or remove the "
                "folder by hand.",
            )
        if installation.data_root.is_relative_to(kept.path):
            raise StorageError("this is in use", where=str(kept.path))
    if journal.phase == "done":
        # What was there at the time of the move may have been removed since, on purpose.
        check_running(room.machine, dataclasses.replace(journal, before=None))
    for kept in journal.kept:
        say(f"deleting {kept.path}")
        remove_tree(kept.path)
    write_journal(room.machine, dataclasses.replace(journal, kept=()))
    return journal.kept

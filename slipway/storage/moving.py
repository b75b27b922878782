"""Moving: look at everything, plan, do it; delete what is left over."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slipway.engine import embedded
from slipway.errors import SlipwayError
from slipway.files import exclusive
from slipway.paths import Project
from slipway.report.events import OnEvent
from slipway.storage import ledger, plan
from slipway.storage.changes import changes
from slipway.storage.copying.trees import Size, measure, remove_tree
from slipway.storage.daemons import snapshot, subject
from slipway.storage.daemons.checks import check_running
from slipway.storage.daemons.snapshot import Snapshot
from slipway.storage.daemons.subject import Subject
from slipway.storage.disks import target
from slipway.storage.disks.profiles import Places, Profile, profile
from slipway.storage.errors import StorageError
from slipway.storage.journal import Journal, Kept
from slipway.storage.machine import Machine
from slipway.storage.transaction import Transaction

Say = Callable[[str], None]


def need_root() -> None:
    """Raise StorageError unless this is root: asked before anything else."""
    if os.geteuid() != 0:
        raise StorageError(
            "this needs root: it stops daemons and writes their data and configuration",
            cure="Run the same command with sudo.",
        )


@dataclass(frozen=True)
class Room:
    """One daemon of one machine, as a checkout sees it."""

    project: Project
    machine: Machine
    url: str  # "embedded" for the embedded engine

    @classmethod
    def of(cls, project: Project, machine: Machine, engine: str) -> Room:
        """The daemon that the settings name.

        With "auto", a system Docker whose move was cut off is the one meant, though it is down.
        """
        url = subject.choose(engine, machine)
        if engine == "auto" and url == "embedded":
            last = ledger.read(machine, machine.docker_url)
            if last is not None and not last.over:
                url = machine.docker_url
        return cls(project, machine, url)

    @property
    def journal_url(self) -> str:
        """The URL that the daemon's journal goes by."""
        return embedded.status(self.project).url if self.url == "embedded" else self.url

    def has_kept(self) -> bool:
        """Whether earlier moves left data behind."""
        journal = self.journal()
        return journal is not None and bool(journal.kept)

    def journal(self) -> Journal | None:
        """The daemon's last move."""
        return ledger.read(self.machine, self.journal_url)

    @contextmanager
    def locked(self, doing: str) -> Iterator[None]:
        """Nobody else moves this daemon's data, and no task of this checkout uses it."""
        with (
            exclusive(ledger.lock_path(self.machine, self.journal_url), doing),
            exclusive(self.project.state / "lock", doing),
        ):
            yield


@dataclass(frozen=True)
class Planned:
    """A move that has not begun; `journal` is None where there is nothing to do.

    `folders`, with their modes, are missing on a disk where everything else is in place: instance
    store is empty after a stop of the instance.
    """

    journal: Journal | None
    profile: Profile
    disk: Path | None
    folders: tuple[tuple[Path, int], ...] = ()

    def make_folders(self) -> None:
        """Make the missing folders."""
        for folder, mode in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)


def plan_move(
    room: Room,
    disk: Path | None,
    profile_name: str,
    options: plan.Options,
    *,
    dry_run: bool,
    say: Say,
) -> Planned:
    """Look at everything, change nothing. Raises SlipwayError for all that speaks against it."""
    last = room.journal()
    if last is not None and not last.over:
        raise _unfinished(last)
    chosen = profile(profile_name, room.machine)
    if room.url == "embedded" and not dry_run:
        embedded.start(room.project)
    found = subject.find(room.project, room.url, room.machine)
    plan.check_config(found)
    before, containerd_store = inventory(found, room.project)
    mode = plan.mode_of(options, before)
    plan.check_driver(before, mode)
    sizes = _sizes(found)
    needed = sum(size.bytes for size in sizes.values()) if mode == "copy" else 0
    if disk is None:
        disk = target.choose(chosen, room.machine, found.data_root, needed, wait=not dry_run)
    if disk is None:
        return Planned(None, chosen, None)
    looked = target.look(
        disk,
        chosen,
        room.machine,
        wait_s=0.0 if dry_run else target.WAIT_S,
        on_wait=lambda place: say(f"waiting for {place} to be mounted"),
    )
    kept = last.kept if last else ()
    also = plan.moves_containerd(found, containerd_store=containerd_store)
    change = changes(found, Places(looked.disk), looked, chosen, room.machine, containerd=also)
    journal = plan.make(
        found,
        looked,
        change,
        before,
        sizes,
        dataclasses.replace(options, mode=mode),
        containerd=also,
        kept=kept,
    )
    if journal is not None:
        size = Size(needed, sum(root.size.entries for root in journal.roots if root.copy))
        target.check(looked, [root.old for root in journal.roots], size)
        if before and before.running and not options.stop:
            raise StorageError(
                f"containers are running: {before.names(before.running)}",
                cure="Stop them, or have them stopped and started again with --stop.",
            )
    missing = tuple(folder for folder in change.folders if not folder[0].is_dir())
    return Planned(journal, chosen, looked.disk, missing)


def _unfinished(journal: Journal) -> SlipwayError:
    return StorageError(
        f"a {journal.kind} was cut off while {journal.phase}",
        cure="`./inv storage.move --resume` goes on with it, `./inv storage.restore` goes back.",
    )


def inventory(found: Subject, project: Project) -> tuple[Snapshot | None, bool]:
    """What the daemon has, and whether its images are in containerd; None where it cannot tell."""
    if not found.running:
        return snapshot.at_rest(found.data_root), False
    connected = subject.engine_of(found, project)
    try:
        return snapshot.take(connected), connected.containerd_store
    finally:
        connected.close()


def _sizes(found: Subject) -> dict[Path, Size]:
    sizes = {found.at_rest: measure(found.data_root)}
    if found.containerd:
        sizes[found.containerd.root] = measure(found.containerd.root)
    return sizes


def apply(room: Room, journal: Journal, on_event: OnEvent) -> Journal:
    """Do a planned move. The caller holds the lock."""
    ledger.begin(room.machine, journal)
    return Transaction(room.machine, journal, on_event).run()


def delete_old(room: Room, say: Say) -> tuple[Kept, ...]:
    """Delete what earlier moves left behind, once the daemon is seen to work without it.

    Returns what was deleted. Raises StorageError for what exists nowhere else. The caller holds
    the lock.
    """
    journal = room.journal()
    if journal is None or not journal.over or not journal.kept:
        return ()
    found = subject.find(room.project, room.url, room.machine)
    for kept in journal.kept:
        if kept.holds:
            raise StorageError(
                f"{kept.holds} are only there: the move to a fresh place left them behind",
                where=str(kept.path),
                cure="Go back with `./inv storage.restore` and take them along with --mode copy, "
                "or remove the folder by hand.",
            )
        if found.data_root.is_relative_to(kept.path):
            raise StorageError("this is in use", where=str(kept.path))
    if journal.phase == "done":
        # What was there at the time of the move may have been removed since, on purpose.
        check_running(room.machine, dataclasses.replace(journal, before=None))
    for kept in journal.kept:
        say(f"deleting {kept.path}")
        remove_tree(kept.path)
    ledger.write(room.machine, dataclasses.replace(journal, kept=()))
    return journal.kept

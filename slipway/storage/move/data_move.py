"""Moving, going on with a move that was cut off, going back, deleting what is left over."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

from slipway.core import (
    OnEvent,
    TreeSize,
    UsageError,
    disk_space,
    measure,
    mount_of,
    nearest_existing,
    read_mount_table,
    remove_tree,
)
from slipway.storage.docker import find_installation, objects_since
from slipway.storage.errors import StorageError
from slipway.storage.move.daemon_checks import check_daemon
from slipway.storage.move.journal import (
    BEFORE_START,
    DockerDaemon,
    KeptFolder,
    MoveJournal,
    begin_journal,
    boot_id,
    write_journal,
)
from slipway.storage.move.move_plan import Say, check_stopped, move_inventory
from slipway.storage.move.transaction import Transaction
from slipway.storage.target_disk import TargetDisk, check_target_disk


def require_root() -> None:
    """Raise StorageError unless this is root: asked before anything else."""
    if os.geteuid() != 0:
        raise StorageError(
            "this needs root: it stops daemons and writes their data and configuration",
            cure="Run the same command with sudo.",
        )


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
    separate = installation.containerd
    used = (installation.data_root, *((separate.root,) if separate else ()))
    for kept in journal.kept:
        if kept.holds:
            raise StorageError(
                f"only there: {kept.holds}",
                where=str(kept.path),
                cure="Have Docker use that folder again and take it along with --mode copy "
                "(after a move to a fresh place: `./inv storage.restore` first), or remove the "
                "folder by hand.",
            )
        if any(root.is_relative_to(kept.path) for root in used):
            raise StorageError("this is in use", where=str(kept.path))
    if journal.phase == "done":
        # What was there at the time of the move may have been removed since, on purpose.
        check_daemon(room.machine, dataclasses.replace(journal, before=None), moved=True)
    for kept in journal.kept:
        say(f"deleting {kept.path}")
        remove_tree(kept.path)
    write_journal(room.machine, dataclasses.replace(journal, kept=()))
    return journal.kept


def resume_move(room: DockerDaemon, on_event: OnEvent) -> MoveJournal:
    """Go on with what was cut off. The caller holds the lock."""
    journal = room.journal()
    if journal is None or journal.over:
        raise UsageError("there is nothing to go on with", cure="`./inv storage.status`")
    if journal.phase == "undoing":
        return Transaction(room.machine, journal, on_event).undo(keep_new=journal.keep_new)
    if journal.phase in BEFORE_START and _daemon_ran(journal):
        # The old data may have changed since it was copied: what is not in use yet is copied again.
        for root in journal.roots:
            edits = [edit for edit in journal.edits if edit.path == root.file]
            in_use = all(edit.current() == edit.after for edit in edits)
            for path in (root.partial, *(() if in_use else (root.new,))):
                if path in journal.ours:
                    remove_tree(path)
        journal = journal.at("stopping")
        write_journal(room.machine, journal)
    return Transaction(room.machine, journal, on_event).run()


def _daemon_ran(journal: MoveJournal) -> bool:
    """Whether a daemon may have written to its data since the journal was written."""
    return journal.boot != boot_id() or journal.service.running()


def restore_data(
    room: DockerDaemon, on_event: OnEvent, *, stop: bool, agree: Callable[[str], bool]
) -> MoveJournal:
    """Back to before the last move. The caller holds the lock.

    `agree` is asked where images or volumes were made since that will not be seen afterwards.
    """
    journal = room.journal()
    if journal is None or (journal.phase == "done" and journal.kind == "restore"):
        raise UsageError("there is no move to go back from", cure="`./inv storage.status`")
    if journal.phase == "undone":
        raise UsageError("the last move was undone already", cure="`./inv storage.status`")
    if journal.phase == "deleting":
        journal = Transaction(room.machine, journal, on_event).run()
    if not journal.over:
        return Transaction(room.machine, journal, on_event).undo(keep_new=_worked_on(journal))
    back = _reversed(room, journal, stop=stop, agree=agree)
    begin_journal(room.machine, back)
    return Transaction(room.machine, back, on_event).run()


def _worked_on(journal: MoveJournal) -> bool:
    """Whether somebody may have used the new place: then it is not removed."""
    if journal.phase == "undoing":
        return journal.keep_new
    if journal.phase in BEFORE_START:
        return journal.phase == "switching" and _daemon_ran(journal)
    return True


def _reversed(
    room: DockerDaemon, journal: MoveJournal, *, stop: bool, agree: Callable[[str], bool]
) -> MoveJournal:
    """A move back: data that is still at the old place is used as it is, other data is copied."""
    installation = find_installation(room.project, room.url, room.machine)
    now, _ = move_inventory(installation, room.project)
    if journal.restarts:
        check_stopped(now, stop=stop)
    there = [root.old.exists() for root in journal.roots]
    before, left_behind = now, ""
    if all(there) and journal.roots and not (journal.before and now):
        left_behind = "what was made since the move"
    if all(there) and journal.before and now:
        since = objects_since(journal.before, now)
        if since and not agree(f"made since the move, and not there after it: {', '.join(since)}"):
            raise StorageError("nothing was changed")
        # What a move to a fresh place stopped did not run since: there it is not.
        stopped = () if journal.carries else journal.before.running
        running = tuple(c for c in (*now.running, *stopped) if c in journal.before.containers)
        before = dataclasses.replace(journal.before, running=running, transient=now.transient)
    roots = tuple(
        dataclasses.replace(
            root,
            old=root.new,
            new=root.old,
            size=measure(root.new),
            copy=not all(there),
            adopt=all(there),
            known=root.new,
        )
        for root in journal.roots
    )
    disk, device = journal.disk, journal.device
    if roots:
        home = mount_of(nearest_existing(roots[0].new), read_mount_table())
        disk, device = home.target, home.device
        if not all(there):
            size = TreeSize(sum(r.size.bytes for r in roots), sum(r.size.entries for r in roots))
            space = disk_space(roots[0].new)
            check_target_disk(TargetDisk(roots[0].new, home, space), [roots[0].old], size)
    return dataclasses.replace(
        journal,
        kind="restore",
        phase="planned",
        was_running=installation.running,
        disk=disk,
        device=device,
        roots=roots,
        edits=tuple(edit.back() for edit in reversed(journal.edits)),
        folders=(),
        scratch=(),
        environment={},
        before=before,
        left_behind=left_behind,
        notes=(),
        delete_old=False,
        made=(),
        clear=journal.made,
        ours=(),
    )

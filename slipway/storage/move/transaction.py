"""Doing what a journal says: phase by phase forward, and all the way back if one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from slipway.core import (
    Event,
    OnEvent,
    SlipwayError,
    mount_of,
    mounts_under,
    nearest_existing,
    read_mount_table,
    remove_tree,
    sync_folder,
)
from slipway.storage.copy import compare_trees, copy_tree
from slipway.storage.disks import try_disk
from slipway.storage.docker import repoint
from slipway.storage.errors import MoveFailedError, StorageError
from slipway.storage.machine import Machine
from slipway.storage.move.daemon_checks import check_running, stop_containers
from slipway.storage.move.journal import (
    FORWARD,
    DataRoot,
    KeptFolder,
    MoveJournal,
    Phase,
    finish_journal,
    write_journal,
)
from slipway.storage.move.undo import remove_empty, undo_move

_SAYS: Mapping[Phase, str] = {
    "planned": "trying the disk",
    "stopping": "stopping the daemons",
    "copying": "copying",
    "verifying": "comparing the copy",
    "placing": "giving the copy its name",
    "switching": "changing the configuration",
    "starting": "starting the daemons",
    "checking": "checking what is there, and running a container",
    "deleting": "deleting the old data",
    "done": "done",
}

_STARTED = "somebody started the daemon during the copy"

_TELL_BYTES = 500_000  # folders of small files come by the thousand


class Transaction:
    """One move on its way. The journal is on the disk before each phase begins."""

    def __init__(self, machine: Machine, journal: MoveJournal, on_event: OnEvent) -> None:
        self.machine = machine
        self.journal = journal
        self.on_event = on_event
        self.service = journal.service
        self._do: Mapping[Phase, Callable[[], None]] = {
            "planned": self._try_disk,
            "stopping": self._stop,
            "copying": self._copy,
            "verifying": self._verify,
            "placing": self._place,
            "switching": self._switch,
            "starting": self._start,
            "checking": self._check,
            "deleting": self._delete,
            "done": lambda: remove_empty(self.journal.clear),
        }

    def run(self) -> MoveJournal:
        """Go on from the journal's phase to the end; returns the journal as it is then.

        Raises MoveFailedError when a phase failed and everything is as before,
        RollbackFailedError when the way back failed too, KeyboardInterrupt after a Ctrl-C, with
        everything as before.
        """
        self._tell("start")
        for phase in FORWARD[FORWARD.index(self.journal.phase) :]:
            try:
                self._enter(phase)
                self._do[phase]()
            except (SlipwayError, OSError) as error:
                if phase == "deleting":
                    raise  # the move itself is done and checked
                self._back(phase)
                raise MoveFailedError(
                    f"it failed while {_SAYS[phase]}, and everything is as before: {error}",
                ) from error
            except KeyboardInterrupt:
                if phase != "deleting":
                    self._back(phase)
                raise
        self._tell("done")
        return self.journal

    def _back(self, phase: Phase) -> None:
        self._tell("failed", _SAYS[phase])
        if phase == "planned":  # nothing was touched
            finish_journal(self.machine, self.journal.at("undone"))
            return
        self.journal = undo_move(self.machine, self.journal, self.on_event, keep_new=False)

    def _enter(self, phase: Phase) -> None:
        if phase == "done":
            self.journal = replace(self.journal, kept=self._kept())
        self.journal = self.journal.at(phase)
        if phase == "done":
            finish_journal(self.machine, self.journal)
        else:
            write_journal(self.machine, self.journal)
        if phase != "done":
            self._tell("start", _SAYS[phase])

    def _kept(self) -> tuple[KeptFolder, ...]:
        """What is left behind: by this move unless it deleted it, and by those before."""
        in_use = {root.new for root in self.journal.roots}
        left = [kept for kept in self.journal.kept if kept.path not in in_use]
        if not self.journal.delete_old:
            only_there = self.journal.left_behind
            left += [
                KeptFolder(root.old, only_there) for root in self.journal.roots if root.old.exists()
            ]
        return tuple(left)

    def _tell(self, kind: Literal["start", "done", "failed"], step: str = "") -> None:
        self.on_event(Event(kind, f"storage {self.journal.kind}", step))

    def _bytes(self, step: str, total: int) -> Callable[[int], None]:
        told = 0

        def on_bytes(current: int) -> None:
            nonlocal told
            if current - told < max(total // 500, _TELL_BYTES) and current < total:
                return
            told = current
            self.on_event(
                Event(
                    "progress",
                    f"storage {self.journal.kind}",
                    step,
                    current=current,
                    total=max(total, current),
                    unit="B",
                )
            )

        return on_bytes

    @property
    def _copied(self) -> tuple[DataRoot, ...]:
        return tuple(root for root in self.journal.roots if root.copy)

    def _still_mounted(self) -> None:
        mount = mount_of(self.journal.disk, read_mount_table())
        if mount.target != self.journal.disk or mount.device != self.journal.device:
            raise StorageError("the target is not mounted any more", where=str(self.journal.disk))

    def _try_disk(self) -> None:
        self._still_mounted()
        for root in self.journal.roots:
            if not root.adopt:
                try_disk(nearest_existing(root.new.parent))

    def _stop(self) -> None:
        if not self.journal.restarts:
            return
        if self.journal.was_running and self.journal.before and self.service.running():
            stop_containers(self.journal)
        self.service.stop()
        for root in self.journal.roots:
            if inside := mounts_under(read_mount_table(), root.old):
                raise StorageError(
                    f"{len(inside)} mounts are left in the data, so something still uses it",
                    where=str(inside[0].target),
                    cure=f"`findmnt` and `fuser -vm {inside[0].target}` tell what.",
                )

    def _copy(self) -> None:
        for root in self._copied:
            if root.new in self.journal.ours and root.new.exists():
                continue  # placed already, by a run that was killed later
            self._make_folder(root.new.parent, 0o755)
            resume = root.partial in self.journal.ours and root.partial.exists()
            self._note_ours(root.partial)
            on_bytes = self._bytes(f"copy {root.old}", root.size.bytes)
            with self._daemon_stays_stopped():
                copy_tree(root.old, root.partial, on_bytes, resume=resume)

    @contextmanager
    def _daemon_stays_stopped(self) -> Iterator[None]:
        """A daemon that runs makes and removes files, so it is named first, whatever else fails."""
        try:
            yield
        except (StorageError, OSError) as error:
            if self._daemon_was_started():
                raise StorageError(f"{_STARTED}: {error}") from error
            raise
        self._nobody_started_it()

    def _daemon_was_started(self) -> bool:
        return self.journal.restarts and self.service.running()

    def _nobody_started_it(self) -> None:
        if self._daemon_was_started():
            raise StorageError(_STARTED)

    def _verify(self) -> None:
        for root in self._copied:
            if root.partial.exists():
                with self._daemon_stays_stopped():
                    compare_trees(
                        root.old, root.partial, self._bytes(f"compare {root.new}", root.size.bytes)
                    )

    def _place(self) -> None:
        self._still_mounted()
        self._nobody_started_it()
        for root in self._copied:
            if root.partial.exists():
                repoint(root.partial, root.known, root.called(root.new))
                self._note_ours(root.new)
                root.partial.rename(root.new)  # over an empty folder, or nothing
                sync_folder(root.new.parent)

    def _switch(self) -> None:
        for root in self.journal.roots:
            self._make_folder(root.new.parent, 0o755)
        for folder, mode in self.journal.folders:
            self._make_folder(folder, mode)
        for edit in self.journal.edits:
            self._make_folder(edit.path.parent, 0o755)
            edit.apply()

    def _make_folder(self, folder: Path, mode: int) -> None:
        """Make it with what is above it, and note each in the journal first, for the way back."""
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        if missing:
            known = (*self.journal.made, *reversed(missing))
            self.journal = replace(self.journal, made=known)
            write_journal(self.machine, self.journal)
            folder.mkdir(parents=True)
        if mode != 0o755:
            folder.chmod(mode)

    def _note_ours(self, tree: Path) -> None:
        """Note in the journal a tree that is about to be made here: it may be removed again."""
        if tree in self.journal.ours:
            return
        if tree.exists() and any(tree.iterdir()):
            raise StorageError("somebody made this in the meantime", where=str(tree))
        self.journal = replace(self.journal, ours=(*self.journal.ours, tree))
        write_journal(self.machine, self.journal)

    def _start(self) -> None:
        for root in self.journal.roots:
            if not root.copy and not root.adopt:
                self._note_ours(root.new)
        if self.journal.restarts:
            self.service.start(self.journal.environment)

    def _check(self) -> None:
        if self.journal.restarts:
            check_running(self.machine, self.journal)

    def _delete(self) -> None:
        if self.journal.delete_old:
            for root in self.journal.roots:
                remove_tree(root.old)

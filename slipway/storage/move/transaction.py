"""Doing what a journal says: phase by phase forward, and all the way back if one fails."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
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
from slipway.storage.docker import repoint
from slipway.storage.errors import MoveFailedError, RollbackFailedError, StorageError
from slipway.storage.machine import Machine
from slipway.storage.move.changes import DataRoot
from slipway.storage.move.daemon_checks import check_daemon, stop_containers
from slipway.storage.move.journal import (
    FORWARD,
    KeptFolder,
    MoveJournal,
    Phase,
    finish_journal,
    journal_folder,
    write_journal,
)
from slipway.storage.target_disk import try_disk
from slipway.storage.tree_copy import compare_trees, copy_tree

_STARTED = "somebody started the daemon during the copy"


class Transaction:
    """One move on its way. The journal is on the disk before each phase begins."""

    def __init__(self, machine: Machine, journal: MoveJournal, on_event: OnEvent) -> None:
        self.machine = machine
        self.journal = journal
        self.on_event = on_event
        self.service = journal.service
        self._phases: Mapping[Phase, tuple[str, Callable[[], None]]] = {
            "planned": ("trying the disk", self._try_disk),
            "stopping": ("stopping the daemons", self._stop),
            "copying": ("copying", self._copy),
            "verifying": ("comparing the copy", self._verify),
            "placing": ("giving the copy its name", self._place),
            "switching": ("changing the configuration", self._switch),
            "starting": ("starting the daemons", self._start),
            "checking": ("checking what is there, and running a container", self._check),
            "deleting": ("deleting the old data", self._delete),
            "done": ("done", lambda: _remove_empty(self.journal.clear)),
        }

    def run(self) -> MoveJournal:
        """Go on from the journal's phase to the end; returns the journal as it is then.

        Raises MoveFailedError when a phase failed and everything is as before,
        RollbackFailedError when the way back failed too, KeyboardInterrupt after a Ctrl-C, with
        everything as before.
        """
        self._tell("start")
        for phase in FORWARD[FORWARD.index(self.journal.phase) :]:
            doing, action = self._phases[phase]
            try:
                self._enter(phase, doing)
                action()
            except (SlipwayError, OSError) as error:
                if phase == "deleting":
                    raise  # the move itself is done and checked
                self._back(phase, doing)
                raise MoveFailedError(
                    f"it failed while {doing}, and everything is as before: {error}",
                ) from error
            except KeyboardInterrupt:
                if phase != "deleting":
                    self._back(phase, doing)
                raise
        self._tell("done")
        return self.journal

    def undo(self, *, keep_new: bool) -> MoveJournal:
        """Go back to the exact state of before; returns the journal as it is then.

        `keep_new` leaves a whole copy where it is: a daemon may have worked on it. Each part is
        tried whatever became of the others: a disk that vanished must not keep the daemon from
        running on the old one. Raises RollbackFailedError when the daemon is not as it was before;
        the journal stays, so that `inv storage.restore` tries again.
        """
        self._note("undoing", keep_new=keep_new)
        self._tell("start", "going back")
        failures: list[str] = []

        def attempt(doing: str, action: Callable[[], None]) -> bool:
            try:
                action()
            except (SlipwayError, OSError) as error:
                failures.append(f"{doing}: {error}")
                return False
            return True

        if self.journal.restarts:
            attempt("stopping the daemons", self.service.stop)
        whole = True
        for edit in reversed(self.journal.edits):
            whole = attempt(f"restoring {edit.path}", edit.revert) and whole
        if whole and self.journal.restarts and self.journal.was_running:
            check = partial(check_daemon, self.machine, self.journal, moved=False)
            whole = attempt("starting the daemons", partial(self.service.start, {})) and attempt(
                "checking what is there", check
            )
        if not whole:
            raise RollbackFailedError(
                "the move failed, and so did the way back: " + "; ".join(failures),
                where=str(journal_folder(self.machine, self.journal.url) / "journal.json"),
                cure="No data was deleted: it is in "
                + ", ".join(str(root.old) for root in self.journal.roots)
                + ". Correct what is said above, then run `./inv storage.restore`.",
            )
        kept = (*self.journal.kept, *self._clean_up(keep_new=keep_new))
        return finish_journal(self.machine, self.journal.at("undone", kept=kept))

    def _clean_up(self, *, keep_new: bool) -> list[KeptFolder]:
        """Remove what the move made; a target that is gone keeps what it has."""
        left = []
        news = {root.new for root in self.journal.roots}
        for path in self.journal.ours:
            if keep_new and path in news:
                left.append(KeptFolder(path, "what the daemon made while it used this folder"))
                continue
            try:
                remove_tree(path)
            except SlipwayError:
                left.append(KeptFolder(path))
        if not keep_new:
            for path in self.journal.scratch:
                shutil.rmtree(path, ignore_errors=True)
        _remove_empty(self.journal.made)
        return left

    def _back(self, phase: Phase, doing: str) -> None:
        self._tell("failed", doing)
        if phase == "planned":  # nothing was touched
            finish_journal(self.machine, self.journal.at("undone"))
        else:
            self.undo(keep_new=False)

    def _enter(self, phase: Phase, doing: str) -> None:
        if phase == "done":
            self.journal = self.journal.at(phase, kept=self._kept())
            finish_journal(self.machine, self.journal)
        else:
            self._note(phase)
            self._tell("start", doing)

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
        """Progress in steps of a five-hundredth: folders of small files come by the thousand."""
        task, told = f"storage {self.journal.kind}", 0

        def on_bytes(current: int) -> None:
            nonlocal told
            if current - told >= total // 500 or current >= total:
                told, of = current, max(total, current)
                self.on_event(Event("progress", task, step, current=current, total=of, unit="B"))

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
        except (SlipwayError, OSError) as error:
            if self._daemon_was_started():
                raise StorageError(f"{_STARTED}: {error}") from error
            raise
        self._nobody_started_it()

    def _nobody_started_it(self) -> None:
        if self._daemon_was_started():
            raise StorageError(_STARTED)

    def _daemon_was_started(self) -> bool:
        return self.journal.restarts and self.service.running()

    def _verify(self) -> None:
        for root in self._copied:
            if root.partial.exists():
                on_bytes = self._bytes(f"compare {root.new}", root.size.bytes)
                with self._daemon_stays_stopped():
                    compare_trees(root.old, root.partial, on_bytes)

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

    def _note(self, phase: Phase | None = None, **changes: object) -> None:
        """Write the journal with another phase, or with these changes."""
        self.journal = self.journal.at(phase or self.journal.phase, **changes)
        write_journal(self.machine, self.journal)

    def _make_folder(self, folder: Path, mode: int) -> None:
        """Make it with what is above it, and note each in the journal first, for the way back."""
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        if missing:
            self._note(made=(*self.journal.made, *reversed(missing)))
            folder.mkdir(parents=True)
        if mode != 0o755:
            folder.chmod(mode)

    def _note_ours(self, tree: Path) -> None:
        """Note in the journal a tree that is about to be made here: it may be removed again."""
        if tree in self.journal.ours:
            return
        if tree.exists() and any(tree.iterdir()):
            raise StorageError("somebody made this in the meantime", where=str(tree))
        self._note(ours=(*self.journal.ours, tree))

    def _start(self) -> None:
        for root in self.journal.roots:
            if not root.copy and not root.adopt:
                self._note_ours(root.new)
        if self.journal.restarts:
            self.service.start(self.journal.environment)

    def _check(self) -> None:
        if self.journal.restarts:
            check_daemon(self.machine, self.journal, moved=True)

    def _delete(self) -> None:
        if self.journal.delete_old:
            for root in self.journal.roots:
                remove_tree(root.old)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the last one first, but none that holds something or whose disk is gone."""
    for path in reversed(folders):
        with contextlib.suppress(OSError):
            path.rmdir()

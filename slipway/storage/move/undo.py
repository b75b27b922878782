"""The way back of a move that failed or was cut off: the exact state of before.

Each part is tried whatever became of the others: a disk that vanished must not keep the daemon
from running on the old one.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from slipway.core import Event, OnEvent, SlipwayError, remove_tree
from slipway.storage.errors import RollbackFailedError
from slipway.storage.machine import Machine
from slipway.storage.move.daemon_checks import check_restored
from slipway.storage.move.journal import (
    KeptFolder,
    MoveJournal,
    finish_journal,
    journal_folder,
    write_journal,
)


def undo_move(
    machine: Machine, journal: MoveJournal, on_event: OnEvent, *, keep_new: bool
) -> MoveJournal:
    """Go back; returns the journal as it is then.

    `keep_new` leaves a whole copy where it is: a daemon may have worked on it. Raises
    RollbackFailedError when the daemon is not as it was before; the journal stays, so that
    `inv storage.restore` tries again.
    """
    journal = journal.at("undoing", keep_new=keep_new)
    write_journal(machine, journal)
    on_event(Event("start", f"storage {journal.kind}", "going back"))
    failures: list[str] = []

    def attempt(doing: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except (SlipwayError, OSError) as error:
            failures.append(f"{doing}: {error}")
            return False
        return True

    if journal.restarts:
        attempt("stopping the daemons", journal.service.stop)
    whole = True
    for edit in reversed(journal.edits):
        whole = attempt(f"restoring {edit.path}", edit.revert) and whole
    if whole and journal.restarts and journal.was_running:
        whole = attempt("starting the daemons", lambda: journal.service.start({})) and attempt(
            "checking what is there", lambda: check_restored(machine, journal)
        )
    if not whole:
        raise RollbackFailedError(
            "the move failed, and so did the way back: " + "; ".join(failures),
            where=str(journal_folder(machine, journal.url) / "journal.json"),
            cure="No data was deleted: it is in "
            + ", ".join(str(root.old) for root in journal.roots)
            + ". Correct what is said above, then run `./inv storage.restore`.",
        )
    left = _clean_up(journal, keep_new=keep_new)
    return finish_journal(machine, journal.at("undone", kept=(*journal.kept, *left)))


def _clean_up(journal: MoveJournal, *, keep_new: bool) -> tuple[KeptFolder, ...]:
    """Remove what the move made; a target that is gone keeps what it has."""
    left = []
    news = {root.new for root in journal.roots}
    for path in journal.ours:
        if keep_new and path in news:
            left.append(KeptFolder(path, "what the daemon made while it used this folder"))
            continue
        try:
            remove_tree(path)
        except SlipwayError:
            left.append(KeptFolder(path))
    if not keep_new:
        for path in journal.scratch:
            shutil.rmtree(path, ignore_errors=True)
    remove_empty(journal.made)
    return tuple(left)


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the last one first, but none that holds something or whose disk is gone."""
    for path in reversed(folders):
        with contextlib.suppress(OSError):
            path.rmdir()

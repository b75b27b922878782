"""What the storage tasks print, and the questions that they ask."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from slipway.core import (
    Event,
    OnEvent,
    Project,
    Reporter,
    UsageError,
    disk_space,
    human_bytes,
    human_seconds,
    print_json,
    print_table,
    redact,
    say,
)
from slipway.storage.move import DataRoot, KeptFolder, MoveJournal, PlannedMove
from slipway.storage.storage_status import StorageStatus, status_notes

COPY_RATE = 125_000_000
"""Bytes a second that time estimates assume: the baseline of an EBS gp3 volume."""
FILE_RATE = 4000
"""Files a second that they assume, for trees of small files."""
_RESTART_S = 10.0


def show_status(status: StorageStatus, *, as_json: bool) -> None:
    """Tables, or JSON."""
    if as_json:
        print_json(status.as_json())
        return
    headers = ("what", "where", "disk", "used", "free", "better place")
    print_table(headers, [location.row() for location in status.places])
    if status.candidates:
        rows = [
            (str(rank), str(c.path), f"{c.mount.source} {c.mount.fstype}", c.reason)
            for rank, c in enumerate(status.candidates, 1)
        ]
        print_table(("rank", "disk", "device", "why"), rows, title="better disks, best first")
    for line in status_notes(status):
        say(line)


@dataclass(frozen=True)
class MoveStep:
    """One line of a plan."""

    what: str
    bytes: int = 0
    seconds: float = 0.0

    def row(self) -> tuple[str, str, str]:
        """For a table."""
        size = human_bytes(self.bytes) if self.bytes else ""
        return (self.what, size, f"about {human_seconds(self.seconds)}" if self.seconds else "")


def move_steps(journal: MoveJournal) -> tuple[MoveStep, ...]:
    """The plan for a person, in the order in which it is done."""
    stop, start = journal.service.steps()
    before = journal.before
    edits = [
        MoveStep(f"{'remove' if edit.after is None else 'write'} {edit.path}")
        for edit in journal.edits
    ]
    if not journal.restarts:
        return tuple(edits)
    steps = [MoveStep(f"try {journal.disk}: overlay, whiteouts, links, attributes, owners")]
    if before and before.running:
        steps.append(
            MoveStep(f"stop containers: {before.names(before.running)}", seconds=_RESTART_S)
        )
    steps.append(MoveStep(stop, seconds=_RESTART_S))
    for root in journal.roots:
        steps += _root_steps(root)
    steps += edits
    steps.append(MoveStep(start, seconds=_RESTART_S))
    listed = "the daemon's paths"
    if before and journal.carries:
        listed += f", {len(before.images)} images, {len(before.volumes)} volumes"
    steps.append(MoveStep(f"check {listed}, and run one container"))
    if before and before.running and journal.carries:
        steps.append(MoveStep(f"start containers: {before.names(before.running)}"))
    for root in journal.roots:
        verb = "delete" if journal.delete_old else "keep"
        steps.append(MoveStep(f"{verb} {root.old}", bytes=root.size.bytes))
    return tuple(steps)


def _root_steps(root: DataRoot) -> list[MoveStep]:
    if root.copy:
        size = root.size
        seconds = max(size.bytes / COPY_RATE, size.entries / FILE_RATE)
        return [
            MoveStep(f"copy {root.old} to {root.new} ({size.entries} files)", size.bytes, seconds),
            MoveStep("compare the copy: every file's metadata, a sample's content", 0, seconds / 5),
        ]
    if root.adopt:
        return [MoveStep(f"use the data that is in {root.new}")]
    return [MoveStep(f"start empty in {root.new}; images are pulled and built again")]


def move_summary(journal: MoveJournal) -> tuple[str, ...]:
    """What to know beside the steps."""
    total = sum(root.size.bytes for root in journal.roots)
    free = disk_space(journal.disk).free
    lines = [f"{human_bytes(total)} of data, {human_bytes(free)} free on {journal.disk}"]
    if journal.before and journal.carries and journal.before.irreplaceable:
        lines.append(f"goes along, for it exists nowhere else: {journal.before.irreplaceable}")
    if journal.before and journal.before.volumes:
        lines.append(f"volumes: {', '.join(journal.before.volumes)}")
    if journal.before and journal.before.containers:
        lines.append(f"containers: {', '.join(sorted(journal.before.containers.values()))}")
    if journal.left_behind:
        lines.append(f"stays behind: {journal.left_behind}; use --mode copy to take it along")
    return (*lines, *journal.notes)


def show_planned(planned: PlannedMove, *, as_json: bool) -> None:
    """The steps of a move, with sizes and time estimates, or that there is nothing to do."""
    journal = planned.journal
    if journal is None:
        where = f"on {planned.disk}" if planned.disk else "on the best disk"
        say(f"nothing to move: everything is {where} already")
        for folder, _ in planned.folders:
            say(f"making {folder}, which is missing")
        if as_json:
            print_json({"steps": []})
        return
    steps = move_steps(journal)
    if as_json:
        print_json(
            {
                "kind": journal.kind,
                "mode": "copy" if journal.carries else "fresh",
                "steps": [vars(step) for step in steps],
                "roots": [
                    {"name": root.name, "old": root.old, "new": root.new, "bytes": root.size.bytes}
                    for root in journal.roots
                ],
                "files": [edit.path for edit in journal.edits],
            }
        )
        return
    rows = [(str(number), *step.row()) for number, step in enumerate(steps, 1)]
    print_table(("", "step", "size", "time"), rows)
    for line in move_summary(journal):
        say(line)


def show_deleted(deleted: Sequence[KeptFolder]) -> None:
    """What --delete-old deleted."""
    say(f"deleted: {', '.join(str(kept.path) for kept in deleted)}" if deleted else "nothing kept")


def show_outcome(journal: MoveJournal) -> None:
    """What a finished move or restore, or the way back of one, came to."""
    if journal.phase == "undone":
        say("everything is as before")
    else:
        for root in journal.roots:
            say(f"{root.name}: now in {root.new}")
    if journal.kept:
        kept = ", ".join(str(kept.path) for kept in journal.kept)
        say(f"kept: {kept}. `./inv storage.move --delete-old` deletes what is kept")


def ask_user(question: str, *, yes: bool) -> bool:
    """A yes from the person, or from --yes. Raises UsageError where nobody can answer."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(question, cure="Nobody can be asked here: say --yes to agree.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def show_move_progress(project: Project, doing: str) -> Iterator[OnEvent]:
    """Events on the terminal, and in a log file that keeps all of them."""
    path = project.logs / f"storage-{doing}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log, Reporter() as reporter:

        def on_event(event: Event) -> None:
            if event.kind != "progress":
                log.write(redact(_line(event)))
                log.flush()
            if event.kind == "start" and event.step:
                reporter.say(f"{event.task}: {event.step}")
            reporter.on_event(event)

        yield on_event


def _line(event: Event) -> str:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return f"{now} {event.task} {event.kind} {event.step} {event.text}".rstrip() + "\n"


def disk_named(names: Sequence[str]) -> Path | None:
    """The TARGET among bare words. Raises UsageError for more than one."""
    if len(names) > 1:
        raise UsageError("a move has one target", cure="Name one disk, or none for the best one.")
    return Path(names[0]).absolute() if names else None


def mode_named(mode: str) -> Any:
    """The --mode, None where it is left to the rule. Raises UsageError."""
    if mode not in ("", "fresh", "copy"):
        raise UsageError(f"there is no mode {mode!r}", cure="Use fresh or copy.")
    return mode or None

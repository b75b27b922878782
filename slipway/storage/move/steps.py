"""A plan as a person reads it: each step with its size and a time estimate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slipway.core import disk_space, human_bytes, human_seconds
from slipway.storage.disks import Profile
from slipway.storage.move.changes import DataRoot
from slipway.storage.move.journal import MoveJournal

COPY_RATE = 125_000_000
"""Bytes a second that time estimates assume: the baseline of an EBS gp3 volume."""
FILE_RATE = 4000
"""Files a second that they assume, for trees of small files."""
_RESTART_S = 10.0


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
    steps = [MoveStep(f"try {journal.disk}: overlay, whiteouts, links, attributes, owners")]
    if before and before.running:
        steps.append(
            MoveStep(f"stop containers: {before.names(before.running)}", seconds=_RESTART_S)
        )
    steps.append(MoveStep(stop, seconds=_RESTART_S))
    for root in journal.roots:
        steps += _root_steps(root)
    steps += [MoveStep(_edit_step(edit.path, gone=edit.after is None)) for edit in journal.edits]
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


def _edit_step(path: Path, *, gone: bool) -> str:
    return f"{'remove' if gone else 'write'} {path}"


def move_summary(journal: MoveJournal, profile: Profile) -> tuple[str, ...]:
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
    return (*lines, *journal.notes, *profile.notes)

"""`inv lock`: bring images/lock up to date and say what changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slipway.core import DriftError, Reporter, exclusive, say
from slipway.derive import Note, grouped_notes
from slipway.local_base import rootfs_id, rootfs_status
from slipway.matrix import Base, select_images
from slipway.pipeline.checkout import Checkout
from slipway.pipeline.settings import Settings
from slipway.records import PackageDatabase
from slipway.registry import credentials_for
from slipway.resolve import BaseState, LockOptions, update_locks


def lock_images(
    root: Path,
    settings: Settings,
    names: Sequence[str],
    *,
    check: bool = False,
    upgrade: bool = False,
    inventory: bool = False,
) -> None:
    """Bring images/lock up to date for the images named (all by default), or say what would change.

    `inventory` has what is in bases read from their registries, layer by layer, with no engine and
    no disk. Raises DriftError when `check` finds a difference.
    """
    checkout = Checkout.at(root)
    images = select_images(checkout.matrix, names)
    project = checkout.project

    def own_database(base: Base) -> PackageDatabase:
        log = project.logs / f"base-{base.name}-rootfs.log"
        return PackageDatabase("dpkg", rootfs_status(project, reporter.on_event, log))

    with exclusive(checkout.project.state / "lock", "lock"), Reporter() as reporter:
        report = update_locks(
            checkout.project,
            checkout.matrix,
            images,
            LockOptions(
                settings.region,
                credentials_for(project=checkout.project),
                inventory,
                upgrade,
                check,
            ),
            reporter.on_event,
            BaseState(rootfs_id(project), own_database),
        )
    for line in report.changes:
        print(line)
    notes = []
    for line in report.unresolved:
        base, _, reason = line.partition(": ")
        notes.append(Note(base, f"no digest ({reason})"))
    for line in grouped_notes(notes):
        say(line)
    say("every lock is up to date" if not report.drift else f"{len(report.changes)} changes")
    if check and report.drift:
        raise DriftError("images/lock differs from what it is made from", cure="Run `./inv lock`.")

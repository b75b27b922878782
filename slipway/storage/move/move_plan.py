"""What a move would do: everything is looked at, and nothing is changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slipway.core import Project, TreeSize, UsageError, measure
from slipway.engine import start_daemon
from slipway.storage.candidates import WAIT_S, choose_disk
from slipway.storage.docker import (
    IN_FILES,
    DockerInstallation,
    DockerInventory,
    conflicting_flags,
    daemon_at_rest,
    engine_of_installation,
    find_installation,
    read_daemon_json,
    take_inventory,
)
from slipway.storage.errors import StorageError
from slipway.storage.move.changes import DataRoot, config_changes
from slipway.storage.move.journal import DockerDaemon, KeptFolder, MoveJournal
from slipway.storage.profiles import DataPlaces, profile
from slipway.storage.target_disk import TargetDisk, check_target_disk, inspect_disk

Say = Callable[[str], None]
Mode = Literal["fresh", "copy"]


@dataclass(frozen=True)
class MoveOptions:
    """What the person asked for."""

    mode: Mode | None = None
    stop: bool = False
    delete_old: bool = False


@dataclass(frozen=True)
class PlannedMove:
    """A move that has not begun; `journal` is None where there is nothing to do.

    `folders`, with their modes, are missing on a disk where everything else is in place: instance
    store is empty after a stop of the instance.
    """

    journal: MoveJournal | None
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
    options: MoveOptions,
    *,
    dry_run: bool,
    say: Say,
) -> PlannedMove:
    """Look at everything, change nothing. Raises SlipwayError for all that speaks against it."""
    last = room.journal()
    if last is not None and not last.over:
        raise StorageError(
            f"a {last.kind} was cut off while {last.phase}",
            cure="`./inv storage.move --resume` goes on with it, `./inv storage.restore` goes "
            "back.",
        )
    chosen = profile(profile_name, room.machine)
    if room.url == "embedded" and not dry_run:
        start_daemon(room.project)
    subject = find_installation(room.project, room.url, room.machine)
    check_config(subject)
    before, containerd_store = move_inventory(subject, room.project)
    mode = mode_of(options, before)
    check_driver(before, mode)
    sizes = _sizes(subject)
    needed = sum(size.bytes for size in sizes.values()) if mode == "copy" else 0
    if disk is None:
        disk = choose_disk(chosen, room.machine, subject.data_root, needed, wait=not dry_run)
    if disk is None:
        return PlannedMove(None, None)
    target = inspect_disk(
        disk,
        chosen,
        room.machine,
        in_files=not subject.embedded,
        wait_s=0.0 if dry_run else WAIT_S,
        on_wait=lambda place: say(f"waiting for {place} to be mounted"),
    )
    containerd = moves_containerd(subject, containerd_store=containerd_store)
    change = config_changes(
        subject, DataPlaces(target.disk), target, chosen, room.machine, containerd=containerd
    )
    missing = tuple(folder for folder in change.folders if not folder[0].is_dir())
    if not change.roots and not change.edits:
        return PlannedMove(None, target.disk, missing)
    kept = last.kept if last else ()
    roots = tuple(_with_data(root, sizes, kept, copy=mode == "copy") for root in change.roots)
    left_behind = _left_behind(before, mode, delete_old=options.delete_old)
    size = TreeSize(needed, sum(root.size.entries for root in roots if root.copy))
    check_target_disk(target, [root.old for root in roots], size)
    journal = _journal(
        subject,
        target,
        containerd=containerd,
        before=before,
        delete_old=options.delete_old,
        kept=kept,
        left_behind=left_behind,
        **vars(dataclasses.replace(change, roots=roots, notes=(*change.notes, *chosen.notes))),
    )
    if journal.restarts:
        check_stopped(before, stop=options.stop)
    return PlannedMove(journal, target.disk, missing)


def _journal(
    subject: DockerInstallation, target: TargetDisk, *, containerd: bool, **fields: Any
) -> MoveJournal:
    """A journal that has not begun, of this daemon and that disk."""
    return MoveJournal(
        kind="move",
        phase="planned",
        url=subject.url,
        service=subject.service(containerd),
        was_running=subject.running,
        disk=target.mount.target,
        device=target.mount.device,
        containerd=subject.containerd.socket if containerd and subject.containerd else None,
        own_namespaces=subject.own_namespaces,
        **fields,
    )


def move_inventory(
    installation: DockerInstallation, project: Project
) -> tuple[DockerInventory | None, bool]:
    """What the daemon has, and whether its images are in containerd; None where it cannot tell."""
    if not installation.running:
        return daemon_at_rest(installation.folders), False
    with closing(engine_of_installation(installation, project)) as connected:
        return take_inventory(connected, installation.folders), connected.containerd_store


def _sizes(installation: DockerInstallation) -> dict[Path, TreeSize]:
    sizes = {installation.at_rest: measure(installation.data_root)}
    if installation.containerd:
        sizes[installation.containerd.root] = measure(installation.containerd.root)
    return sizes


def mode_of(options: MoveOptions, before: DockerInventory | None) -> Mode:
    """`copy` where something exists nowhere else, or nobody can tell; else `fresh`."""
    if options.mode:
        return options.mode
    if before is None or before.unique:
        return "copy"
    # Images of no registry are built again by who built them, from the old place if need be.
    return "copy" if options.delete_old and before.own_images else "fresh"


def check_config(subject: DockerInstallation) -> None:
    """Refuse what would keep the daemon from starting again. Raises UsageError, StorageError."""
    if subject.problem is not None:
        raise subject.problem
    if subject.config is None:
        return
    config = read_daemon_json(subject.config)
    wanted = {**config, "data-root": ""}
    if both := conflicting_flags(wanted, subject.flags):
        raise StorageError(
            f"{', '.join(both)} would be given both to dockerd as a flag and in its file, with "
            "which it does not start",
            where=str(subject.config),
            cure="Take the flag out of dockerd's command line (`systemctl cat docker` shows the "
            "unit; /etc/default/docker may hold flags), restart Docker, and run this again.",
        )
    if subject.containerd and subject.containerd.root_flag:
        raise StorageError(
            "containerd has its root on its command line, where its file cannot change it",
            where=str(subject.containerd.config),
            cure="Take --root out of containerd's command line, restart it, and run this again.",
        )


def moves_containerd(subject: DockerInstallation, *, containerd_store: bool) -> bool:
    """Whether a separate containerd's root goes along. Raises StorageError where it must not.

    It does, also where images are not in it: containers are known to both. A containerd that
    others use (Kubernetes) stays where it is, which is only possible while no image is in it.
    """
    if subject.containerd is None:
        return False
    others = ", ".join(subject.containerd.others)
    if others and containerd_store:
        raise StorageError(
            f"containerd also runs containers of {others}, and Docker keeps its images there",
            where=str(subject.containerd.root),
            cure="Drain those first (kubectl drain), or move containerd's root with its owner's "
            "own means.",
        )
    return not others


def check_driver(before: DockerInventory | None, mode: Mode) -> None:
    """Refuse to copy what is not in files. Raises StorageError."""
    if mode == "copy" and before is not None and before.driver not in IN_FILES:
        raise StorageError(
            f"the storage driver {before.driver} keeps layers in snapshots of its own file system, "
            "which no copy of files takes along",
            cure="Push or save what must stay, then use --mode fresh.",
        )


def check_stopped(now: DockerInventory | None, *, stop: bool) -> None:
    """Refuse running containers unless they may be stopped. Raises StorageError."""
    if now and now.running and not stop:
        raise StorageError(
            f"containers are running: {now.names(now.running)}",
            cure="Stop them, or have them stopped and started again with --stop.",
        )


def _left_behind(before: DockerInventory | None, mode: Mode, *, delete_old: bool) -> str:
    """What exists nowhere else and stays in the old place. Raises UsageError."""
    lost = before.irreplaceable if before and mode == "fresh" else ""
    if delete_old and lost:
        raise UsageError(
            f"--delete-old would delete what --mode fresh leaves behind: {lost}",
            cure="Use --mode copy, or leave out --delete-old.",
        )
    return lost


def _with_data(
    root: DataRoot, sizes: Mapping[Path, TreeSize], kept: tuple[KeptFolder, ...], *, copy: bool
) -> DataRoot:
    """The root with what is to become of its data. Raises StorageError where some is in the way."""
    if copy:
        for path in (root.new, root.partial):
            if _is_data(path):
                raise _in_the_way(path, ours=any(left.path == path for left in kept))
    adopt = _is_data(root.new)
    marks = {"docker": ("overlay2", "image", "containers"), "engine": ("containerd",)}
    known = marks.get(root.name, ("io.containerd.metadata.v1.bolt",))
    if adopt and not any((root.new / name).exists() for name in known):
        raise StorageError(
            "this folder is not empty, and it is not a data folder of this daemon",
            where=str(root.new),
            cure="Look what it is, and rename or remove it, or name another disk.",
        )
    return dataclasses.replace(root, size=sizes.get(root.old, TreeSize()), copy=copy, adopt=adopt)


def _is_data(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def _in_the_way(path: Path, *, ours: bool) -> StorageError:
    what = "left behind by an earlier move" if ours else "which no move of this daemon knows"
    remove = "delete it with `./inv storage.move --delete-old`" if ours else "rename or remove it"
    return StorageError(
        f"there is data already, {what}",
        where=str(path),
        cure=f"Start on it as it is with --mode fresh, {remove}, or name another disk.",
    )

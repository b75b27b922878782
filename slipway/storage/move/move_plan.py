"""What a move would do. Nothing here changes anything; `apply` does what a plan says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slipway.core import TreeSize, UsageError
from slipway.storage.disks import TargetDisk
from slipway.storage.docker import (
    IN_FILES,
    DockerInstallation,
    DockerInventory,
    conflicting_flags,
    read_daemon_json,
)
from slipway.storage.errors import StorageError
from slipway.storage.move.changes import ConfigChanges
from slipway.storage.move.journal import DataRoot, KeptFolder, MoveJournal

Mode = Literal["fresh", "copy"]


@dataclass(frozen=True)
class MoveOptions:
    """What the person asked for."""

    mode: Mode | None = None
    stop: bool = False
    delete_old: bool = False


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


@dataclass(frozen=True)
class DataToMove:
    """What a daemon has before a move.

    `inventory` is None where nothing is known of it, `sizes` are of its folders by their paths,
    `kept` is what earlier moves left behind; with `containerd` a separate one goes along.
    """

    inventory: DockerInventory | None
    sizes: Mapping[Path, TreeSize]
    containerd: bool
    kept: tuple[KeptFolder, ...] = ()


def make_move_journal(
    subject: DockerInstallation,
    target: TargetDisk,
    change: ConfigChanges,
    data: DataToMove,
    options: MoveOptions,
) -> MoveJournal | None:
    """The move as a journal that has not begun; None where everything is there already."""
    before, containerd = data.inventory, data.containerd
    copy = mode_of(options, before) == "copy"
    roots = tuple(
        DataRoot(
            name=name,
            old=old,
            new=new,
            size=data.sizes.get(old, TreeSize()),
            copy=copy,
            adopt=not copy and _is_data(new),
            file=file,
            known=old if name == "containerd" else subject.data_root,
        )
        for name, old, new, file in change.roots
    )
    if not roots and not change.edits:
        return None
    for root in roots:
        _check_new(root, data.kept)
    lost = before.irreplaceable if before and not copy else ""
    if options.delete_old and lost:
        raise UsageError(
            f"--delete-old would delete what --mode fresh leaves behind: {lost}",
            cure="Use --mode copy, or leave out --delete-old.",
        )
    return MoveJournal(
        kind="move",
        phase="planned",
        url=subject.url,
        service=subject.service(containerd),
        was_running=subject.running,
        disk=target.mount.target,
        device=target.mount.device,
        roots=roots,
        edits=change.edits,
        folders=change.folders,
        scratch=change.scratch,
        environment=change.environment,
        containerd=subject.containerd.socket if containerd and subject.containerd else None,
        before=before,
        delete_old=options.delete_old,
        kept=data.kept,
        left_behind=lost,
        notes=change.notes,
        own_namespaces=subject.folders.own_namespaces,
    )


def _is_data(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def _check_new(root: DataRoot, kept: tuple[KeptFolder, ...]) -> None:
    if root.copy:
        for path in (root.new, root.partial):
            if _is_data(path):
                raise _in_the_way(path, ours=any(left.path == path for left in kept))
    if not _is_data(root.new):
        return
    marks = {"docker": ("overlay2", "image", "containers"), "engine": ("containerd",)}
    known = marks.get(root.name, ("io.containerd.metadata.v1.bolt",))
    if not any((root.new / name).exists() for name in known):
        raise StorageError(
            "this folder is not empty, and it is not a data folder of this daemon",
            where=str(root.new),
            cure="Look what it is, and rename or remove it, or name another disk.",
        )


def _in_the_way(path: Path, *, ours: bool) -> StorageError:
    what = "left behind by an earlier move" if ours else "which no move of this daemon knows"
    remove = "delete it with `./inv storage.move --delete-old`" if ours else "rename or remove it"
    return StorageError(
        f"there is data already, {what}",
        where=str(path),
        cure=f"Start on it as it is with --mode fresh, {remove}, or name another disk.",
    )

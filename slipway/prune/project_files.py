"""Slipway's own files: .sqsh files, compiled layers, caches."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from slipway.core import (
    EntryFaults,
    Project,
    SlipwayError,
    TreeError,
    measure,
    remove_tree,
)
from slipway.prune.removable import Removable, RemovalStep
from slipway.records import read_record
from slipway.squashfs import layer_cache


def file_steps(project: Project, before: float, faults: EntryFaults) -> tuple[RemovalStep, ...]:
    """What can go below the project's state folder: nothing that was touched since `before`, and
    nothing that cannot be read."""
    return (
        _sqsh(project, before, faults),
        _layers(project, before, faults),
        _cache(project, before, faults),
    )


@dataclass(frozen=True)
class _Entry:
    """A file or folder: the bytes of all that is in it, and when it was touched."""

    path: Path
    size: int
    touched: float


def _disk_bytes(folder: Path) -> int:
    return measure(folder).bytes


def _file_bytes(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.iterdir())


def _entries(
    paths: Iterable[Path], faults: EntryFaults, folder_bytes: Callable[[Path], int] = _disk_bytes
) -> Iterator[_Entry]:
    """Those of the paths that are there, in order; they may come and go meanwhile."""
    for path in sorted(paths):
        with faults.skip(TreeError), contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            size = folder_bytes(path) if stat.S_ISDIR(status.st_mode) else status.st_size
            yield _Entry(path, size, status.st_mtime)


def _sqsh(project: Project, before: float, faults: EntryFaults) -> RemovalStep:
    """.sqsh files, but not the newest of an image: jobs are started from that one.

    Where a record cannot be read, all of its image's stay.
    """
    current: set[Path] = set()
    unknown: list[str] = []
    for record in sorted(project.records.glob("*.json")):
        exported = None
        unknown.append(f"{record.stem}-")
        with faults.skip(SlipwayError):
            exported = read_record(project, record.stem).exported
            unknown.pop()
        if exported is not None:
            current.add(Path(exported.path).resolve())
    items = tuple(
        Removable(str(entry.path), entry.size)
        for entry in _entries(project.sqsh.glob("*.sqsh"), faults)
        if entry.touched < before
        and entry.path.resolve() not in current
        and not entry.path.name.startswith(tuple(unknown))
    )

    def remove(item: Removable) -> None:
        path = Path(item.name)
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.json").unlink(missing_ok=True)

    return RemovalStep(".sqsh files", items, remove)


def _layers(project: Project, before: float, faults: EntryFaults) -> RemovalStep:
    """Compiled layers: the ones used least recently, which is how their cache trims itself."""
    if not (project.sqsh / "layers").exists():
        return RemovalStep("compiled layers", (), lambda _: None)
    cache = layer_cache(project)
    old = new = 0
    for entry in _entries(
        (cache.folder / "layers").iterdir(), faults, _file_bytes
    ):  # as the cache counts
        if entry.touched < before:
            old += entry.size
        else:
            new += entry.size
    items = (Removable(str(cache.folder), old),) if old else ()

    def remove(item: Removable) -> None:
        del item
        cache.trim(new)

    return RemovalStep("compiled layers", items, remove)


def _cache(project: Project, before: float, faults: EntryFaults) -> RemovalStep:
    """Wheels, root file systems, tools: fetched or made again when they are wanted."""
    folders = [folder for folder in project.cache.glob("*") if folder.is_dir()]
    items = [
        Removable(str(entry.path), entry.size)
        for folder in sorted(folders)
        for entry in _entries(folder.iterdir(), faults)
        if entry.touched < before
    ]

    def remove(item: Removable) -> None:
        path = Path(item.name)
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)

    return RemovalStep("cached files", tuple(items), remove)

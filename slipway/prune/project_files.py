"""Slipway's own files: .sqsh files, compiled layers, caches."""

from __future__ import annotations

from pathlib import Path

from slipway.core import Project, measure, remove_tree
from slipway.prune.removable import Removable, RemovalStep
from slipway.records import load_record
from slipway.squashfs import layer_cache


def file_steps(project: Project, before: float) -> tuple[RemovalStep, ...]:
    """What can go below the project's state folder: nothing that was touched since `before`."""
    return (_sqsh(project, before), _layers(project, before), _cache(project, before))


def _sqsh(project: Project, before: float) -> RemovalStep:
    """.sqsh files, but not the newest of an image: jobs are started from that one."""
    current = set()
    for record in project.records.glob("*.json"):
        exported = load_record(project, record.stem).exported
        if exported is not None:
            current.add(Path(exported.path).resolve())
    items = tuple(
        Removable(str(path), path.stat().st_size)
        for path in sorted(project.sqsh.glob("*.sqsh"))
        if path.stat().st_mtime < before and path.resolve() not in current
    )

    def remove(item: Removable) -> None:
        path = Path(item.name)
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.json").unlink(missing_ok=True)

    return RemovalStep(".sqsh files", items, remove)


def _layers(project: Project, before: float) -> RemovalStep:
    """Compiled layers: the ones used least recently, which is how their cache trims itself."""
    if not (project.sqsh / "layers").exists():
        return RemovalStep("compiled layers", (), lambda _: None)
    cache = layer_cache(project)
    old = new = 0
    for entry in (cache.folder / "layers").iterdir():
        size = sum(file.stat().st_size for file in entry.iterdir())
        if entry.stat().st_mtime < before:
            old += size
        else:
            new += size
    items = (Removable(str(cache.folder), old),) if old else ()

    def remove(item: Removable) -> None:
        del item
        cache.trim(new)

    return RemovalStep("compiled layers", items, remove)


def _cache(project: Project, before: float) -> RemovalStep:
    """Wheels, root file systems, tools: fetched or made again when they are wanted."""
    items = []
    for folder in sorted(project.cache.glob("*")):
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if entry.stat().st_mtime < before:
                size = measure(entry).bytes if entry.is_dir() else entry.stat().st_size
                items.append(Removable(str(entry), size))

    def remove(item: Removable) -> None:
        path = Path(item.name)
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)

    return RemovalStep("cached files", tuple(items), remove)

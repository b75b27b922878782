"""What differs between two states of images/lock, in sentences."""

from __future__ import annotations

from collections.abc import Iterable

from slipway.lock.model import BaseLock, Locks, PythonLock, ToolLock


def changes(old: Locks, new: Locks) -> Iterable[str]:
    """One sentence for each file of images/lock that differs."""
    for name in sorted(old.bases.keys() | new.bases.keys()):
        yield from _base_change(name, old.bases.get(name), new.bases.get(name))
    for key in sorted(old.python.keys() | new.python.keys()):
        yield from _python_change(key, old.python.get(key), new.python.get(key))
    for name in sorted(old.tools.keys() | new.tools.keys()):
        yield from _tool_change(name, old.tools.get(name), new.tools.get(name))


def _base_change(name: str, old: BaseLock | None, new: BaseLock | None) -> Iterable[str]:
    if new is None:
        yield f"base {name}: no longer in the matrix"
    elif old is None:
        yield f"base {name}: {new.digest or new.unresolved or 'made by Slipway'}"
    elif old.digest != new.digest:
        yield f"base {name}: digest moved from {old.digest or 'unresolved'} to {new.digest}"
    elif old.packages != new.packages:
        yield f"base {name}: packages changed"
    elif old != new:
        yield f"base {name}: {new.unresolved or 'configuration changed'}"


def _python_change(key: str, old: PythonLock | None, new: PythonLock | None) -> Iterable[str]:
    if new is None:
        yield f"python {key}: no image needs it any more"
    elif old is None:
        yield f"python {key}: {len(new.pins)} packages"
    elif old.pins != new.pins:
        was = {pin.name: pin.version for pin in old.pins}
        now = {pin.name: pin.version for pin in new.pins}
        moved = [
            f"{package} {was.get(package, '(new)')} -> {now.get(package, '(gone)')}"
            for package in sorted(was.keys() | now.keys())
            if was.get(package) != now.get(package)
        ]
        yield f"python {key}: {', '.join(moved) or 'other files of the same versions'}"
    elif old != new:
        yield f"python {key}: checked against other bases, no package moved"


def _tool_change(name: str, old: ToolLock | None, new: ToolLock | None) -> Iterable[str]:
    if new is None:
        yield f"tool {name}: no longer in the matrix"
    elif old is None:
        yield f"tool {name}: {new.version} ({new.wheel})"
    elif old != new:
        yield f"tool {name}: {old.version} ({old.wheel}) -> {new.version} ({new.wheel})"

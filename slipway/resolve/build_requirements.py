"""What sdists build with: read from their own metadata, resolved for the Python that builds them.

A package that is published as an sdist only is built in a container of the base, without network,
so what it builds with (PEP 518) has to be locked as well. Most ask for setuptools and wheel, which
one lock has for all; an sdist that asks for more, or for another version, gets a lock of its own.
Nothing of these locks may have to be built itself.
"""

from __future__ import annotations

import importlib
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from slipway.core import Project, SlipwayError
from slipway.matrix import Architecture, Image
from slipway.records import (
    BUILD,
    MACHINES,
    BaseLock,
    Pin,
    PythonLock,
    SdistBuild,
    python_lock_keys,
)
from slipway.resolve.python_locks import ClosureRequest, LockSetting
from slipway.wheels import fetch_wheels

_LEGACY = ("setuptools",)
"""What pip takes where an sdist says nothing (PEP 517); any version since 2019 will do."""

_toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


def sdists_of(
    images: Iterable[Image], bases: Mapping[str, BaseLock], closures: Mapping[str, PythonLock]
) -> Iterator[SdistBuild]:
    """Every sdist that some image has to build, each once."""
    seen: set[SdistBuild] = set()
    for image in images:
        for _, key in python_lock_keys(image, bases):
            for pin in closures[key].pins if key in closures else ():
                built = SdistBuild(pin, image.base.facts.python, image.base.facts.architecture)
                if pin.source and built not in seen:
                    seen.add(built)
                    yield built


def read_build_requires(project: Project, pin: Pin, python: str) -> tuple[str, ...]:
    """What the sdist of a pin says that it builds with. Fetches it; runs nothing of it."""
    (path,) = fetch_wheels(project, [pin], python)
    return build_requires(path)


def build_requires(sdist: Path) -> tuple[str, ...]:
    """`build-system.requires` of an sdist's pyproject.toml. Raises SlipwayError."""
    text = _member(sdist, "pyproject.toml")
    if text is None:
        return _LEGACY
    try:
        declared = _toml.loads(text.decode("utf-8")).get("build-system", {})
        requires = tuple(str(Requirement(line)) for line in declared.get("requires", _LEGACY))
    except (ValueError, InvalidRequirement, AttributeError, TypeError) as error:
        raise SlipwayError(
            f"{sdist.name} has a pyproject.toml that cannot be read: {error}",
            cure="Choose another version of the package in versions.yaml.",
        ) from error
    return requires


def _member(sdist: Path, name: str) -> bytes | None:
    """A file of an sdist's top folder; None where there is no such file."""
    try:
        if sdist.suffix == ".zip":
            with zipfile.ZipFile(sdist) as archive:
                names = [
                    n for n in archive.namelist() if n.count("/") == 1 and n.endswith(f"/{name}")
                ]
                return archive.read(names[0]) if names else None
        with tarfile.open(sdist) as packed:
            for member in packed:
                if member.isfile() and member.name.removeprefix("./").split("/")[1:] == [name]:
                    stream = packed.extractfile(member)
                    return stream.read() if stream else None
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise SlipwayError(f"{sdist.name} is not an sdist that can be read: {error}") from error
    return None


def sdist_build_want(
    build: SdistBuild, requires: Sequence[str], common: Sequence[Pin]
) -> ClosureRequest | None:
    """The lock that an sdist needs of its own; None where `common` has all that it builds with."""
    pin, python, architecture = build
    asked = tuple(t for t in requires if applies_to(Requirement(t), python, architecture))
    present = {pin.name: pin.version for pin in common}
    if all(_is_met(Requirement(text), present) for text in asked):
        return None
    on = f"{pin.name} {pin.version} on Python {python}"
    setting = LockSetting(on, python, {}, architecture)
    return ClosureRequest(build.key, BUILD, ("pip", *asked), (setting,), wheels_only=True)


def applies_to(requirement: Requirement, python: str, architecture: Architecture = "amd64") -> bool:
    """Whether a requirement is one on Linux with this Python, by its marker."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_machine": MACHINES[architecture],
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    return requirement.marker is None or requirement.marker.evaluate(environment)


def _is_met(requirement: Requirement, present: Mapping[str, str]) -> bool:
    """Whether a pinned package meets a requirement. An extra brings more, so it never does."""
    version = present.get(str(canonicalize_name(requirement.name)))
    if version is None or requirement.extras:
        return False
    return requirement.specifier.contains(version)

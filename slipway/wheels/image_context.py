"""What images/generated/<image>/Dockerfile copies and mounts of Python add-ons and tools."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from slipway.core import OnEvent, Project, SlipwayError, recall_sha256, silent
from slipway.engine import ContextFile
from slipway.matrix import Addon, Image, Matrix, SourceBuild
from slipway.records import (
    BUILD,
    Locks,
    Pin,
    PythonLock,
    SdistBuild,
    build_requirements,
    python_lock_keys,
    python_lock_text,
    system_lock_keys,
)
from slipway.wheels.base_packages import read_packages
from slipway.wheels.source_inputs import fetch_source_input
from slipway.wheels.system_files import fetch_packages, system_context
from slipway.wheels.tool_wheels import fetch_tool
from slipway.wheels.wheel_builder import WheelBuilder, tools_of
from slipway.wheels.wheelhouse import fetch_wheels

if TYPE_CHECKING:
    from slipway.engine import Engine


@dataclass(frozen=True)
class ContextRequest:
    """Which image's context, and where its base is.

    `engine` has the base as `base`; it is None where there is no engine. `packages`: the Python
    distributions of the base, where they are known beside what the lock says. `steps`: whether
    files of steps that run something in the base are wanted, besides wheels.
    """

    project: Project
    matrix: Matrix
    image: Image
    locks: Locks
    engine: Engine | None
    base: str
    packages: Mapping[str, str] | None = None
    steps: bool = True

    @property
    def keys(self) -> tuple[tuple[Addon, str], ...]:
        """The Python add-ons with the keys of their locks."""
        return python_lock_keys(self.image, self.locks.bases)


def make_image_context(
    request: ContextRequest, on_event: OnEvent = silent
) -> tuple[ContextFile, ...]:
    """``python/``, ``system/`` and ``source/<add-on>/`` for the image's add-ons, ``tools/<name>``.

    Each add-on has a folder of its own, so that its layer is the same, and shared, whatever else
    is in the image. Fetches and builds what is not in the cache. Raises SlipwayError.
    """
    files: list[ContextFile] = []
    project, image, locks = request.project, request.image, request.locks
    architecture = image.base.facts.architecture
    if request.keys:
        closures = [
            _locked(locks, key, f"{addon.name} of {image.name}") for addon, key in request.keys
        ]
        builder = _builder(request, on_event)
        kept = _kept_by_base(request, closures)
        for lock in closures:
            files += _addon_files(project, builder, lock, kept, on_event)
            if image.bytecode and request.steps:
                compiler = project.bytecode_compiler
                files.append(ContextFile(f"python/{lock.addon}/{compiler.name}", compiler))
    for addon, key in system_lock_keys(image) if request.steps else ():
        if key not in locks.system:
            raise _not_locked(f"{addon.name} of {image.name}")
        wanted = locks.system[key]
        packages = fetch_packages(project, wanted.packages, request.matrix.archives, on_event)
        files += system_context(project.system_installer, wanted, packages)
    for tool in request.matrix.tools.values():
        if image.brings(tool.name):
            if tool.name not in locks.tools:
                raise _not_locked(tool.name)
            path = fetch_tool(project, tool, locks.tools[tool.name], architecture, on_event)
            files.append(ContextFile(f"tools/{tool.name}", path, 0o755))
    for addon in image.own_addons:
        if addon.source and request.steps:
            files += _source_files(project, addon.name, addon.source, on_event)
    return tuple(files)


def _source_files(
    project: Project, addon: str, build: SourceBuild, on_event: OnEvent
) -> list[ContextFile]:
    folder = f"source/{addon}"
    return [
        ContextFile(f"{folder}/{project.source_builder.name}", project.source_builder),
        ContextFile(f"{folder}/script", project.root / build.script, 0o755),
        *(
            ContextFile(
                f"{folder}/inputs/{wanted.name}",
                fetch_source_input(project, addon, wanted, on_event),
            )
            for wanted in build.inputs
        ),
    ]


def _kept_by_base(request: ContextRequest, closures: Sequence[PythonLock]) -> frozenset[str]:
    """Distributions that the base has and keeps, whatever is locked: no wheel of them is needed.

    Asked of the base itself where a lock does not know its packages and something would have to be
    built: what the base brings compiled may not build in it at all.
    """
    image = request.image
    base_lock = request.locks.bases.get(image.base.name)
    present: Mapping[str, str] | None = base_lock.packages if base_lock else None
    present = request.packages if present is None else present
    has_sdists = any(pin.source for lock in closures for pin in lock.pins)
    if present is None and has_sdists and request.engine:
        present = read_packages(request.engine, request.base, image.base.family.python)
    movable = {*image.base.moves}
    for addon in image.addons:
        if addon.action == "replace":
            movable |= {Requirement(text).name for text in addon.requirements}
    names = {str(canonicalize_name(name)) for name in present or ()}
    return frozenset(names - {str(canonicalize_name(name)) for name in movable})


def _builder(request: ContextRequest, on_event: OnEvent) -> WheelBuilder:
    project, image, locks = request.project, request.image, request.locks
    recipe = _locked(locks, BUILD, "what builds wheels")
    facts = image.base.facts
    own = {
        pin: closure
        for _, key in request.keys
        for pin in locks.python[key].pins
        if pin.source
        and (
            closure := build_requirements(
                SdistBuild(pin, facts.python, facts.architecture), locks.python
            )
        )
        is not None
        and closure is not recipe
    }
    return WheelBuilder(
        project,
        request.engine,
        request.base,
        image.base.family.python,
        facts.python,
        facts.architecture,
        tools_of(fetch_wheels(project, recipe.pins, facts.python, facts.architecture, on_event)),
        recipe,
        own,
    )


def _addon_files(
    project: Project,
    builder: WheelBuilder,
    lock: PythonLock,
    kept: frozenset[str],
    on_event: OnEvent,
) -> list[ContextFile]:
    folder = f"python/{lock.addon}"
    wanted = [pin for pin in lock.pins if pin.name not in kept]
    pins, wheels = with_wheels(project, builder, wanted, on_event, lock.index)
    pins += [pin for pin in lock.pins if pin.name in kept]  # named, so that the log says `kept`
    text = python_lock_text(dataclasses.replace(lock, pins=tuple(pins)))
    pip = next(tool for tool in builder.tools if tool.name.startswith("pip-"))
    return [
        ContextFile(f"{folder}/install_addons.py", project.installer),
        ContextFile(f"{folder}/{lock.addon}.txt", text.encode()),
        ContextFile(f"{folder}/bootstrap/{pip.name}", pip),
        *(ContextFile(f"{folder}/wheels/{wheel.name}", wheel) for wheel in wheels),
    ]


def with_wheels(
    project: Project,
    builder: WheelBuilder,
    pins: Sequence[Pin],
    on_event: OnEvent = silent,
    index: str = "",
) -> tuple[list[Pin], list[Path]]:
    """The wheel of every pin; a pin that has only an sdist becomes a pin of the wheel built here.

    The sdist is what the lock vouches for; the built wheel's hash then holds from here to the
    installation.
    """
    files = fetch_wheels(project, pins, builder.python, builder.arch, on_event, index)
    final, wheels = [], []
    for pin, file in zip(pins, files, strict=True):
        if pin.source:
            wheel = builder.wheel(pin, file, on_event)
            pin = Pin(pin.name, pin.version, (f"sha256:{recall_sha256(wheel)}",))
        else:
            wheel = file
        final.append(pin)
        wheels.append(wheel)
    return final, wheels


def _locked(locks: Locks, key: str, what: str) -> PythonLock:
    if key not in locks.python:
        raise _not_locked(what)
    return locks.python[key]


def _not_locked(what: str) -> SlipwayError:
    return SlipwayError(
        f"{what} is not locked",
        where="images/lock",
        cure="Run `./inv lock`; packages are pinned even with --unlocked, which is for bases.",
    )

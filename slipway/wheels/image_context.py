"""What images/generated/<image>/Dockerfile copies and mounts of Python add-ons and tools."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from slipway.core import OnEvent, Project, SlipwayError, sha256_file, silent
from slipway.engine import ContextFile, Engine
from slipway.matrix import Image, Matrix
from slipway.records import (
    BUILD,
    Locks,
    Pin,
    PythonLock,
    build_requirements,
    python_lock_keys,
    python_lock_text,
)
from slipway.wheels.base_packages import read_packages
from slipway.wheels.tool_wheels import fetch_tool
from slipway.wheels.wheel_builder import WheelBuilder, tools_of
from slipway.wheels.wheelhouse import fetch_wheels

ARCHITECTURE = "amd64"


def make_image_context(
    project: Project,
    engine: Engine,
    matrix: Matrix,
    image: Image,
    base_reference: str,
    locks: Locks,
    on_event: OnEvent = silent,
) -> tuple[ContextFile, ...]:
    """``python/<add-on>/`` for each Python add-on of the image, and ``tools/<name>``.

    Each add-on has a folder of its own, so that its layer is the same, and shared, whatever else
    is in the image. Fetches and builds what is not in the cache. Raises SlipwayError.
    """
    files: list[ContextFile] = []
    keys = python_lock_keys(image, locks.bases.get(image.base.name))
    if keys:
        closures = [_locked(locks, key, f"{addon.name} of {image.name}") for addon, key in keys]
        builder = _builder(project, engine, image, base_reference, locks, on_event)
        kept = _kept_by_base(engine, image, base_reference, locks, closures)
        for lock in closures:
            files += _addon_files(project, builder, lock, kept, on_event)
    for tool in matrix.tools.values():
        if image.addon(tool.name):
            if tool.name not in locks.tools:
                raise _not_locked(tool.name)
            path = fetch_tool(project, tool, locks.tools[tool.name], ARCHITECTURE, on_event)
            files.append(ContextFile(f"tools/{tool.name}", path, 0o755))
    return tuple(files)


def _kept_by_base(
    engine: Engine,
    image: Image,
    base_reference: str,
    locks: Locks,
    closures: Sequence[PythonLock],
) -> frozenset[str]:
    """Distributions that the base has and keeps, whatever is locked: no wheel of them is needed.

    Asked of the base itself where a lock does not know its packages and something would have to be
    built: what the base brings compiled may not build in it at all.
    """
    base_lock = locks.bases.get(image.base.name)
    present: Mapping[str, str] | None = base_lock.packages if base_lock else None
    if present is None and any(pin.source for lock in closures for pin in lock.pins):
        present = read_packages(engine, base_reference, image.base.family.python)
    movable = {*image.base.moves}
    for addon in image.addons:
        if addon.action == "replace":
            movable |= {Requirement(text).name for text in addon.requirements}
    names = {str(canonicalize_name(name)) for name in present or ()}
    return frozenset(names - {str(canonicalize_name(name)) for name in movable})


def _builder(
    project: Project,
    engine: Engine,
    image: Image,
    base_reference: str,
    locks: Locks,
    on_event: OnEvent,
) -> WheelBuilder:
    recipe = _locked(locks, BUILD, "what builds wheels")
    python = image.base.facts.python
    tools = tools_of(fetch_wheels(project, recipe.pins, python, ARCHITECTURE, on_event))
    interpreter = image.base.family.python
    own = {
        pin: closure
        for _, key in python_lock_keys(image, locks.bases.get(image.base.name))
        for pin in locks.python[key].pins
        if pin.source
        and (closure := build_requirements(pin, python, locks.python)) is not None
        and closure is not recipe
    }
    return WheelBuilder(
        project, engine, base_reference, interpreter, python, ARCHITECTURE, tools, recipe, own
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
    pins, wheels = with_wheels(project, builder, wanted, on_event)
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
    project: Project, builder: WheelBuilder, pins: Sequence[Pin], on_event: OnEvent = silent
) -> tuple[list[Pin], list[Path]]:
    """The wheel of every pin; a pin that has only an sdist becomes a pin of the wheel built here.

    The sdist is what the lock vouches for; the built wheel's hash then holds from here to the
    installation.
    """
    files = fetch_wheels(project, pins, builder.python, builder.arch, on_event)
    final, wheels = [], []
    for pin, file in zip(pins, files, strict=True):
        if pin.source:
            wheel = builder.wheel(pin, file, on_event)
            pin = Pin(pin.name, pin.version, (f"sha256:{sha256_file(wheel)}",))
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
        cure="Run `./inv lock`; wheels have to be pinned even with --unlocked, which is for bases.",
    )

"""images/lock as text: read and written here only, sorted, without dates and without hosts.

Python locks are pip requirement files (https://pip.pypa.io/en/stable/reference/requirements-file-format/)
with one ``--hash`` for each artefact that may be used; ``# source`` marks a pin that has only an
sdist. Bases and tools are JSON.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from slipway.core import BadInputError, Project, SlipwayError, write_atomic
from slipway.records.locks import (
    BaseLock,
    Locks,
    PackageFile,
    Pin,
    PythonLock,
    SystemLock,
    ToolFile,
    ToolLock,
)

_PIN = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>\S+)"
    r"(?P<hashes>(\s+--hash=sha256:[0-9a-f]{64})+)(?P<source>\s+#\s*source)?\s*"
)
_AGAIN = "Run `./inv lock` to write it again; these files are not edited by hand."


def base_lock_path(project: Project, name: str) -> Path:
    """The lock file of one base."""
    return project.locks / "bases" / f"{name}.json"


def python_lock_path(project: Project, key: str) -> Path:
    """The lock file of one Python closure."""
    return project.locks / "python" / f"{key}.txt"


def tool_lock_path(project: Project, name: str) -> Path:
    """The lock file of one tool."""
    return project.locks / "tools" / f"{name}.json"


def system_lock_path(project: Project, key: str) -> Path:
    """The lock file of an add-on's packages of the distribution, on one base."""
    return project.locks / "system" / f"{key}.json"


def start_lock_path(project: Project, image: str) -> Path:
    """What a start of an image reads, as `inv sqsh.trace` found it."""
    return project.locks / "starts" / f"{image}.start"


def load_locks(project: Project) -> Locks:
    """All of images/lock; empty where nothing was locked yet.

    Raises BadInputError with one error a file for those that cannot be read.
    """
    errors: list[SlipwayError] = []
    bases: dict[str, BaseLock] = {}
    python: dict[str, PythonLock] = {}
    tools: dict[str, ToolLock] = {}
    system: dict[str, SystemLock] = {}
    for path in sorted(project.locks.glob("*/*")):
        try:
            if path.parent.name == "bases" and path.suffix == ".json":
                bases[path.stem] = base_from_json(path.read_text("utf-8"))
            elif path.parent.name == "python" and path.suffix == ".txt":
                key = path.name.removesuffix(".txt")
                python[key] = parse_python_lock(key, path.read_text("utf-8"))
            elif path.parent.name == "tools" and path.suffix == ".json":
                tools[path.stem] = tool_from_json(path.read_text("utf-8"))
            elif path.parent.name == "system" and path.suffix == ".json":
                key = path.name.removesuffix(".json")
                system[key] = system_from_json(key, path.read_text("utf-8"))
        except (ValueError, KeyError, TypeError) as error:
            errors.append(SlipwayError(f"not a lock file: {error}", where=str(path), cure=_AGAIN))
    if errors:
        raise BadInputError(errors)
    return Locks(bases, python, tools, system)


def write_base_lock(project: Project, lock: BaseLock) -> None:
    """Replace the lock of one base."""
    write_atomic(base_lock_path(project, lock.base), base_to_json(lock))


def write_python_lock(project: Project, lock: PythonLock) -> None:
    """Replace one Python lock."""
    write_atomic(python_lock_path(project, lock.key), python_lock_text(lock))


def write_tool_lock(project: Project, lock: ToolLock) -> None:
    """Replace the lock of one tool."""
    write_atomic(tool_lock_path(project, lock.name), tool_to_json(lock))


def write_system_lock(project: Project, lock: SystemLock) -> None:
    """Replace the lock of one add-on's packages of the distribution."""
    write_atomic(system_lock_path(project, lock.key), system_to_json(lock))


def base_to_json(lock: BaseLock) -> str:
    """What is known of a base; what is not known is left out."""
    return _json({k: v for k, v in dataclasses.asdict(lock).items() if v is not None})


def base_from_json(text: str) -> BaseLock:
    """The inverse of `base_to_json`. Raises ValueError or TypeError."""
    return BaseLock(**json.loads(text))


def tool_to_json(lock: ToolLock) -> str:
    """A tool's artefacts by architecture."""
    return _json(dataclasses.asdict(lock))


def tool_from_json(text: str) -> ToolLock:
    """The inverse of `tool_to_json`. Raises ValueError, KeyError or TypeError."""
    data = json.loads(text)
    data["files"] = {arch: ToolFile(**file) for arch, file in data["files"].items()}
    return ToolLock(**data)


def system_to_json(lock: SystemLock) -> str:
    """Packages with their hashes and places; no address of an archive."""
    values = dataclasses.asdict(lock)
    del values["key"]
    return _json(values)


_SHA256 = re.compile("[0-9a-f]{64}")
_FILE_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9.+~_%:^-]*")


def system_from_json(key: str, text: str) -> SystemLock:
    """The inverse of `system_to_json`. Raises ValueError, KeyError or TypeError."""
    data = json.loads(text)
    packages = tuple(PackageFile(**package) for package in data.pop("packages"))
    for package in packages:
        # The name becomes a file's in the build, and the path part of an address.
        parts = package.path.split("/")
        if ".." in parts or not _FILE_NAME.fullmatch(parts[-1]):
            raise ValueError(f"{package.path!r} is no path in an archive")
        if not _SHA256.fullmatch(package.sha256):
            raise ValueError(f"{package.name} has no sha256")
    asked, removed = tuple(data.pop("asked")), tuple(data.pop("removed"))
    return SystemLock(key=key, packages=packages, asked=asked, removed=removed, **data)


def python_lock_text(lock: PythonLock) -> str:
    """A requirement file that pip takes with --require-hashes."""
    lines = [
        "# Written by `./inv lock`; not edited by hand.",
        f"# add-on: {lock.addon}",
        *(f"# asked: {requirement}" for requirement in lock.asked),
        f"# given: {lock.given}",
        *([f"# index: {lock.index}"] if lock.index else []),
        "# What the base or an earlier layer of the image brings is not here.",
    ]
    for pin in sorted(lock.pins, key=lambda pin: pin.name):
        lines.append(f"{pin.name}=={pin.version} \\")
        hashes = [f"    --hash={digest}" for digest in sorted(pin.hashes)]
        lines.append(" \\\n".join(hashes) + ("  # source" if pin.source else ""))
    return "\n".join(lines) + "\n"


def parse_python_lock(key: str, text: str) -> PythonLock:
    """The inverse of `python_to_text`. Raises ValueError naming a line that is no hashed pin."""
    addon = re.search(r"^# add-on: (\S+)$", text, re.MULTILINE)
    if addon is None:
        raise ValueError("it does not name its add-on")
    pins = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _PIN.fullmatch(line)
        if match is None:
            raise ValueError(f"not a pin with sha256 hashes: {line.strip()!r}")
        hashes = tuple(sorted(re.findall(r"--hash=(\S+)", match["hashes"])))
        name = canonicalize_name(match["name"])
        pins.append(Pin(name, match["version"], hashes, source=match["source"] is not None))
    asked = tuple(re.findall(r"^# asked: (.+)$", text, re.MULTILINE))
    given = re.search(r"^# given: (\S*)$", text, re.MULTILINE)
    index = re.search(r"^# index: (\S+)$", text, re.MULTILINE)
    return PythonLock(
        key, addon[1], tuple(pins), asked, given[1] if given else "", index[1] if index else ""
    )


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

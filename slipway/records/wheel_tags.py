"""Which file of a package an interpreter would take, and what uv's pylock.toml says there is.

pylock.toml: PEP 751. Wheel tags: PEP 425 and PEP 600, by `packaging`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from slipway.core import SlipwayError
from slipway.records.locks import Pin

MACHINES: Mapping[str, str] = {"amd64": "x86_64", "arm64": "aarch64"}
"""Docker's names of architectures, and the kernel's."""

GLIBC = 28
"""glibc 2.28: older than in any base (Ubuntu 20.04 has 2.31, Amazon Linux 2023 has 2.34)."""

_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}  # PEP 600

# The parser came to the standard library with 3.11; before that pytest brings the same code.
_toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


@cache
def platform_tags(arch: str) -> tuple[str, ...]:
    """Platform tags that every base of `arch` runs, best first."""
    machine = MACHINES[arch]
    tags = []
    for minor in range(GLIBC, 4, -1):
        tags.append(f"manylinux_2_{minor}_{machine}")
        if minor in _LEGACY:
            tags.append(f"{_LEGACY[minor]}_{machine}")
    return (*tags, f"linux_{machine}")


@cache
def tag_order(python: str, arch: str) -> Mapping[Tag, int]:
    """Every wheel tag that CPython `python` ("3.12") takes on `arch`, with its rank, best first."""
    version = tuple(int(part) for part in python.split("."))[:2]
    interpreter = f"cp{version[0]}{version[1]}"
    tags = [
        *cpython_tags(version, platforms=platform_tags(arch)),
        *compatible_tags(version, interpreter, platform_tags(arch)),
    ]
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}


def wheel_fits(filename: str, python: str, arch: str) -> int | None:
    """Rank of a wheel for this interpreter, lower is better; None where it does not fit."""
    try:
        tags = parse_wheel_filename(filename)[3]
    except InvalidWheelFilename:
        return None
    order = tag_order(python, arch)
    return min((order[tag] for tag in tags if tag in order), default=None)


def pins_of(pylock: str, python: str, arch: str, before: Iterable[Pin] = ()) -> tuple[Pin, ...]:
    """The packages of a pylock.toml, each with the one artefact to use.

    That is the best wheel, else the sdist. A pin of `before` whose artefact is still offered for
    the same version keeps it, so that a new build of an old release moves nothing.
    """
    old = {pin.name: pin for pin in before}
    pins = []
    for package in _toml.loads(pylock)["packages"]:
        pin = _pin(package, python, arch)
        kept = old.get(pin.name)
        offered = {sha for _, sha in _files(package.get("wheels", ())) + _files(_sdist(package))}
        if kept and kept.version == pin.version and set(kept.hashes) <= offered:
            pin = kept
        pins.append(pin)
    return tuple(sorted(pins, key=lambda pin: pin.name))


def _pin(package: Mapping[str, Any], python: str, arch: str) -> Pin:
    wheels = []
    for filename, sha in _files(package.get("wheels", ())):
        rank = wheel_fits(filename, python, arch)
        if rank is not None:
            wheels.append((rank, filename, sha))
    if wheels:
        return Pin(package["name"], package["version"], (min(wheels)[2],))
    sdists = _files(_sdist(package))
    if not sdists:
        raise SlipwayError(
            f"{package['name']} {package.get('version', '')} has neither a wheel for Python "
            f"{python} nor an sdist with a sha256",
            cure="Choose another version, or use an index that says sha256 hashes.",
        )
    return Pin(package["name"], package["version"], (sdists[0][1],), source=True)


def _sdist(package: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [package["sdist"]] if "sdist" in package else []


def _files(entries: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(file name, "sha256:...") of each artefact that has a hash."""
    files = []
    for entry in entries:
        location = str(entry.get("name") or entry.get("url") or entry.get("path"))
        sha = entry.get("hashes", {}).get("sha256")
        if sha:
            files.append((unquote(urlsplit(location).path).rpartition("/")[2], f"sha256:{sha}"))
    return files

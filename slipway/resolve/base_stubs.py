"""Stand-ins for what a base already has, so that a resolution can see it and cannot move it.

A stub is a wheel with metadata and nothing else. Its version carries a local label that no index
offers, and the resolution is constrained to it: every requirement that the base's version meets is
met by the stub (PEP 440: a public specifier matches whatever the local label), and no other
version can be chosen.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

_LABEL = "slipway.base"

STUB_PATTERN = r"[^\s,]+?[+.]slipway\.base"
"""A stub's version inside a resolver's message."""


def stub_version(version: str) -> str:
    """`version` with our local label; one that it has already ("2.13.0+cpu") is kept in front."""
    return f"{version}.{_LABEL}" if "+" in version else f"{version}+{_LABEL}"


def without_label(text: str) -> str:
    """A resolver's message in terms of the versions that the base really has."""
    return text.replace(f"+{_LABEL}", "").replace(f".{_LABEL}", "")


def is_stub(version: str) -> bool:
    """Whether a resolved version is a stand-in."""
    return version.endswith(_LABEL)


def stub_is_usable(present: Mapping[str, str]) -> dict[str, str]:
    """`present` by canonical name, less versions that are no PEP 440 versions.

    A distribution with such a version ("0.1-git") satisfies no requirement for pip either.
    """
    versions = {}
    for name, version in present.items():
        try:
            versions[str(canonicalize_name(name))] = str(Version(version))
        except InvalidVersion:
            continue
    return versions


def write_stubs(folder: Path, present: Mapping[str, str]) -> str:
    """Write a stub wheel for each package into `folder`; returns the constraints on them."""
    lines = []
    for name, version in sorted(stub_is_usable(present).items()):
        label = stub_version(version)
        _write_wheel(folder, name.replace("-", "_"), label)
        lines.append(f"{name}=={label}")
    return "\n".join(lines) + "\n"


def _write_wheel(folder: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: slipway\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")

"""What happens to an add-on on a base: keep, install or replace, and why. Pure."""

from __future__ import annotations

from fnmatch import fnmatchcase
from types import MappingProxyType

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from slipway.matrix.model import Addon, Base, Platform
from slipway.matrix.schema import AddonEntry, OnlyEntry, ToolEntry


def decide_addons(
    name: str, entry: AddonEntry, base: Base, platform: Platform, version: str | None
) -> Addon | None:
    """The add-on in an image of `base` on `platform`; None where it is neither there nor wanted.

    `version` is the axis' value where the add-on's version is an axis, None for "none".
    """
    if entry.version is None:
        if entry.platforms is not None and platform not in entry.platforms:
            return None
        return Addon(
            name,
            "install",
            None,
            entry.because,
            tuple(entry.requires),
            MappingProxyType(dict(entry.env)),
            MappingProxyType(dict(entry.labels)),
        )
    wanted = version if entry.version == "axis" else entry.version
    carried = name in base.carries
    if not carried:
        if wanted is None or (entry.platforms is not None and platform not in entry.platforms):
            return None
        return Addon(
            name,
            "install",
            wanted,
            entry.because,
            (_pin(name, wanted), *(_pin(*extra) for extra in entry.with_.items())),
            MappingProxyType(dict(entry.env)),
            MappingProxyType(dict(entry.labels)),
        )
    has = base.carries[name]
    reason = _replaced(entry, has, wanted)
    if reason is None or wanted is None:
        return Addon(name, "keep", has, f"the base carries {has or 'it'}")
    because = f"the base carries {has or 'a version that is not known'}: {reason}"
    return Addon(name, "replace", wanted, because, (_pin(name, wanted),))


def is_for(only: OnlyEntry | None, image: str, group: str, base: Base) -> bool:
    """Whether an add-on is for an image: every condition that is stated holds."""
    if only is None:
        return True
    names = (
        (image, only.images),
        (group, only.groups),
        (base.name, only.bases),
        (base.family.name, only.families),
    )
    return (
        all(not globs or any(fnmatchcase(name, glob) for glob in globs) for name, globs in names)
        and only.device in (None, base.facts.device)
        and SpecifierSet(only.torch).contains(base.facts.torch)
        and SpecifierSet(only.python).contains(base.facts.python)
    )


def read_tool(name: str, entry: ToolEntry) -> Addon:
    """A binary in an image: always put there, by hash."""
    return Addon(name, "install", entry.version, entry.because)


def _replaced(entry: AddonEntry, has: str | None, wanted: str | None) -> str | None:
    """Why what the base carries does not stay, None where it does."""
    if entry.version == "axis":
        same = has is not None and wanted is not None and Version(has) == Version(wanted)
        return None if same else f"this image is for {wanted}"
    bound = entry.replace_below
    if bound and (has is None or Version(has) < Version(bound.version)):
        return bound.because
    return None


def _pin(name: str, version: str) -> str:
    return f"{name}=={version}"

"""What happens to an add-on on a base: keep, install or replace, and why. Pure."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import MappingProxyType

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from slipway.matrix.addons.addon_entries import AddonEntry, OnlyEntry, ToolEntry
from slipway.matrix.addons.source_entries import source_build
from slipway.matrix.addons.system_entries import system_packages_of
from slipway.matrix.model import AddedFiles, Addon, AddonKind, Base, Platform


@dataclass(frozen=True)
class AxisChoice:
    """What the cell says of an add-on that its group varies over; `version` None for "none"."""

    version: str | None


def decide_addon(
    name: str,
    entry: AddonEntry,
    base: Base,
    platform: Platform,
    choice: AxisChoice | None = None,
) -> Addon | None:
    """The add-on in an image of `base` on `platform`; None where it is neither there nor wanted.

    With a `choice` the image has exactly that version; without one the entry's own rules hold.
    """
    if entry.platforms is not None and platform not in entry.platforms and name not in base.carries:
        return None
    decided = _decided(name, entry, base, choice)
    if decided is None:
        return None
    if entry.check or entry.needs or entry.index:
        decided = replace(decided, check=entry.check, needs=tuple(entry.needs), index=entry.index)
    if entry.on_cuda_mismatch and base.cuda_mismatch:
        decided = replace(decided, mismatch_env=MappingProxyType(dict(entry.on_cuda_mismatch.env)))
    return decided


def _decided(name: str, entry: AddonEntry, base: Base, choice: AxisChoice | None) -> Addon | None:
    env, labels = MappingProxyType(dict(entry.env)), MappingProxyType(dict(entry.labels))
    if entry.version is None:
        return Addon(
            name,
            "install",
            None,
            entry.because,
            requirements=tuple(entry.requires),
            env=env,
            labels=labels,
            kind=_kind(entry),
            files=tuple(AddedFiles(f.from_, f.to, f.mode, f.owner) for f in entry.files),
            workdir=entry.workdir,
            user=entry.user,
            source=source_build(entry.source) if entry.source else None,
            system=system_packages_of(entry.system, base) if entry.system else None,
        )
    own = None if entry.version == "axis" else entry.version
    wanted = choice.version if choice else own
    if name not in base.carries:
        if wanted is None:
            return None
        pins = (_pin(name, wanted), *(_pin(*extra) for extra in entry.with_.items()))
        return Addon(name, "install", wanted, entry.because, pins, env, labels)
    has = base.carries[name]
    reason = _replaced(entry, has, wanted, choice)
    if reason is None or wanted is None:
        return Addon(name, "keep", has, f"the base carries {has or 'it'}")
    because = f"the base carries {has or 'a version that is not known'}: {reason}"
    return Addon(name, "replace", wanted, because, (_pin(name, wanted),))


def _kind(entry: AddonEntry) -> AddonKind:
    if entry.source:
        return "source"
    if entry.system:
        return "system"
    return "packages" if entry.requires else "settings"


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
        and only.architecture in (None, base.facts.architecture)
        and _has_torch(only.torch, base.facts.torch)
        and _specifier(only.python).contains(base.facts.python)
    )


def _has_torch(wanted: str, torch: str) -> bool:
    """Whether a base has a torch that is meant; one without is meant where none is asked for."""
    return _specifier(wanted).contains(torch, prereleases=True) if torch else not wanted


@functools.lru_cache(maxsize=256)
def _specifier(text: str) -> SpecifierSet:
    return SpecifierSet(text)


def inherit_addon(addon: Addon, below: str) -> Addon:
    """What an image has of the image `below` it: there already, and still to be checked."""
    because = f"{below} has it"
    if addon.kind == "package":
        return Addon(addon.name, "keep", addon.version, because)
    return replace(addon, action="keep", because=because)


def read_tool(name: str, entry: ToolEntry) -> Addon:
    """A binary in an image: always put there, by hash."""
    return Addon(name, "install", entry.version, entry.because, kind="tool")


def _replaced(
    entry: AddonEntry, has: str | None, wanted: str | None, choice: AxisChoice | None
) -> str | None:
    """Why what the base carries does not stay, None where it does."""
    if choice is not None:
        same = has is not None and wanted is not None and Version(has) == Version(wanted)
        return None if same else f"this image is for {wanted}"
    bound = entry.replace_below
    if bound and (has is None or Version(has) < Version(bound.version)):
        return bound.because
    return None


def _pin(name: str, version: str) -> str:
    return f"{name}=={version}"

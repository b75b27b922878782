"""Packages of the distribution: how they are written, where from, and what must hold of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from slipway.matrix.field_types import Entry, Prose, Text, matching
from slipway.matrix.model import Architecture, Archive, Base, SystemPackages
from slipway.matrix.yaml_file import Path as Place
from slipway.matrix.yaml_file import Problem

if TYPE_CHECKING:
    from slipway.matrix.addons.addon_entries import AddonEntry
    from slipway.matrix.entries import MatrixEntries

_VERSION = "(=[0-9][A-Za-z0-9.+:~^_-]*)?"
# Debian Policy 5.6.7 (names) and 5.6.12 (versions); rpm's names may have capitals and underscores.
_APT = Annotated[str, matching(f"^[a-z0-9][a-z0-9+.-]+{_VERSION}$")]
_DNF = Annotated[str, matching(f"^[A-Za-z0-9][A-Za-z0-9+._-]*{_VERSION}$")]
_ARCHIVE = Annotated[str, matching("^[a-z][a-z0-9-]{0,39}$")]
_SUITE = Annotated[str, matching("^[A-Za-z0-9.][A-Za-z0-9._/-]*$")]


class SystemEntry(Entry):
    """Packages of the distribution, by the package manager of a base: NAME, or NAME=VERSION."""

    apt: list[_APT] = []
    dnf: list[_DNF] = []
    archives: list[_ARCHIVE] = []
    moves: dict[str, Prose] = {}


class ArchiveEntry(Entry):
    """One of `archives`: where packages of a distribution come from. No host: each machine has it.

    `suites` has for each `os` of bases the suites, and for dnf the folders, below the address.
    `distribution` is for what the bases themselves are made of; others are asked by name.
    """

    package_manager: Literal["apt", "dnf"]
    key: Annotated[str, matching("^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    suites: Annotated[dict[Text, Annotated[list[_SUITE], Field(min_length=1)]], Field(min_length=1)]
    components: list[Annotated[str, matching("^[a-z0-9-]+$")]] = []
    architectures: list[Architecture] = []
    distribution: bool = False


def system_packages_of(entry: SystemEntry, base: Base) -> SystemPackages:
    """What an add-on asks for on a base."""
    names = entry.apt if base.family.package_manager == "apt" else entry.dnf
    return SystemPackages(tuple(names), tuple(entry.archives), dict(entry.moves))


def read_archive(name: str, entry: ArchiveEntry) -> Archive:
    """An archive as the later rooms have it."""
    return Archive(
        name,
        entry.package_manager,
        entry.key,
        {system: tuple(suites) for system, suites in entry.suites.items()},
        tuple(entry.components),
        tuple(entry.architectures),
        entry.distribution,
    )


def check_archives(source: MatrixEntries) -> None:
    """Everything that can be said of archives by themselves, and of the add-ons that name them."""
    for name, entry in source.archives.items():
        flat = {suite.endswith("/") for suites in entry.suites.values() for suite in suites}
        key_path: Place = ("archives", name, "components")
        if entry.package_manager == "apt" and bool(entry.components) == (True in flat):
            what = f"{name} has components and flat suites, or neither"
            cure = "components: [main] for suites; suites that end with a slash have none"
            source.problems.append(Problem(key_path, what, cure))
        if entry.package_manager == "dnf" and entry.components:
            what = f"{name}: repositories of rpms have no components"
            source.problems.append(Problem(key_path, what, "remove it"))
    for name, addon in source.addons.items():
        for index, archive in enumerate(addon.system.archives if addon.system else ()):
            place = ("addons", name, "system", "archives", index)
            source.unknown(place, "archives", "archive", archive)


def check_system(
    source: MatrixEntries, path: Place, image: str, base: Base, has: Mapping[str, AddonEntry]
) -> None:
    """What must hold of the system packages of one image."""
    for name, entry in has.items():
        if entry.system is None:
            continue
        manager = base.family.package_manager
        if not getattr(entry.system, manager):
            what = f"{image} has {name}, which names no packages for {manager}, as {base.name} has"
            cure = f"add them, as system: {{{manager}: [jq]}}, or narrow `only` of {name}"
            source.problems.append(Problem(("addons", name, "system"), what, cure))
            continue
        named = [read_archive(a, e) for a, e in source.archives.items()]
        if not archives_of(named, base, entry.system.archives) and not source.broken["archives"]:
            facts = base.facts
            what = f"{image} has {name}, and no archive is for {facts.os} {facts.architecture}"
            cure = f"add {facts.os} to `suites` of one of `archives`"
            source.problems.append(Problem(path, what, cure))


def archives_of(archives: Iterable[Archive], base: Base, named: Iterable[str]) -> list[Archive]:
    """The archives for packages of a base: its distribution's own, and those named."""
    facts = base.facts
    return [
        archive
        for archive in archives
        if (archive.distribution or archive.name in {*named})
        and archive.package_manager == base.family.package_manager
        and facts.os in archive.suites
        and (not archive.architectures or facts.architecture in archive.architectures)
    ]

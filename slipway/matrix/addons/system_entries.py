"""Packages of the distribution: how they are written, and where they are from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from slipway.matrix.field_types import Entry, Prose, Text, matching
from slipway.matrix.model import Architecture, Archive, Base, SystemPackages

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

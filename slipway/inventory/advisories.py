"""Known vulnerabilities of what an image has, from files in OSV's form (ossf.github.io/osv-schema).

Offline: a folder of .json files, or of the .zip files that osv.dev publishes for each ecosystem. An
ecosystem of a distribution names source packages (Debian, Ubuntu) or packages (rpm's).
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cmp_to_key
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from slipway.core import DOCUMENT_FAULTS, UsageError
from slipway.inventory.version_order import compare_versions
from slipway.records import ImageInventory

_LARGEST = 16 << 20
_RPM_IDS = {"almalinux": "AlmaLinux", "rocky": "Rocky Linux", "opensuse-leap": "openSUSE"}


@dataclass(frozen=True, order=True)
class Advisory:
    """One advisory that holds for one package of an image. `fixed`: the version that ends it."""

    kind: str  # "python", "dpkg", "rpm"
    package: str
    version: str
    id: str
    aliases: tuple[str, ...]
    fixed: str | None
    summary: str

    def __str__(self) -> str:
        """For a person."""
        names = ", ".join((self.id, *self.aliases))
        end = f"fixed in {self.fixed}" if self.fixed else "no fixed version"
        return f"{self.kind} {self.package} {self.version}: {names} ({end}) {self.summary}".strip()


def read_advisories(folder: Path, inventories: Iterable[ImageInventory]) -> list[list[Advisory]]:
    """For each inventory the advisories that hold for it, sorted; the files are read once.

    Raises UsageError for a folder without such files, and for a file that is none.
    """
    tables = [_packages(inventory) for inventory in inventories]
    matches: list[set[Advisory]] = [set() for _ in tables]
    count = 0
    for where, raw in _files(folder):
        count += 1
        try:
            document = json.loads(raw)
            if document.get("withdrawn"):
                continue
            for match, table in zip(matches, tables, strict=True):
                match.update(_matching(document, table))
        except DOCUMENT_FAULTS as error:
            raise UsageError(f"this is no advisory in OSV's form: {error}", where=where) from error
    if not count:
        raise UsageError(
            "there is no .json and no .zip file with advisories",
            where=str(folder),
            cure="osv.dev publishes an all.zip for each ecosystem (PyPI, Debian:12, ...).",
        )
    return [sorted(match) for match in matches]


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".json":
            yield str(path), path.read_bytes()
        elif path.suffix == ".zip":
            try:
                with zipfile.ZipFile(path) as archive:
                    for member in archive.infolist():
                        if member.filename.endswith(".json") and member.file_size <= _LARGEST:
                            yield f"{path}:{member.filename}", archive.read(member)
            except zipfile.BadZipFile as error:
                raise UsageError(f"this is no zip file: {error}", where=str(path)) from error


Table = Mapping[tuple[str, str], list[tuple[str, str, str]]]
"""(ecosystem, name there) -> (kind, our name, version as that ecosystem counts it)."""


def _packages(inventory: ImageInventory) -> Table:
    table: defaultdict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for name, version in inventory.python.items():
        table["PyPI", name].append(("python", name, version))
    name, _, release = inventory.distribution.partition(" ")
    for package in inventory.system or ():
        if inventory.manager == "dpkg":
            key = (f"{name.capitalize()}:{release}", package.source)
            table[key].append(("dpkg", package.name, package.source_version))
        elif name in _RPM_IDS:
            major = release.partition(".")[0]
            key = (f"{_RPM_IDS[name]}:{major}", package.name)
            table[key].append(("rpm", package.name, package.version))
    return table


def _matching(document: Mapping[str, Any], table: Table) -> Iterator[Advisory]:
    for affected in document.get("affected") or ():
        about = affected.get("package") or {}
        # "Ubuntu:22.04:LTS", "Debian:12", "PyPI"
        ecosystem = re.sub(r":LTS$", "", str(about.get("ecosystem", "")))
        name = str(about.get("name", ""))
        key = (ecosystem, str(canonicalize_name(name)) if ecosystem == "PyPI" else name)
        for kind, package, version in table.get(key, ()):
            holds, fixed = _holds(affected, kind, version)
            if holds:
                yield Advisory(
                    kind,
                    package,
                    version,
                    str(document["id"]),
                    tuple(map(str, document.get("aliases") or ())),
                    fixed,
                    " ".join(str(document.get("summary") or "").split()),
                )


def _holds(affected: Mapping[str, Any], kind: str, version: str) -> tuple[bool, str | None]:
    """Whether a version is affected, and which later one is not (osv-schema, "Evaluation")."""
    listed = version in (affected.get("versions") or ())
    fixed = None
    holds = False
    for stretch in affected.get("ranges") or ():
        if stretch.get("type") not in ("ECOSYSTEM", "SEMVER"):
            continue  # commits say nothing of an installed version
        inside, end = _in_range(stretch.get("events") or (), kind, version)
        holds = holds or inside
        fixed = end or fixed
    return listed or holds, fixed


def _in_range(
    events: Iterable[Mapping[str, str]], kind: str, version: str
) -> tuple[bool, str | None]:
    """A version is inside after `introduced` and before what ends it, in the order of versions."""

    def compare(one: Mapping[str, str], other: Mapping[str, str]) -> int:
        first, second = next(iter(one.values())), next(iter(other.values()))
        if "0" in (first, second):
            return (first != "0") - (second != "0")
        return compare_versions(kind, first, second) or 0

    inside, fixed = False, None
    for event in sorted(events, key=cmp_to_key(compare)):
        if "introduced" in event:
            begin = event["introduced"]
            if begin == "0" or compare_versions(kind, begin, version) in (-1, 0):
                inside = True
        elif "fixed" in event:
            order = compare_versions(kind, event["fixed"], version)
            if order in (-1, 0):
                inside = False
            elif order == 1 and inside and fixed is None:
                fixed = event["fixed"]
        elif (
            "last_affected" in event
            and compare_versions(kind, event["last_affected"], version) == -1
        ):
            inside = False
    return inside, fixed

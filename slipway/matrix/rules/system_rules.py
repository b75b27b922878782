"""What must hold of packages of the distribution, and of the archives that they come from."""

from __future__ import annotations

from collections.abc import Mapping

from slipway.matrix.addons import AddonEntry, archives_of, read_archive
from slipway.matrix.entries import MatrixEntries
from slipway.matrix.model import Base
from slipway.matrix.yaml_file import Path as Place
from slipway.matrix.yaml_file import Problem


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
        if base.image is not None:
            what = f"{image} has {name}, and stands on {base.image.name}"
            cure = f"packages of the distribution are resolved for a base: have {name} in that"
            source.problems.append(Problem(("addons", name, "system"), what, cure))
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

"""What is in an image: Python distributions, system packages, configuration, layers."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from slipway.core import OnEvent, SlipwayError
from slipway.inventory.dpkg_status import dpkg_packages
from slipway.inventory.layered_image import LayeredImage
from slipway.inventory.metadata_files import (
    LayerNotes,
    MetadataFiles,
    layers_are_noted,
    read_metadata_files,
)
from slipway.inventory.python_distributions import (
    check_environment,
    distributions_in,
    find_site_packages,
)
from slipway.inventory.rpm_database import rpm_packages
from slipway.records import ImageInventory, PackageDatabase, SystemPackage

_DPKG = "var/lib/dpkg/status"
_RPM = ("var/lib/rpm", "usr/lib/sysimage/rpm")
_CONFIG = ("Env", "Entrypoint", "Cmd", "User", "WorkingDir", "Labels")


def read_inventory(
    image: LayeredImage,
    notes: LayerNotes,
    on_event: OnEvent,
    interpreter: str = "",
    layers: int | None = None,
) -> ImageInventory:
    """What is in an image, or in its lowest `layers`; layers that were read before are not again.

    `interpreter`: whose Python distributions are meant; that of the image's PATH without it.
    Raises RegistryError, LayerError.
    """
    files = read_metadata_files(image, notes, on_event, layers)
    config = run_settings(image.config)
    unknown = []
    try:
        python = _python_versions(files, config, interpreter)
    except SlipwayError as error:
        python = {}
        unknown.append(f"Python distributions: {error.what}")
    manager, system = "", None
    try:
        manager, system = _system_packages(files)
    except SlipwayError as error:
        unknown.append(f"packages of the distribution: {error.what}")
    return ImageInventory(
        distribution=_distribution(files),
        manager=manager,
        python=python,
        system=system,
        config=config,
        layers=tuple((str(part["digest"]), int(part["size"])) for part in image.layers[:layers]),
        unknown=tuple(unknown),
    )


def run_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an image configuration (OCI image specification) that a container starts with."""
    inner = config.get("config") or {}
    return {key: inner[key] for key in _CONFIG if inner.get(key)}


def _python_versions(
    files: MetadataFiles, config: Mapping[str, Any], interpreter: str
) -> dict[str, str]:
    sites = find_site_packages(files, config, interpreter)
    for site in sites:
        check_environment(files.texts, PurePosixPath("/", site).parents[2])
    distributions = distributions_in(files.texts, sites)
    return {name: distribution.version for name, distribution in sorted(distributions.items())}


def read_package_database(
    image: LayeredImage, notes: LayerNotes, on_event: OnEvent, *, stream: bool = True
) -> PackageDatabase | None:
    """What is installed in an image, as its package manager keeps it; None where it has none.

    Without `stream` only what was read before is used, and None is given, too, where that does
    not tell. Raises RegistryError, LayerError, SlipwayError.
    """
    if not stream and not layers_are_noted(image, notes):
        return None
    return _package_database(read_metadata_files(image, notes, on_event))


def _system_packages(files: MetadataFiles) -> tuple[str, tuple[SystemPackage, ...] | None]:
    database = _package_database(files)
    return (database.manager, _packages_in(database)) if database else ("", ())


def _packages_in(database: PackageDatabase) -> tuple[SystemPackage, ...]:
    """The installed packages, sorted. Raises SlipwayError for a database that cannot be read."""
    if database.manager == "dpkg":
        return dpkg_packages([database.content.decode("utf-8", "replace")])
    return rpm_packages(database.content, database.log or None)


def _package_database(files: MetadataFiles) -> PackageDatabase | None:
    status = [
        text
        for path, text in files.texts.items()
        if path == _DPKG or path.startswith(f"{_DPKG}.d/")
    ]
    if status:
        return PackageDatabase("dpkg", "\n\n".join(text.strip() for text in status).encode())
    if _DPKG in files.kinds:
        raise SlipwayError("dpkg's list is larger than any that is read")
    for folder in _RPM:
        path = f"{folder}/rpmdb.sqlite"
        if path in files.texts:
            log = files.texts.get(f"{path}-wal", "")
            return PackageDatabase(
                "rpm", base64.b64decode(files.texts[path]), base64.b64decode(log)
            )
        if path in files.kinds:
            raise SlipwayError("rpm's database is larger than any that is read")
        for old in ("Packages", "Packages.db"):
            if f"{folder}/{old}" in files.kinds:
                raise SlipwayError("rpm's database is of a form before SQLite")
    return None


def _distribution(files: MetadataFiles) -> str:
    """ID and VERSION_ID of os-release (freedesktop.org, "os-release")."""
    text = files.texts.get("etc/os-release") or files.texts.get("usr/lib/os-release") or ""
    fields = dict(re.findall(r"^(ID|VERSION_ID)=[\"']?([A-Za-z0-9._-]+)", text, re.MULTILINE))
    return f"{fields.get('ID', '')} {fields.get('VERSION_ID', '')}".strip()

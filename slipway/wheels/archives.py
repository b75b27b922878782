"""Package archives by name: versions.yaml names them, each machine says where they are.

A lock is committed and read elsewhere, where the same packages may lie on another host, so it has
paths below an archive and no address.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterable
from urllib.parse import urlsplit

from slipway.core import SlipwayError
from slipway.matrix import Archive

# Settings about how indexes are named and shown, not about where packages come from.
_NOT_OURS = ("IndexTargets", "Changelogs", "CompressionTypes", "cdrom", "Languages", "GzipIndexes")


def archive_url(archive: Archive) -> str:
    """The address of an archive on this machine, with a slash at its end.

    Raises SlipwayError where it has none.
    """
    variable = archive_variable(archive.name)
    url = os.environ.get(variable) or _host_url(archive)
    if not url:
        own = "in this machine's apt sources, or " if archive.package_manager == "apt" else ""
        raise SlipwayError(
            f"where the archive {archive.name!r} of versions.yaml is, is not said on this machine",
            cure=f"Say it {own}in {variable}, as {variable}=https://mirror.example/debian/.",
        )
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SlipwayError(
            f"{variable} is no http or https address", cure="As https://mirror.example/debian/."
        )
    return url.rstrip("/") + "/"


def archive_variable(name: str) -> str:
    """The variable that says where an archive is, before the host's own settings are asked."""
    return f"SLIPWAY_ARCHIVE_{name.upper().replace('-', '_')}"


def _host_url(archive: Archive) -> str:
    """Of the host's own apt sources the first that has a suite and a component of the archive."""
    if archive.package_manager != "apt":
        return ""
    suites = {suite for suites in archive.suites.values() for suite in suites}
    for url, suite, component in _host_targets():
        if suite in suites and component in archive.components and url.startswith("http"):
            return url
    return ""


@functools.cache
def _host_targets() -> tuple[tuple[str, str, str], ...]:
    """(address, suite, component) of each entry of the host's apt sources."""
    if shutil.which("apt-get") is None:
        return ()
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    # Also for entries that were never updated from, of which no release file is there.
    command = ["apt-get", "indextargets", "--no-release-info", "--format", form]
    lines = _output([*command, "Created-By: Packages"]).splitlines()
    return tuple((w[0], w[1], w[2]) for w in map(str.split, lines) if len(w) == 3)


def acquire_settings(dump: str) -> str:
    """The lines of `apt-config dump` that say how packages are fetched: proxies, certificates."""
    lines = []
    for line in dump.splitlines():
        name, _, value = line.partition(" ")
        section = name.split("::")
        ours = section[0] == "Acquire" and len(section) > 1 and section[1] not in _NOT_OURS
        if ours and value not in ('"";', ""):
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def host_acquire_settings() -> str:
    """`acquire_settings` of this host; empty where there is no apt."""
    if shutil.which("apt-config") is None:
        return ""
    return acquire_settings(_output(["apt-config", "dump"]))


def _output(command: Iterable[str]) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(
        [*command], env=environment, capture_output=True, text=True, check=True
    ).stdout

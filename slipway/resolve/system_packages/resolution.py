"""What a resolver is asked and what it answers, whichever package manager it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slipway.core import Project, SlipwayError, redact
from slipway.matrix import Architecture, Archive
from slipway.records import PackageDatabase, PackageFile
from slipway.wheels import archive_url

_KEYRINGS = (Path("/usr/share/keyrings"), Path("/etc/apt/keyrings"), Path("/etc/pki/rpm-gpg"))
_LAST_LINES = 6


@dataclass(frozen=True)
class PackageQuestion:
    """Which packages, on top of what is there, from where.

    `below` are the package files of add-ons under this one: they are installed when it is.
    """

    on: str  # the base, for messages
    system: str  # its os, as versions.yaml states it
    architecture: Architecture
    names: tuple[str, ...]  # NAME or NAME=VERSION
    database: PackageDatabase
    archives: tuple[Archive, ...]
    below: tuple[Path, ...] = ()


@dataclass(frozen=True)
class PackageAnswer:
    """What has to be installed, in that order; what would be moved or removed of the base."""

    packages: tuple[PackageFile, ...]
    moved: Mapping[str, str] = field(default_factory=dict)  # name -> "1.0 -> 1.1"
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArchiveAddress:
    """An archive where it is on this machine, with the file of its key."""

    archive: Archive
    url: str
    key: Path


def addresses_of(project: Project, archives: Sequence[Archive]) -> tuple[ArchiveAddress, ...]:
    """Where the archives are. Raises SlipwayError for one without an address or a key."""
    return tuple(ArchiveAddress(a, archive_url(a), archive_key(project, a)) for a in archives)


def archive_key(project: Project, archive: Archive) -> Path:
    """The keyring of an archive: the repository's own, else one of this machine."""
    for folder in (project.keys, *_KEYRINGS):
        path = folder / archive.key
        if path.is_file():
            return path
    raise SlipwayError(
        f"the key of the archive {archive.name}, {archive.key}, is not on this machine, and "
        "packages are taken from it with their signatures only",
        cure=f"Put it at images/keys/{archive.key}; Debian and Ubuntu have their own in the "
        "packages debian-archive-keyring and ubuntu-keyring, a base of rpms in /etc/pki/rpm-gpg.",
    )


def require_program(name: str, packages: str, on: str) -> None:
    """Raises SlipwayError where a package manager that has to resolve is not on this machine."""
    if shutil.which(name) is None:
        raise SlipwayError(
            f"packages for {on} are resolved by {name}, and this machine has none",
            cure=f"Run `./inv lock` on a machine that has it (Debian, Ubuntu: `apt-get install "
            f"{packages}`). Its locks are committed, and builds need no {name}.",
        )


def run_program(
    command: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Its end, whatever that was; it speaks English and asks nothing."""
    return subprocess.run(
        command,
        env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def last_lines(done: subprocess.CompletedProcess[str], marks: tuple[str, ...] = ()) -> str:
    """What a program said last, or all lines with one of the marks; without passwords."""
    lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith(marks)] if marks else []
    return redact(" ".join(marked or lines[-_LAST_LINES:]) or f"it ended with {done.returncode}")


def path_below(addresses: Sequence[ArchiveAddress], url: str) -> tuple[str, str]:
    """(archive, path) of a file's address: the archive with the longest address that has it."""
    for address in sorted(addresses, key=lambda address: -len(address.url)):
        if url.startswith(address.url):
            return address.archive.name, url.removeprefix(address.url)
    raise SlipwayError(f"{redact(url)} is in none of the archives that were named")

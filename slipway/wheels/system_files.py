"""Packages of the distribution: fetched by their locked hashes, and laid out for a build."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

from slipway.core import OnEvent, Project, SlipwayError, silent
from slipway.engine import ContextFile
from slipway.matrix import Archive
from slipway.records import PackageFile, SystemLock
from slipway.wheels.archives import archive_url, archive_variable
from slipway.wheels.downloads import DownloadError, KeptFile, fetch_kept_file

_TASK = "fetch packages"
_GONE = (404, 410)


def package_path(project: Project, package: PackageFile) -> Path:
    """Where a package is kept; one that is put there by hand is taken, too."""
    return project.cache / "packages" / package.sha256 / unquote(package.path.rpartition("/")[2])


def fetch_packages(
    project: Project,
    packages: Iterable[PackageFile],
    archives: Mapping[str, Archive],
    on_event: OnEvent = silent,
) -> list[Path]:
    """The locked files on disk, verified each time, in the order given.

    Raises SlipwayError where an archive has a package no more, or has another file in its place.
    """
    return [_fetch(project, package, archives, on_event) for package in packages]


def _fetch(
    project: Project, package: PackageFile, archives: Mapping[str, Archive], on_event: OnEvent
) -> Path:
    path = package_path(project, package)
    title = f"{package.name} {package.version}"

    def locate() -> str:
        archive = archives.get(package.archive)
        if archive is None:
            raise SlipwayError(
                f"{title} is locked from the archive {package.archive!r}, which versions.yaml has "
                "not",
                cure="Run `./inv lock`.",
            )
        return archive_url(archive) + package.path

    return fetch_kept_file(
        KeptFile(path, locate, package.sha256, _TASK, title),
        on_event,
        unavailable=lambda error: _unavailable(title, package, path, error),
        another=lambda actual: SlipwayError(
            f"the archive {package.archive} gives another file than the lock names: "
            f"{package.path} has sha256 {actual}",
            cure="Do not install it: a released package never changes. Ask who runs it.",
        ),
    )


def _unavailable(
    title: str, package: PackageFile, path: Path, error: DownloadError
) -> SlipwayError:
    if error.status not in _GONE:
        return SlipwayError(
            f"{title} cannot be had from {error.host}: {error.reason}",
            cure=f"Check the network, the proxy and {archive_variable(package.archive)}; or put "
            f"the file at {path} yourself.",
        )
    return SlipwayError(
        f"the archive {package.archive} on {error.host} has {title} no more ({package.path}): "
        "archives keep the newest version of a package and drop the others",
        cure="Take the version that it has now: `./inv lock --upgrade`. To keep this one, name a "
        f"mirror that keeps old versions in {archive_variable(package.archive)}, or put the file "
        f"at {path} yourself.",
    )


def system_context(script: Path, lock: SystemLock, files: Iterable[Path]) -> list[ContextFile]:
    """``system/<add-on>/``: what the script that installs packages expects beside it."""
    folder = f"system/{lock.addon}"
    named = list(zip(lock.packages, files, strict=True))
    sums = [f"{package.sha256}  packages/{path.name}" for package, path in named]
    return [
        ContextFile(f"{folder}/install_packages.sh", script),
        ContextFile(f"{folder}/SHA256SUMS", _lines(sums)),
        ContextFile(f"{folder}/order", _lines([path.name for _, path in named])),
        ContextFile(f"{folder}/removed", _lines(lock.removed)),
        *(ContextFile(f"{folder}/packages/{path.name}", path) for _, path in named),
    ]


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()

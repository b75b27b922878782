"""Packages of the distribution: where archives are, fetching by hash, what a build is given."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.core import Project, SlipwayError
from slipway.engine import ContextFile
from slipway.matrix import Archive
from slipway.records import PackageFile, SystemLock
from slipway.wheels import archives
from slipway.wheels.system_files import fetch_packages, package_path, system_context
from tests.support.loopback_files import serve_files

DEBIAN = Archive(
    "debian", "apt", "k.gpg", {"debian12": ("bookworm", "bookworm-updates")}, ("main",)
)
RPMS = Archive("rpms", "dnf", "k.asc", {"amzn2023": (".",)})
NAME = "automake_1%3a1.16_all.deb"
CONTENT = b"a package"
PACKAGE = PackageFile(
    "automake",
    "1:1.16",
    "all",
    "automake-1.16",
    "1:1.16",
    "debian",
    f"pool/main/a/{NAME.replace('%', '%25')}",
    hashlib.sha256(CONTENT).hexdigest(),
    len(CONTENT),
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, tmp_path / "state")


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an archive that is served, where this machine says that it is."""
    folder = tmp_path / "served" / "pool" / "main" / "a"
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(CONTENT)
    with serve_files(tmp_path / "served") as url:
        monkeypatch.setenv("SLIPWAY_ARCHIVE_DEBIAN", url)
        yield folder


def fetched(project: Project, package: PackageFile = PACKAGE) -> Path:
    (path,) = fetch_packages(project, [package], {"debian": DEBIAN})
    return path


def test_a_package_is_fetched_once_and_looked_at_each_time(project: Project, pool: Path) -> None:
    path = fetched(project)
    assert (path.name, path.read_bytes()) == (NAME, CONTENT)
    (pool / NAME).unlink()
    assert fetched(project) == path
    path.write_bytes(b"damaged")
    (pool / NAME).write_bytes(CONTENT)
    assert fetched(project).read_bytes() == CONTENT


def test_a_package_that_an_archive_has_no_more_is_said_with_its_cure(
    project: Project, pool: Path
) -> None:
    (pool / NAME).unlink()
    with pytest.raises(SlipwayError) as refused:
        fetched(project)
    assert "has automake 1:1.16 no more" in refused.value.what
    place = package_path(project, PACKAGE)
    for cure in ("./inv lock --upgrade", "SLIPWAY_ARCHIVE_DEBIAN", str(place)):
        assert cure in str(refused.value.cure)
    # The cure that names a place holds.
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(CONTENT)
    assert fetched(project) == place


def test_another_file_in_its_place_is_refused_and_not_kept(project: Project, pool: Path) -> None:
    (pool / NAME).write_bytes(b"another")
    with pytest.raises(SlipwayError, match="another file than the lock names"):
        fetched(project)
    assert not package_path(project, PACKAGE).exists()


def test_a_server_that_does_not_answer_is_no_archive_without_the_package(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_ARCHIVE_DEBIAN", "http://127.0.0.1:9/")
    with pytest.raises(SlipwayError, match=r"cannot be had from 127\.0\.0\.1:9"):
        fetched(project)


def test_an_archive_that_went_from_versions_yaml_is_said(project: Project) -> None:
    with pytest.raises(SlipwayError, match=r"archive .other., which versions\.yaml has not"):
        fetched(project, dataclasses.replace(PACKAGE, archive="other"))


@pytest.fixture
def no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose apt sources say nothing."""
    monkeypatch.setattr(archives, "_host_targets", lambda: ())
    for name in ("DEBIAN", "RPMS"):
        monkeypatch.delenv(f"SLIPWAY_ARCHIVE_{name}", raising=False)


@pytest.mark.usefixtures("no_host")
def test_an_archive_is_where_its_variable_says_and_else_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for archive in (DEBIAN, RPMS):
        with pytest.raises(SlipwayError, match="is not said on this machine"):
            archives.archive_url(archive)
    monkeypatch.setenv("SLIPWAY_ARCHIVE_DEBIAN", "https://mirror.invalid/debian")
    assert archives.archive_url(DEBIAN) == "https://mirror.invalid/debian/"
    for wrong in ("file:///srv/debian", "mirror.invalid", "https:///x"):
        monkeypatch.setenv("SLIPWAY_ARCHIVE_DEBIAN", wrong)
        with pytest.raises(SlipwayError, match="no http or https address"):
            archives.archive_url(DEBIAN)


@pytest.mark.usefixtures("no_host")
def test_the_hosts_own_sources_say_it_by_suite_and_component(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    targets = [
        ("http://docker.invalid/", "bookworm", "stable"),
        ("cdrom:[Debian]/", "bookworm", "main"),
        ("http://next.invalid/", "trixie", "main"),
        ("http://mirror.invalid/debian/", "bookworm-updates", "main"),
    ]
    monkeypatch.setattr(archives, "_host_targets", lambda: targets)
    assert archives.archive_url(DEBIAN) == "http://mirror.invalid/debian/"
    monkeypatch.setenv("SLIPWAY_ARCHIVE_DEBIAN", "http://said.invalid/")
    assert archives.archive_url(DEBIAN) == "http://said.invalid/"


def test_a_build_gets_the_files_with_their_sums_and_their_order(
    project: Project, pool: Path, tmp_path: Path
) -> None:
    assert pool.is_dir()
    script = tmp_path / "install.sh"
    lock = SystemLock("k", "tools", ("automake",), "", (PACKAGE,), ("old",))
    files = system_context(script, lock, [fetched(project)])
    assert all(file.path.startswith("system/tools/") for file in files)
    there = {file.path.removeprefix("system/tools/"): file for file in files}
    assert there.keys() == {
        "install_packages.sh",
        "SHA256SUMS",
        "order",
        "removed",
        f"packages/{NAME}",
    }
    for file in there.values():
        _write(tmp_path / "mnt", file)
    folder = tmp_path / "mnt" / "system" / "tools"
    check = ["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"]
    subprocess.run(check, cwd=folder, check=True)
    assert (folder / "order").read_text() == f"{NAME}\n"
    assert (folder / "removed").read_text() == "old\n"


def _write(folder: Path, file: ContextFile) -> None:
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(file.source, bytes):
        path.write_bytes(file.source)
    elif file.source.exists():
        path.write_bytes(file.source.read_bytes())

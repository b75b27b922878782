"""System packages resolved by the real apt and dnf, in small signed archives of our own.

Each promise is asked of both forms. What stands in the archives is made by dpkg-deb, rpmbuild,
createrepo_c and gpg.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.core import Project, SlipwayError
from slipway.matrix import SystemPackages, load_matrix
from slipway.records import PackageDatabase, SystemLock
from slipway.resolve import BaseState
from slipway.resolve.system_packages import SystemWant, update_system_lock
from slipway.wheels import fetch_packages
from tests.support.loopback_files import serve_files
from tests.support.package_archives import Package, PackageArchive, signing_key

LIBONE = Package("libone", "1.0")
LIBTWO = Package("libtwo", "1:2.0", depends="libone")
TOOL = Package("tool", "1:3.0", depends="libtwo, virtual-thing", recommends="manual")
MANUAL = Package("manual", "1.0")
THING = Package("thing", "1.0", provides="virtual-thing")
NEEDS_NEW = Package("needs-new", "1.0", depends="libone >= 2")
RIVAL = Package("rival", "1.0", replaces="thing")
ALL = (LIBONE, LIBTWO, TOOL, MANUAL, THING, NEEDS_NEW, RIVAL, replace(LIBONE, version="2.0"))


@pytest.fixture(params=["apt", "dnf"])
def served(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PackageArchive]:
    """An archive with ALL, served on loopback, its key in the repository's folder of keys."""
    archive = PackageArchive(tmp_path / "archive", request.param)
    publish(archive, *ALL)
    keys = tmp_path / "images" / "keys"
    keys.mkdir(parents=True)
    (keys / "own.asc").write_text(signing_key(archive.key))
    with serve_files(archive.folder) as url:
        monkeypatch.setenv("SLIPWAY_ARCHIVE_OWN", url)
        yield archive


def publish(archive: PackageArchive, *packages: Package, **how: object) -> None:
    """Relations with versions stand in parentheses in Debian's form."""
    if archive.kind == "apt":
        packages = tuple(
            replace(package, depends=package.depends.replace(">= 2", "(>= 2)"))
            for package in packages
        )
    archive.publish(*packages, **how)  # type: ignore[arg-type]


class Locker:
    """`inv lock` of one add-on after the other on one base."""

    def __init__(
        self, project: Project, archive: PackageArchive, database: PackageDatabase
    ) -> None:
        self.project, self.archive, self.database = project, archive, database
        self.locks: dict[str, SystemLock] = {}
        self.asked = 0
        matrix = load_matrix(Path(__file__).parents[3] / "versions.yaml")
        base = next(base for base in matrix.bases if base.registry is None)
        self.base = replace(base, facts=replace(base.facts, os="here"))

    def lock(self, asked: SystemPackages, *below: str, upgrade: bool = False) -> SystemLock:
        key = "+".join(asked.names)
        want = SystemWant(key, key, self.base, asked, (self.archive.archive,), below)
        state = BaseState("digest", lambda _: self._tell())
        lock = update_system_lock(self.project, want, self.locks, state, upgrade=upgrade)
        self.locks[key] = lock
        return lock

    def names(self, *names: str, moves: dict[str, str] | None = None) -> dict[str, str]:
        """Name -> version of what would be installed."""
        lock = self.lock(SystemPackages(names, (), moves or {}))
        return {package.name: package.version for package in lock.packages}

    def _tell(self) -> PackageDatabase:
        self.asked += 1
        return self.database


@pytest.fixture
def locker(served: PackageArchive, tmp_path: Path) -> Locker:
    """A base that has libone 1.0, and what virtual-thing asks for."""
    project = Project(tmp_path, tmp_path / "state")
    return Locker(project, served, served.database(LIBONE, THING))


def test_what_lacks_comes_along_and_what_the_base_has_stays(locker: Locker) -> None:
    version = locker.archive.version
    found = locker.names("tool")
    assert found == {"tool": version("1:3.0"), "libtwo": version("1:2.0")}
    lock = locker.locks["tool"]
    assert {package.archive for package in lock.packages} == {"own"}
    # What is locked is what the archive has: it is fetched and has its hash.
    files = fetch_packages(locker.project, lock.packages, {"own": locker.archive.archive})
    assert [path.stat().st_size for path in files] == [p.size for p in lock.packages]


def test_a_lock_stands_until_something_that_decides_it_changes(locker: Locker) -> None:
    lock = locker.lock(SystemPackages(("libtwo",)))
    publish(locker.archive, LIBONE, replace(LIBTWO, version="1:2.1"))
    assert locker.lock(SystemPackages(("libtwo",))) == lock
    assert locker.asked == 1
    newer = locker.lock(SystemPackages(("libtwo",)), upgrade=True)
    assert [p.version for p in newer.packages] == [locker.archive.version("1:2.1")]


def test_nothing_of_the_base_moves_without_a_reason(locker: Locker) -> None:
    version = locker.archive.version
    change = f"libone ({version('1.0')} -> {version('2.0')})"
    with pytest.raises(SlipwayError) as refused:
        locker.names("needs-new")
    assert change in refused.value.what
    found = locker.names("needs-new", moves={"libone": "a reason"})
    assert found == {"needs-new": version("1.0"), "libone": version("2.0")}


def test_nothing_of_the_base_is_removed_without_a_reason(locker: Locker) -> None:
    with pytest.raises(SlipwayError) as refused:
        locker.names("rival")
    assert "thing (removed)" in refused.value.what
    locker.names("rival", moves={"thing": "a reason"})
    assert locker.locks["rival"].removed == ("thing",)


def test_an_addon_is_resolved_on_top_of_another_that_the_archive_has_no_more(
    locker: Locker,
) -> None:
    locker.lock(SystemPackages(("libtwo",)))
    (lower,) = locker.locks["libtwo"].packages
    fetch_packages(locker.project, [lower], {"own": locker.archive.archive})
    publish(locker.archive, TOOL, replace(LIBTWO, version="1:2.1"))
    upper = locker.lock(SystemPackages(("tool",)), "libtwo")
    assert [package.name for package in upper.packages] == ["tool"]


def test_a_version_is_taken_as_it_is_asked_for(locker: Locker) -> None:
    version = locker.archive.version("2.0")
    moves = {"libone": "a reason"}
    assert locker.names(f"libone={version}", moves=moves) == {"libone": version}


@pytest.mark.parametrize("name", ["nonesuch", "tool=9.9"])
def test_a_package_or_version_that_no_archive_has_is_said(locker: Locker, name: str) -> None:
    with pytest.raises(SlipwayError) as refused:
        locker.names(name)
    assert name.partition("=")[0] in refused.value.what
    assert "own have no" in refused.value.what
    assert "versions.yaml" in str(refused.value.cure)


@pytest.mark.parametrize("how", ["unsigned", "by another key"])
def test_nothing_is_taken_whose_signature_does_not_hold(
    locker: Locker, tmp_path: Path, how: str
) -> None:
    key = tmp_path / "another" if how == "by another key" else None
    publish(locker.archive, *ALL, key=key, signed=how != "unsigned")
    with pytest.raises(SlipwayError, match="the signature of") as refused:
        locker.names("tool")
    assert "Nothing is taken from" in str(refused.value.cure)


def test_a_list_that_was_changed_after_it_was_signed_is_refused(locker: Locker) -> None:
    """Debian's lists are signed; of rpms each package is, which the test above changes."""
    if locker.archive.kind == "dnf":
        package = next(locker.archive.folder.rglob("tool-*.rpm"))
        content = package.read_bytes()
        package.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        lists = next(locker.archive.folder.rglob("Packages"))
        lists.write_text(lists.read_text().replace("pool/tool", "pool/toll"))
    with pytest.raises(SlipwayError):
        locker.names("tool")


def test_a_key_that_is_not_here_is_said(locker: Locker) -> None:
    (locker.project.keys / "own.asc").unlink()
    with pytest.raises(SlipwayError, match=r"the key of the archive own, own\.asc, is not"):
        locker.names("tool")


def test_a_machine_without_the_package_manager_says_so(
    locker: Locker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlipwayError, match="this machine has none"):
        locker.names("tool")

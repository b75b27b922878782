"""The script that installs system packages in a build, by the real dpkg and rpm.

It runs without network in this machine's own root file system, below an overlay that takes what it
writes: that is what a layer would hold. For rpm the overlay has rpm's database and none of dpkg's.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from slipway.engine import ContextFile
from slipway.records import PackageFile, SystemLock
from slipway.wheels.system_files import system_context
from tests.support.package_archives import Package, make_deb, make_rpm

SCRIPT = Path(__file__).parents[3] / "images" / "context" / "install_packages.sh"
LIBRARY = Package("library", "2.0")
TOOL = Package("tool", "1.0", depends="library")
OLD = Package("old", "1.0")
RIVAL = Package("rival", "1.0", replaces="old")
DATABASE = "usr/lib/sysimage/rpm"
RUN = """
set -eu
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" overlay "$1/root"
mount --bind /dev "$1/root/dev"
"$2" "$1/root"
(cd "$1/upper" && find . ! -type d | sort) > "$3/before"
mount --bind "$3" "$1/root/mnt"
code=0
chroot "$1/root" sh /mnt/install_packages.sh > "$3/output" 2>&1 || code=$?
(cd "$1/upper" && find . ! -type d | sort) > "$3/after"
chroot "$1/root" sh -c "$4" > "$3/answer" 2>&1 || true
exit $code
"""


@dataclass
class Machine:
    """A root file system with some packages, and what a run of the script left of it."""

    kind: str  # "apt", "dnf"
    folder: Path
    has: tuple[Package, ...] = ()

    def files(self, packages: tuple[Package, ...]) -> list[Path]:
        if self.kind == "apt":
            made = self.folder / "debs"
            made.mkdir(exist_ok=True)
            return [make_deb(package, made / f"{package.name}_1.deb") for package in packages]
        return [make_rpm(package, self.folder / "rpms") for package in packages]

    def install(self, *packages: Package, removed: tuple[str, ...] = (), spoil: str = "") -> int:
        """Its exit code; `spoil` names a package whose file is another one than is locked."""
        paths = self.files(packages)
        locked = tuple(
            PackageFile(p.name, p.version, "all", p.name, p.version, "own", "p", digest(path), 1)
            for p, path in zip(packages, paths, strict=True)
        )
        lock = SystemLock("k", "own", (), "", locked, removed)
        mounted = self.folder / "context"
        for file in system_context(SCRIPT, lock, paths):
            write(mounted, file, spoil)
        prepare = self.folder / "prepare"
        prepare.write_text(self._prepare())
        prepare.chmod(0o755)
        space = self.folder / "space"
        space.mkdir(exist_ok=True)
        words = [str(space), str(prepare), str(mounted), self._question()]
        command = ["unshare", "--mount", "--net", "bash", "-c", RUN, "run", *words]
        return subprocess.run(command, check=False, capture_output=True).returncode

    def left(self) -> set[str]:
        """What a run has written, less what was there before it."""
        before, after = ((self.folder / "context" / n).read_text() for n in ("before", "after"))
        return set(after.splitlines()) - set(before.splitlines())

    @property
    def output(self) -> str:
        """What the script has said."""
        return (self.folder / "context" / "output").read_text()

    @property
    def installed(self) -> Mapping[str, str]:
        """Name -> version of our own packages."""
        text = (self.folder / "context" / "answer").read_text()
        found = dict(line.split() for line in text.splitlines() if len(line.split()) == 2)
        return {name: found[name] for name in ("library", "tool", "old", "rival") if name in found}

    def _question(self) -> str:
        if self.kind == "apt":
            form = "--showformat='${Package} ${Version}\\n'"
            return f"dpkg-query --show {form} library tool old rival"
        return "HOME=/root rpm --query --all --queryformat '%{NAME} %{VERSION}\\n'"

    def _prepare(self) -> str:
        """Runs before the script, with the root as its argument."""
        files = " ".join(f"'{path}'" for path in self.files(self.has)) if self.has else ""
        logs = 'echo before > "$1/var/log/dpkg.log"; rm -rf "$1/var/cache/ldconfig"\n'
        if self.kind == "apt":
            installs = f'dpkg --root="$1" --log=/dev/null --install {files}\n' if files else ""
            return f"#!/bin/sh\nset -e\n{installs}{logs}"
        macros = f"%_dbpath /{DATABASE}\\n%_db_backend sqlite\\n"
        text = f'#!/bin/sh\nset -e\n{logs}rm "$1/var/lib/dpkg/status"\n'
        text += f"printf '%s' '{macros}' | sed 's/\\\\n/\\n/g' > \"$1/root/.rpmmacros\"\n"
        text += 'export HOME="$1/root"\nrpm --root "$1" --initdb\n'
        if files:
            text += f'rpm --root "$1" --install {files}\n'
        return text


def digest(path: Path) -> str:
    return subprocess.run(
        ["sha256sum", path], check=True, capture_output=True, text=True
    ).stdout.split()[0]


def write(folder: Path, file: ContextFile, spoil: str) -> None:
    path = folder / file.path.removeprefix("system/own/")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = file.source if isinstance(file.source, bytes) else file.source.read_bytes()
    spoilt = spoil and path.name.startswith(spoil)
    path.write_bytes(content + b"x" if spoilt else content)


@pytest.fixture(params=["apt", "dnf"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(request.param, tmp_path)


def test_packages_are_installed_without_network_and_nothing_else_is_left(machine: Machine) -> None:
    assert machine.install(LIBRARY, TOOL) == 0, machine.output
    assert machine.installed == {"library": "2.0", "tool": "1.0"}
    lists = {"apt": "./var/lib/dpkg/", "dnf": f"./{DATABASE}/"}[machine.kind]
    left = {path for path in machine.left() if not path.startswith(lists)}
    assert left == {"./opt/library/version", "./opt/tool/version"}


def test_a_package_that_is_not_the_locked_one_is_not_installed(machine: Machine) -> None:
    assert machine.install(LIBRARY, TOOL, spoil="tool") != 0
    assert "a package is not the one that is locked" in machine.output
    assert machine.installed == {}


def test_a_package_that_lacks_another_fails_the_build(machine: Machine) -> None:
    assert machine.install(TOOL) != 0
    assert "library" in machine.output


def test_a_package_of_the_base_goes_for_one_that_takes_its_place(machine: Machine) -> None:
    machine.has = (OLD,)
    assert machine.install(RIVAL, removed=("old",)) == 0, machine.output
    assert machine.installed == {"rival": "1.0"}

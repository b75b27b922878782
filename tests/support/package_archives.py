"""Small signed archives of packages, made by the distributions' own tools: Debian's form and rpm's.

Both have the same face, so that what holds of one is asked of the other.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from slipway.inventory.dpkg_status import short_status
from slipway.matrix import Archive
from slipway.records import PackageDatabase

_FIRST = 1_600_000_000
"""A time, in seconds, before any edition of an archive."""


def run(*command: str | Path, folder: Path | None = None, home: Path | None = None) -> str:
    """What a tool prints; it must succeed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **({"GNUPGHOME": str(home)} if home else {}), "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@functools.cache
def signing_key(home: Path) -> str:
    """A new key in a folder of its own; gives its public half, armoured."""
    home.mkdir(mode=0o700, parents=True)
    quick = ("--quick-gen-key", "Test <test@example.invalid>", "rsa2048", "sign", "never")
    run("gpg", "--batch", "--passphrase", "", *quick, home=home)
    return run("gpg", "--armor", "--export", home=home)


@dataclass(frozen=True)
class Package:
    """What a package says of itself; relations are in the words of its own form."""

    name: str
    version: str
    depends: str = ""
    recommends: str = ""
    provides: str = ""
    replaces: str = ""  # what goes where this comes


@dataclass
class PackageArchive:
    """An archive below a folder, and bases that some packages are installed in."""

    folder: Path
    kind: Literal["apt", "dnf"]
    packages: list[Package] = field(default_factory=list)
    key: Path = field(init=False)
    editions: int = 0  # that were published

    def __post_init__(self) -> None:
        """It has a key of its own."""
        self.key = self.folder.parent / f"{self.folder.name}-key"

    @property
    def archive(self) -> Archive:
        """As versions.yaml would name it."""
        suites = ("stable",) if self.kind == "apt" else (".",)
        components = ("main",) if self.kind == "apt" else ()
        system = {"here": suites}
        return Archive("own", self.kind, "own.asc", system, components, distribution=True)

    def version(self, text: str) -> str:
        """A version as the package manager tells it."""
        return text if self.kind == "apt" else f"{text}-1"

    def publish(self, *packages: Package, key: Path | None = None, signed: bool = True) -> None:
        """Have exactly these packages, signed by the archive's key or another."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        home = key or self.key
        signing_key(home)
        if self.kind == "apt":
            self._publish_debs(packages, home, signed=signed)
        else:
            for package in packages:
                path = make_rpm(package, self.folder / "packages")
                if signed:
                    name = ("--define", "_gpg_name Test", "--define", "__gpg /usr/bin/gpg")
                    run("rpmsign", "--addsign", *name, path, home=home)
            run("createrepo_c", "--quiet", self.folder)

    def database(self, *packages: Package) -> PackageDatabase:
        """What is installed where these packages are, as it is read from an image's layers."""
        if self.kind == "apt":
            stanzas = [
                f"{_control(package)}Status: install ok installed\nDescription: short\n long\n"
                for package in packages
            ]
            return PackageDatabase("dpkg", short_status("\n".join(stanzas)).encode())
        root = self.folder.parent / "installed"
        shutil.rmtree(root, ignore_errors=True)
        place = "usr/lib/sysimage/rpm"
        base = ("rpm", "--root", root, "--define", f"_dbpath /{place}")
        run(*base, "--initdb")
        files = [make_rpm(package, root / "packages") for package in packages]
        if files:
            run(*base, "--install", "--justdb", "--nodeps", "--nosignature", *files)
        log = root / place / "rpmdb.sqlite-wal"
        content = (root / place / "rpmdb.sqlite").read_bytes()
        return PackageDatabase("rpm", content, log.read_bytes() if log.is_file() else b"")

    def _publish_debs(self, packages: Sequence[Package], home: Path, *, signed: bool) -> None:
        stanzas = []
        for package in packages:
            plain = package.version.partition(":")[2] or package.version
            path = self.folder / "pool" / f"{package.name}_{plain}_all.deb"
            content = make_deb(package, path).read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            stanzas.append(
                f"{_control(package)}Filename: pool/{path.name}\nSize: {len(content)}\n"
                f"SHA256: {digest}\n"
            )
        listed = "\n".join(stanzas).encode()
        suite = self.folder / "dists" / "stable"
        lists = suite / "main" / "binary-amd64" / "Packages"
        lists.parent.mkdir(parents=True)
        lists.write_bytes(listed)
        release = (
            "Origin: Own\nSuite: stable\nCodename: stable\nArchitectures: amd64\n"
            "Components: main\nDate: Sat, 01 Jan 2022 00:00:00 UTC\nSHA256:\n"
            f" {hashlib.sha256(listed).hexdigest()} {len(listed)} main/binary-amd64/Packages\n"
        )
        (suite / "Release").write_text(release)
        if signed:
            text = ("--batch", "--clearsign", "--output", suite / "InRelease", suite / "Release")
            run("gpg", *text, home=home)
        # apt asks for what is newer than it has, in whole seconds: each edition is later by some.
        self.editions += 1
        for path in suite.rglob("*"):
            os.utime(path, (_FIRST + 10 * self.editions,) * 2)


def make_rpm(package: Package, folder: Path) -> Path:
    """A package with one file, below `folder`."""
    epoch, _, version = package.version.rpartition(":")
    relations = {
        "Epoch": epoch,
        "Requires": package.depends,
        "Recommends": package.recommends,
        "Provides": package.provides,
        "Obsoletes": package.replaces,
    }
    lines = "".join(f"{key}: {value}\n" for key, value in relations.items() if value)
    work = folder.parent / "rpmbuild"
    work.mkdir(parents=True, exist_ok=True)
    spec = work / f"{package.name}.spec"
    spec.write_text(
        f"Name: {package.name}\nVersion: {version}\nRelease: 1\nSummary: a test\nLicense: MIT\n"
        f"BuildArch: noarch\n{lines}%description\na test\n%install\n"
        f"mkdir -p %{{buildroot}}/opt/{package.name}\n"
        f"echo {version} > %{{buildroot}}/opt/{package.name}/version\n"
        f"%files\n/opt/{package.name}\n"
    )
    places = ("--define", f"_topdir {work}", "--define", f"_rpmdir {folder}")
    run("rpmbuild", "-bb", "--quiet", *places, spec)
    return folder / "noarch" / f"{package.name}-{version}-1.noarch.rpm"


def make_deb(package: Package, path: Path) -> Path:
    """A package with one file."""
    tree = path.with_suffix(".tree")
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(f"{_control(package)}Description: a test\n")
    (tree / "opt" / package.name).mkdir(parents=True)
    (tree / "opt" / package.name / "version").write_text(package.version)
    run("dpkg-deb", "--root-owner-group", "--build", tree, path)
    shutil.rmtree(tree)
    return path


def _control(package: Package) -> str:
    relations = {
        "Depends": package.depends,
        "Recommends": package.recommends,
        "Provides": package.provides,
        "Conflicts": package.replaces,
        "Replaces": package.replaces,
    }
    lines = "".join(f"{key}: {value}\n" for key, value in relations.items() if value)
    return (
        f"Package: {package.name}\nVersion: {package.version}\nArchitecture: all\n"
        f"Maintainer: Test <test@example.invalid>\n{lines}"
    )

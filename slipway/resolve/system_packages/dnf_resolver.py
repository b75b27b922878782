"""dnf as a resolver: its own rules, in a root that holds another machine's rpm database alone.

dnf(8) with an install root, a configuration and repositories of its own downloads what it would
install, and checks each package's signature by the key that is named for its repository
(`gpgcheck`), or by one that the base itself trusts. Nothing is installed.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from slipway.core import Project, SlipwayError, sha256_file
from slipway.records import MACHINES, PackageFile
from slipway.resolve.system_packages.resolution import (
    ArchiveAddress,
    PackageAnswer,
    PackageQuestion,
    addresses_of,
    last_lines,
    path_below,
    require_program,
    run_program,
)

_CONFIGURATION = """\
[main]
gpgcheck=True
localpkg_gpgcheck=True
repo_gpgcheck=False
install_weak_deps=False
keepcache=False
best=True
plugins=False
"""
_DATABASE = "usr/lib/sysimage/rpm"
_QUERY = r"%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\t%{ARCH}\t%{SOURCERPM}\n"
_REFUSED = ("Error:", "No match", "Problem", "- nothing provides", "- package", "- cannot")


def resolve_with_dnf(project: Project, question: PackageQuestion) -> PackageAnswer:
    """The packages that dnf would install on what is there, without weak dependencies.

    Raises SlipwayError: no dnf here, a repository that cannot be had, a package whose signature
    does not hold, one that no repository has, a conflict.
    """
    for program in ("dnf", "rpm"):
        require_program(program, "dnf rpm", question.on)
    addresses = addresses_of(project, question.archives)
    with tempfile.TemporaryDirectory(prefix="slipway-dnf-") as folder:
        dnf = _Dnf(Path(folder), question)
        dnf.write_repositories(addresses)
        return dnf.answer(addresses)


class _Dnf:
    """dnf in a folder."""

    def __init__(self, folder: Path, question: PackageQuestion) -> None:
        self._folder, self._question = folder, question
        self._root, self._files = folder / "root", folder / "files"
        database = self._root / _DATABASE
        database.mkdir(parents=True)
        self._files.mkdir()
        (database / "rpmdb.sqlite").write_bytes(question.database.content)
        if question.database.log:
            (database / "rpmdb.sqlite-wal").write_bytes(question.database.log)
        # Where it was before rpm 4.17, and is still looked for.
        (self._root / "var" / "lib").mkdir(parents=True)
        (self._root / "var" / "lib" / "rpm").symlink_to(f"../../{_DATABASE}")
        (folder / "dnf.conf").write_text(_CONFIGURATION)
        # Hosts of other distributions keep rpm's database elsewhere: Debian's in ~/.rpmdb.
        (folder / ".rpmmacros").write_text(f"%_dbpath /{_DATABASE}\n%_db_backend sqlite\n")
        self._environment = {"HOME": str(folder)}
        for name in ("repositories", "log", "cache", "state"):
            (folder / name).mkdir()
        if question.below:
            files = [str(path) for path in question.below]
            self._rpm("--upgrade", "--justdb", "--nodeps", "--noscripts", "--notriggers", *files)
        listed = self._rpm("--query", "--all", "--queryformat", _QUERY).splitlines()
        # (name, architecture) -> version
        self._installed = {(p[0], p[2]): p[1].removeprefix("0:") for p in map(_fields, listed)}

    def write_repositories(self, addresses: Sequence[ArchiveAddress]) -> None:
        """One for each folder of an archive."""
        for address in addresses:
            archive = address.archive
            for index, suite in enumerate(archive.suites[self._question.system]):
                url = address.url if suite == "." else f"{address.url}{suite.strip('/')}/"
                name = f"{archive.name}-{index}"
                text = f"[{name}]\nname={name}\nbaseurl={url}\nenabled=1\ngpgcheck=1\n"
                text += f"gpgkey={address.key.as_uri()}\nskip_if_unavailable=0\n"
                (self._folder / "repositories" / f"{name}.repo").write_text(text)

    def answer(self, addresses: Sequence[ArchiveAddress]) -> PackageAnswer:
        """What dnf has downloaded, with what it takes the place of."""
        names = [name.replace("=", "-", 1) for name in self._question.names]
        done = self._dnf("install", "--downloadonly", f"--destdir={self._files}", *names)
        if done.returncode != 0:
            raise self._refusal(last_lines(done, _REFUSED), done.stdout + done.stderr)
        packages, moved = [], dict[str, str]()
        paths = sorted(self._files.rglob("*.rpm"))
        for path in paths:
            package = self._package(path, addresses)
            old = self._installed.get((package.name, package.architecture))
            if old is not None:
                moved[package.name] = f"{old} -> {package.version}"
            packages.append(package)
        return PackageAnswer(tuple(packages), moved, self._obsoleted(paths, moved))

    def _package(self, path: Path, addresses: Sequence[ArchiveAddress]) -> PackageFile:
        name, version, architecture, source = _fields(self._query(path, _QUERY).strip())
        version = version.removeprefix("0:")
        exact = f"{name}-{version}.{architecture}"
        done = self._dnf("repoquery", "--quiet", "--location", exact)
        urls = [url for url in done.stdout.split() if url.rpartition("/")[2] == path.name]
        if not urls:
            raise SlipwayError(f"dnf names no place of {exact}: {last_lines(done)}")
        archive, below = path_below(addresses, urls[0])
        parts = source.removesuffix(".src.rpm").rsplit("-", 2)
        epoch = version.partition(":")[0] + ":" if ":" in version else ""
        whole = len(parts) == 3
        return PackageFile(
            name,
            version,
            architecture,
            parts[0] if whole else name,
            f"{epoch}{parts[1]}-{parts[2]}" if whole else version,
            archive,
            below,
            sha256_file(path),
            path.stat().st_size,
        )

    def _obsoleted(self, paths: Sequence[Path], moved: Mapping[str, str]) -> tuple[str, ...]:
        """Packages of the base whose place a new one takes: rpm removes them by itself."""
        names = {name for name, _ in self._installed} - moved.keys()
        obsolete = {
            words[0]
            for path in paths
            for line in self._query(path, r"[%{OBSOLETENAME}\n]").splitlines()
            if (words := line.split())
        }
        return tuple(sorted(names & obsolete))

    def _query(self, path: Path, form: str) -> str:
        return self._rpm("--query", "--package", "--queryformat", form, str(path))

    def _rpm(self, *arguments: str) -> str:
        command = ["rpm", "--root", str(self._root), *arguments]
        done = run_program(command, self._environment)
        if done.returncode != 0:
            raise SlipwayError(f"rpm cannot read what was found: {last_lines(done)}")
        return done.stdout

    def _dnf(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        folder = self._folder
        command = ["dnf", f"--config={folder / 'dnf.conf'}", f"--installroot={self._root}"]
        command += [f"--setopt=reposdir={folder / 'repositories'}", "--setopt=varsdir="]
        command += [f"--setopt=cachedir={folder / 'cache'}", f"--setopt=logdir={folder / 'log'}"]
        command += [f"--forcearch={MACHINES[self._question.architecture]}", "--releasever=0"]
        command += [f"--setopt=persistdir={folder / 'state'}", "--assumeyes", verb, *arguments]
        return run_program(command, self._environment)

    def _refusal(self, said: str, output: str) -> SlipwayError:
        question = self._question
        names = ", ".join(archive.name for archive in question.archives)
        if "GPG" in output or "not signed" in output or "NOKEY" in output:
            return SlipwayError(
                f"the signature of a package of {names} does not hold: {said}",
                cure="Nothing is taken from there. Correct `key` of the archive in versions.yaml "
                "or its address on this machine, or ask who runs it.",
            )
        if "Unable to find a match" in output or "No match for argument" in output:
            return SlipwayError(
                f"{names} have not all of {', '.join(question.names)} for {question.system} "
                f"{question.architecture}: {said}",
                cure="Correct the name or the version under `system` in versions.yaml, or name "
                "the archive that has it under `archives` there; archives keep the newest "
                "versions, and drop others.",
            )
        if "Failed to download metadata" in output or "Cannot download" in output:
            return SlipwayError(
                f"the lists of {names} cannot be had: {said}",
                cure="Check the network, the proxy and the addresses of these archives.",
            )
        return SlipwayError(
            f"{', '.join(question.names)} cannot be installed on {question.on}: {said}",
            cure="Ask for other packages or versions, or take a newer digest of the base.",
        )


def _fields(line: str) -> tuple[str, str, str, str]:
    name, version, architecture, source = line.split("\t")
    return name, version, architecture, source

"""apt as a resolver: its own rules, for another machine's list of packages.

It runs with a configuration of its own (apt.conf(5), APT_CONFIG): lists, sources, keys and dpkg's
status are files of a folder, and of the host it has nothing but how to get through to archives.
Signatures are apt's to check: each archive's Release by the one key that is named for it, and the
lists of packages, with their sha256, by that Release.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from slipway.core import Project, SlipwayError
from slipway.records import PackageFile
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
from slipway.wheels import host_acquire_settings

_INSTALL = re.compile(
    r"Inst (?P<name>\S+) (?:\[(?P<old>[^\]]+)\] )?\((?P<version>\S+) .*\[(?P<arch>\w+)\]\)"
)
_REMOVE = re.compile(r"(?:Remv|Purg) (?P<name>\S+)")
_URI = re.compile(r"'(?P<url>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")
_FIELD = re.compile(r"^(Package|Version|Source): (.+)$", re.MULTILINE)
# Whatever the host allows itself: an archive whose signature does not hold is not read.
_STRICT = """\
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
"""


def resolve_with_apt(project: Project, question: PackageQuestion) -> PackageAnswer:
    """The packages that apt would install on what is there, without recommended ones.

    Raises SlipwayError: no apt here, an archive that cannot be had or whose signature does not
    hold, a package or version that no archive has, a conflict.
    """
    require_program("apt-get", "apt", question.on)
    addresses = addresses_of(project, question.archives)
    sources = _sources(question, addresses)
    name = hashlib.sha256(f"{question.architecture}\n{sources}".encode()).hexdigest()[:16]
    lists = project.cache / "apt-lists" / name
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="slipway-apt-") as folder:
        apt = _Apt(Path(folder), lists, question, sources)
        apt.update()
        return apt.answer(addresses)


def _sources(question: PackageQuestion, addresses: Sequence[ArchiveAddress]) -> str:
    stanzas = []
    for address in addresses:
        archive = address.archive
        lines = [
            "Types: deb",
            f"URIs: {address.url}",
            f"Suites: {' '.join(archive.suites[question.system])}",
            f"Architectures: {question.architecture}",
            f"Signed-By: {address.key}",
        ]
        if archive.components:
            lines.append(f"Components: {' '.join(archive.components)}")
        stanzas.append("\n".join(lines) + "\n")
    return "\n".join(stanzas)


class _Apt:
    """apt in a folder."""

    def __init__(self, folder: Path, lists: Path, question: PackageQuestion, sources: str) -> None:
        self._question = question
        (folder / "cache" / "archives" / "partial").mkdir(parents=True)
        (folder / "status").write_bytes(_status(question))
        (folder / "packages.sources").write_text(sources)
        settings = folder / "apt.conf"
        settings.write_text(
            host_acquire_settings()
            + _STRICT
            + f"""\
Dir "{folder}";
Dir::Etc "{folder}";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{folder}/packages.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::Etc::netrc "/etc/apt/auth.conf";
Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
Dir::State "{folder}";
Dir::State::lists "{lists}";
Dir::State::status "{folder}/status";
Dir::State::extended_states "{folder}/extended_states";
Dir::Cache "{folder}/cache";
APT::Architecture "{question.architecture}";
APT::Architectures {{ "{question.architecture}"; }};
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::ForceHash "sha256";
"""
        )
        self._environment = {"APT_CONFIG": str(settings)}

    def update(self) -> None:
        """Bring the lists up to date; only what has changed is fetched."""
        done = run_program(["apt-get", "update", "--quiet"], self._environment)
        unsigned = re.search(
            "is not signed|NO_PUBKEY|BADSIG|EXPKEYSIG|signatures were invalid", done.stderr
        )
        if done.returncode != 0 or unsigned:
            names = ", ".join(archive.name for archive in self._question.archives)
            if unsigned:
                raise SlipwayError(
                    f"the signature of an archive of {names} does not hold: "
                    f"{last_lines(done, ('E:', 'W:'))}",
                    cure="Nothing is taken from it. Correct `key` of the archive in versions.yaml "
                    "or its address on this machine, or ask who runs it.",
                )
            raise SlipwayError(
                f"the lists of {names} cannot be had: {last_lines(done, ('E:', 'W:', 'Err:'))}",
                cure="Check the network, the proxy and the addresses of these archives.",
            )

    def answer(self, addresses: Sequence[ArchiveAddress]) -> PackageAnswer:
        """The plan of apt, with the file of each package."""
        plan = self._install("--simulate")
        listed = self._install("--print-uris", "--quiet=2")
        files = {unquote(match["file"]): match for match in _URI.finditer(listed)}
        installs = [*_INSTALL.finditer(plan)]
        origins = self._origins(installs)
        packages = []
        for match in installs:
            name, version, architecture = match["name"], match["version"], match["arch"]
            file = files.get(f"{name}_{version}_{architecture}.deb")
            if file is None:
                raise SlipwayError(f"apt names no file with a sha256 for {name} {version}")
            archive, path = path_below(addresses, file["url"])
            source, source_version = origins[name, version]
            packages.append(
                PackageFile(
                    name,
                    version,
                    architecture,
                    source,
                    source_version,
                    archive,
                    path,
                    file["sha256"],
                    int(file["size"]),
                )
            )
        return PackageAnswer(
            tuple(packages),
            {m["name"]: f"{m['old']} -> {m['version']}" for m in installs if m["old"]},
            tuple(match["name"] for match in _REMOVE.finditer(plan)),
        )

    def _install(self, *options: str) -> str:
        command = ["apt-get", "install", "--yes", *options, *self._question.names]
        done = run_program(command, self._environment)
        if done.returncode != 0:
            raise self._refusal(last_lines(done, ("E:",)), done.stdout)
        return done.stdout

    def _refusal(self, said: str, output: str) -> SlipwayError:
        question = self._question
        names = ", ".join(archive.name for archive in question.archives)
        if missing := re.findall(r"Version '([^']+)' for '([^']+)' was not found", said):
            asked = ", ".join(f"{name} {version}" for version, name in missing)
            there = "; ".join(f"{name} {self._versions(name)}" for _, name in missing)
            return SlipwayError(
                f"{names} have no {asked}: an archive keeps the newest versions, and drops others",
                cure=f"Take one that is there ({there}), or name none in versions.yaml; a mirror "
                "that keeps old versions can be named in SLIPWAY_ARCHIVE_NAME.",
            )
        if missing := re.findall(r"Unable to locate package (\S+)", said):
            return SlipwayError(
                f"{names} have no package {', '.join(missing)} for {question.system} "
                f"{question.architecture}",
                cure="Correct the name under `system` in versions.yaml, or name the archive that "
                "has it under `archives` there.",
            )
        unmet = re.findall(r"^ (\S+ : .+)$", output, re.MULTILINE)
        return SlipwayError(
            f"{', '.join(question.names)} cannot be installed on {question.on}: "
            f"{'; '.join(unmet) or said}",
            cure="Ask for other packages or versions, or take a newer digest of the base.",
        )

    def _versions(self, name: str) -> str:
        done = run_program(["apt-cache", "madison", name], self._environment)
        versions = [line.split("|")[1].strip() for line in done.stdout.splitlines() if "|" in line]
        return ", ".join(dict.fromkeys(versions)) or "in no version"

    def _origins(
        self, installs: Sequence[re.Match[str]]
    ) -> Mapping[tuple[str, str], tuple[str, str]]:
        """(package, version) -> what it was built from: "Source: gcc-12 (12.2.0-14)"."""
        if not installs:
            return {}
        asked = [f"{match['name']}={match['version']}" for match in installs]
        done = run_program(["apt-cache", "show", *asked], self._environment)
        origins = {}
        for stanza in done.stdout.split("\n\n"):
            fields: dict[str, str] = dict(_FIELD.findall(stanza))
            if "Package" in fields:
                name, _, version = fields.get("Source", fields["Package"]).partition(" ")
                key = (fields["Package"], fields["Version"])
                origins[key] = (name, version.strip("() ") or fields["Version"])
        return origins


def _status(question: PackageQuestion) -> bytes:
    """dpkg's list, with what the add-ons below this one bring: a package has its own stanza."""
    stanzas = [question.database.content.decode("utf-8", "replace").strip()]
    for path in question.below:
        done = run_program(["dpkg-deb", "--field", str(path)], {})
        if done.returncode != 0:
            raise SlipwayError(
                f"this is no package of Debian's form: {last_lines(done)}", where=str(path)
            )
        stanzas.append(f"{done.stdout.strip()}\nStatus: install ok installed")
    return ("\n\n".join(stanzas) + "\n").encode()

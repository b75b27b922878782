"""The host's own apt settings, for making a Debian root file system the way the host would."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, Amazon Linux
)


def is_debian(release: str, codename: str) -> bool:
    """Whether /etc/os-release is Debian's of this codename."""
    values = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', release, re.MULTILINE))
    return values.get("ID") == "debian" and values.get("VERSION_CODENAME") == codename


def host_sources(codename: str) -> tuple[str, ...]:
    """Debian's own entries in the host's apt sources, as they are written there.

    Empty where the host is another distribution or release: its mirrors do not have the packages.
    Entries for anything but Debian's own suites (docker, node ...) are left out.
    """
    os_release = Path("/etc/os-release")
    if not os_release.exists() or not is_debian(os_release.read_text(), codename):
        return ()
    listed = _said(
        [
            "apt-get",
            "indextargets",
            "--no-release-info",  # also for entries that were never updated from
            "--format",
            "$(SOURCESENTRY) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ]
    )
    return source_entries(debian_places(listed, codename))


def debian_places(listed: str, codename: str) -> tuple[tuple[Path, int], ...]:
    """(file, number of the entry) of Debian's suites in `apt-get indextargets`."""
    suites = {codename, f"{codename}-updates", f"{codename}-security"}
    lines = []
    for line in listed.splitlines():
        source, release, component = line.split()
        file, _, number = source.rpartition(":")
        if release in suites and component == "main":
            lines.append((Path(file), int(number)))
    return tuple(dict.fromkeys(lines))


def source_entries(places: Iterable[tuple[Path, int]]) -> tuple[str, ...]:
    """The text of apt source entries: a line of a .list file, a stanza of a .sources file."""
    entries = []
    for file, number in places:
        text = file.read_text("utf-8")
        if file.suffix == ".sources":
            stanzas = [part for part in re.split(r"\n\s*\n", _uncommented(text)) if part.strip()]
            entries.append(stanzas[number - 1].strip() + "\n")
        else:
            entries.append(text.splitlines()[number - 1].strip() + "\n")
    return tuple(entries)


def split_entries(texts: Sequence[str]) -> tuple[str, str]:
    """Source entries as the content of one .list file and of one .sources file."""
    listed = [text for text in texts if text.split()[0] in ("deb", "deb-src")]
    stanzas = [text for text in texts if text not in listed]
    return "".join(listed), "\n".join(stanzas)


def ca_bundle(environ: Mapping[str, str]) -> Path | None:
    """The host's certificate authorities, with those of its proxy; None where there are none."""
    named = [environ[key] for key in ("SSL_CERT_FILE", "CURL_CA_BUNDLE") if environ.get(key)]
    for path in (*named, *_CA_BUNDLES):
        if Path(path).is_file():
            return Path(path)
    return None


def proxy_settings(environ: Mapping[str, str]) -> str:
    """The proxies of the environment as apt settings; apt in a build does not see the variables."""
    lines = []
    for scheme in ("http", "https"):
        proxy = environ.get(f"{scheme}_proxy") or environ.get(f"{scheme.upper()}_PROXY")
        if proxy:
            lines.append(f'Acquire::{scheme}::Proxy "{proxy}";\n')
    return "".join(lines)


def _uncommented(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def _said(command: list[str]) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout

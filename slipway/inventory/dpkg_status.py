"""Debian's list of packages: stanzas of `Field: value` lines (deb822; dpkg's /var/lib/dpkg/status).

Distroless images have one file a package, in status.d, of the same form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from slipway.records import SystemPackage

_NAMES = """
    Package Status Version Architecture Source Essential Protected Multi-Arch
    Pre-Depends Depends Recommends Provides Conflicts Breaks Replaces
"""
_FIELDS = frozenset(_NAMES.split())
"""What says which packages are there, and what they need of others (deb-control(5))."""


def short_status(text: str) -> str:
    """The stanzas with the fields that say what is installed and what it needs, and no others."""
    stanzas = []
    for stanza in text.split("\n\n"):
        lines, kept = [], False
        for line in stanza.splitlines():
            # A line that begins with a blank goes on with the field above it.
            kept = kept if line.startswith((" ", "\t")) else line.partition(":")[0] in _FIELDS
            if kept:
                lines.append(line)
        if lines:
            stanzas.append("\n".join(lines))
    return "\n\n".join(stanzas)


def dpkg_packages(texts: Iterable[str]) -> tuple[SystemPackage, ...]:
    """The installed packages, sorted; one whose files are gone (only configured) is none."""
    return tuple(sorted({package for text in texts for package in _packages(text)}))


def _packages(text: str) -> Iterator[SystemPackage]:
    for stanza in text.split("\n\n"):
        pairs = (line.partition(":") for line in stanza.splitlines())
        fields = {name: value.strip() for name, _, value in pairs}
        # "want flag status"; files in status.d say nothing of it.
        installed = fields.get("Status", "install ok installed").endswith(" installed")
        if not (installed and fields.get("Package") and fields.get("Version")):
            continue
        # "gcc-12 (12.2.0-14)": a source of another version than the package's.
        source, _, version = fields.get("Source", fields["Package"]).partition(" ")
        yield SystemPackage(
            name=fields["Package"],
            version=fields["Version"],
            architecture=fields.get("Architecture", ""),
            source=source,
            source_version=version.strip("() ") or fields["Version"],
        )

"""The Python distributions of an image, from the files that installers leave of each.

packaging.python.org, "Recording installed projects": a folder NAME-VERSION.dist-info with METADATA
and RECORD; older installers leave an .egg-info, a file or a folder with PKG-INFO.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from email.parser import Parser
from pathlib import PurePosixPath
from typing import Any

from packaging.utils import canonicalize_name

from slipway.core import SlipwayError
from slipway.inventory.metadata_files import MetadataFiles


@dataclass(frozen=True)
class PythonDistribution:
    """A Python distribution of an image; `record` are the lines of its RECORD, where it has one."""

    name: str
    version: str
    requires: tuple[str, ...]
    site: str = ""  # the folder that paths of the record begin in
    record: str | None = field(default=None, repr=False)

    @property
    def files(self) -> tuple[str, ...] | None:
        """From the root, without a slash before. Few are asked for theirs, and a base has tens of
        thousands."""
        return None if self.record is None else tuple(_recorded(self.record, self.site))


def check_environment(texts: Mapping[str, str], prefix: PurePosixPath) -> None:
    """Raises SlipwayError for a virtual environment that sees another interpreter's packages."""
    environment = texts.get(f"{str(prefix)[1:]}/pyvenv.cfg", "").lower()
    if re.search(r"include-system-site-packages\s*=\s*true", environment):
        raise SlipwayError(
            f"the virtual environment {prefix} of the base sees the packages of another "
            "interpreter, which cannot be told without running it",
            cure="Build this image with an engine (without --no-engine).",
        )


def distributions_in(
    texts: Mapping[str, str], site_packages: Iterable[str]
) -> dict[str, PythonDistribution]:
    """The distributions in folders of packages, by canonical name. The first of a name wins."""
    distributions: dict[str, PythonDistribution] = {}
    described = sorted(path for path in texts if _DESCRIPTION.search(path))
    for site in site_packages:
        for path in described:
            if not path.startswith(f"{site}/") or "/" in _shortened(path, site):
                continue
            head = Parser().parsestr(texts[path], headersonly=True)
            folder, name = posixpath.split(path)
            record = texts.get(f"{folder}/RECORD") if name == "METADATA" else None
            if head.get("Name") and head.get("Version"):
                distributions.setdefault(
                    str(canonicalize_name(str(head["Name"]))),
                    PythonDistribution(
                        str(head["Name"]),
                        str(head["Version"]),
                        tuple(map(str, head.get_all("Requires-Dist") or ())),
                        site,
                        record,
                    ),
                )
    return distributions


_DESCRIPTION = re.compile(r"\.(?:dist-info/METADATA|egg-info(?:/PKG-INFO)?)$")


def _shortened(path: str, site: str) -> str:
    """The entry of the folder of packages that a describing file belongs to."""
    return path[len(site) + 1 :].removesuffix("/METADATA").removesuffix("/PKG-INFO")


def _recorded(record: str, site: str) -> Iterator[str]:
    for line in record.splitlines():
        path = line[1:-1].replace('""', '"') if line.startswith('"') else line
        if path:
            yield posixpath.normpath(posixpath.join("/", site, path))[1:]


def find_site_packages(
    files: MetadataFiles, config: Mapping[str, Any], interpreter: str = ""
) -> tuple[str, ...]:
    """The folders of packages of an image's interpreter, in the order in which it looks there.

    Without an `interpreter` that of the image's PATH. None where there is no such interpreter, or
    where it has no packages.
    """
    pairs = (str(entry).partition("=") for entry in config.get("Env") or ())
    path = {name: value for name, _, value in pairs}.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    programs = [interpreter] if interpreter else []
    programs += [
        f"{folder}/{name}"
        for folder in path.split(":")
        for name in ("python", "python3")
        if not interpreter
    ]
    sites = {site for path in files.texts if (site := _site(path))}
    for program in programs:
        if program[1:] in files.kinds and (own := _sites_of(files, PurePosixPath(program), sites)):
            return own
    return ()


def _site(path: str) -> str:
    """The folder of packages that a describing file lies in."""
    match = re.match(r"(.*/(?:site|dist)-packages)/[^/]+\.(?:dist|egg)-info", path)
    return match[1] if match else ""


def _sites_of(
    files: MetadataFiles, program: PurePosixPath, sites: Iterable[str]
) -> tuple[str, ...]:
    """Which of these folders an interpreter looks into; `python3.12` beside it tells its version.

    The interpreter of Debian and Ubuntu has two, and those of /usr/local come first.
    """
    folder = str(program.parent)[1:]
    prefix = posixpath.dirname(folder)
    libraries = {posixpath.join(prefix, name) for name in ("lib", "lib64")}
    if prefix in ("", "usr"):
        libraries |= {"usr/lib", "usr/local/lib"}
    below = {
        site: posixpath.basename(posixpath.dirname(site))
        for site in sites
        if posixpath.dirname(posixpath.dirname(site)) in libraries
    }
    versions = {name for name in below.values() if f"{folder}/{name}" in files.kinds}
    own = [site for site, name in below.items() if name in versions or not versions]
    return tuple(sorted(own, key=lambda site: (not site.startswith("usr/local/"), site)))

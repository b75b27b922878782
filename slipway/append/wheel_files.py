"""A wheel as the files that `pip install --no-compile` leaves, without an interpreter to run it.

The binary distribution format (packaging.python.org/specifications) leaves open how RECORD is
ordered and what a script looks like. The engine's builds run pip, so what pip does is the rule
here: pip/_internal/operations/install/wheel.py and distlib's scripts of pip 26. A test holds this
module to the pinned pip, file by file.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import posixpath
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.parser import Parser
from importlib import metadata
from pathlib import Path, PurePosixPath

from slipway.append.layer_files import LayerFile, WheelMember
from slipway.append.python_layout import PythonLayout
from slipway.core import SlipwayError, recall_sha256

_SCRIPT = """\
import sys
from {module} import {imported}
if __name__ == '__main__':
    sys.argv[0] = sys.argv[0].removesuffix('.exe')
    sys.exit({function}())
"""
_ENTRY_POINT = re.compile(r"(?P<module>[\w.]+):(?P<function>[\w.]+)\s*(?:\[[^\]]*\])?")
_SCRIPT_NAME = re.compile(r"[^\[\s/=][^\s/=]*")
_WRAPPER = re.compile(r"(?P<name>.*?)(?:\.exe|-script\.py|\.pya)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class InstalledWheel:
    """A wheel laid out for one interpreter. `requires` are its requirements, markers and all."""

    name: str  # as the lock has it
    version: str
    files: tuple[LayerFile, ...]
    requires: tuple[str, ...]
    size: int  # bytes of the wheel
    sha256: str  # of the wheel, in hex


class _WheelMetadata(metadata.Distribution):
    """The .dist-info of a wheel, read the way pip reads it."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self._archive = archive
        self._folder = folder

    def read_text(self, filename: str | os.PathLike[str]) -> str | None:
        try:
            return self._archive.read(f"{self._folder}/{filename}").decode()
        except KeyError:
            return None

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        return Path(path)


@dataclass(frozen=True)
class _Place:
    """Where one member goes."""

    member: str
    path: str  # absolute
    script: bool = False


def install_wheel(wheel: Path, name: str, layout: PythonLayout) -> InstalledWheel:
    """What pip would leave of a wheel that was asked for by name. Raises SlipwayError.

    `name` is the distribution as the requirement spells it: headers lie in a folder of that name.
    """
    digest = recall_sha256(wheel)
    try:
        with zipfile.ZipFile(wheel) as archive:
            return _Installation(archive, wheel, digest, name, layout).result()
    except (zipfile.BadZipFile, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise SlipwayError(f"{wheel.name} is not a wheel: {error}") from error


class _Installation:
    """One wheel on its way."""

    def __init__(
        self, archive: zipfile.ZipFile, wheel: Path, digest: str, name: str, layout: PythonLayout
    ) -> None:
        self.archive, self.wheel, self.digest = archive, wheel, digest
        self.name, self.layout = name, layout
        self.root = f"{layout.site_packages}/"
        self.folder = self._info_folder()
        self.metadata = _WheelMetadata(archive, self.folder)
        self.files: dict[str, LayerFile] = {}
        self.moved: dict[str, str] = {}  # path in the wheel -> path in RECORD
        self.changed: set[str] = set()  # paths in RECORD

    def result(self) -> InstalledWheel:
        """Lay out members, scripts and pip's own notes, RECORD last."""
        console, gui = self._entry_points("console_scripts"), self._entry_points("gui_scripts")
        for member in self._places({*console, *gui}):
            self._add_member(member)
        generated = [
            *(self._add_script(*item) for item in versioned_scripts(console, self.layout.python)),
            *(self._add_script(*item) for item in gui.items()),
            self._add_note("INSTALLER", b"pip\n"),
            self._add_note("REQUESTED", b""),
        ]
        self._add_note("RECORD", self._record(generated))
        return InstalledWheel(
            name=self.name,
            version=self.metadata.version,
            files=tuple(file for _, file in sorted(self.files.items())),
            requires=tuple(self.metadata.requires or ()),
            size=self.wheel.stat().st_size,
            sha256=self.digest,
        )

    def _refuse(self, what: str) -> SlipwayError:
        return SlipwayError(f"{self.wheel.name} {what}", where=str(self.wheel))

    def _info_folder(self) -> str:
        tops = {name.partition("/")[0] for name in self.archive.namelist()}
        folders = [name for name in tops if name.endswith(".dist-info")]
        if len(folders) != 1:
            raise self._refuse(f"has {len(folders)} folders .dist-info")
        text = self.archive.read(f"{folders[0]}/WHEEL").decode()
        version = str(Parser().parsestr(text).get("Wheel-Version", ""))
        if version.partition(".")[0] != "1":
            raise self._refuse(f"is of wheel format {version or 'unknown'}, pip knows 1")
        return folders[0]

    def _entry_points(self, group: str) -> dict[str, str]:
        return {
            entry.name: entry.value for entry in self.metadata.entry_points if entry.group == group
        }

    def _places(self, wrapped: set[str]) -> list[_Place]:
        """Root first, then `.data`, scripts last: pip's order, which tells who wins a path."""
        root, data, scripts = [], [], []
        for member in self.archive.namelist():
            if member.endswith("/"):
                continue
            top, _, below = member.partition("/")
            if not top.endswith(".data"):
                root.append(self._place(member, self.layout.site_packages, member))
                continue
            key, _, path = below.partition("/")
            target = self.layout.scheme(self.name).get(key)
            if target is None or not path:
                raise self._refuse(f"has {member}, and pip knows no such scheme")
            if key != "scripts":
                data.append(self._place(member, target, path))
            elif _wrapped_name(posixpath.basename(path)) not in wrapped:
                scripts.append(self._place(member, target, path, script=True))
        return [*root, *data, *scripts]

    def _place(
        self, member: str, folder: PurePosixPath, path: str, *, script: bool = False
    ) -> _Place:
        normal = posixpath.normpath(path)
        if normal.startswith(("/", "../")) or normal in ("", ".", ".."):
            raise self._refuse(f"has {member}, which leads out of {folder}")
        return _Place(member, f"{folder}/{normal}", script)

    def _add_member(self, member: _Place) -> None:
        info = self.archive.getinfo(member.member)
        unix = info.external_attr >> 16
        mode = 0o755 if unix and stat.S_ISREG(unix) and unix & 0o111 else 0o644
        source: bytes | WheelMember = WheelMember(self.wheel, member.member, self.digest)
        size = info.file_size
        if member.script:
            fixed = self._fixed_script(member.member)
            if fixed is not None:
                source, size = fixed, len(fixed)
                self.changed.add(self._recorded(member.path))
        self.moved[member.member] = self._recorded(member.path)
        self._add(member.path, source, size, mode)

    def _fixed_script(self, member: str) -> bytes | None:
        """A script of the wheel with the interpreter's path, None where it names none."""
        with self.archive.open(member) as stream:
            if not stream.readline().startswith(b"#!python"):
                return None
            return f"#!{self.layout.interpreter}\n".encode() + stream.read()

    def _add_script(self, name: str, value: str) -> str:
        match = _ENTRY_POINT.fullmatch(value)
        if match is None or not _SCRIPT_NAME.fullmatch(name):
            raise self._refuse(f"has an entry point that is no script: {name} = {value}")
        function = match["function"]
        text = _SCRIPT.format(
            module=match["module"], imported=function.partition(".")[0], function=function
        )
        path = f"{self.layout.prefix}/bin/{name}"
        content = f"#!{self.layout.interpreter}\n{text}".encode()
        self._add(path, content, len(content), 0o755)
        return path

    def _add_note(self, name: str, content: bytes) -> str:
        path = f"{self.layout.site_packages}/{self.folder}/{name}"
        self._add(path, content, len(content), 0o644)
        return path

    def _add(self, path: str, source: bytes | WheelMember, size: int, mode: int) -> None:
        relative = path[1:]
        self.files[relative] = LayerFile(relative, source, size, mode)

    def _recorded(self, path: str) -> str:
        if path.startswith(self.root):  # nearly all: relpath() takes a third of a wheel's time
            return path.removeprefix(self.root)
        return posixpath.relpath(path, self.root)

    def _record(self, generated: Iterable[str]) -> bytes:
        """RECORD as pip writes it: the wheel's rows at their new paths, what pip made, sorted."""
        moved = dict(self.moved)
        rows = []
        text = self.archive.read(f"{self.folder}/RECORD").decode()
        for row in csv.reader(text.splitlines()):
            path = moved.pop(row[0], row[0]) if row else ""
            digest, size = [*row[1:3], "", ""][:2]
            if path in self.changed:
                digest, size = self._hashed(self.root + path)
            rows.append((path, digest, size))
        rows += [(self._recorded(path), *self._hashed(path)) for path in generated]
        rows += [(path, "", "") for path in moved.values()]
        text_out = io.StringIO(newline="")
        csv.writer(text_out).writerows(sorted(rows))
        return text_out.getvalue().encode()

    def _hashed(self, path: str) -> tuple[str, str]:
        content = self.files[posixpath.normpath(path)[1:]].source
        assert isinstance(content, bytes)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
        return f"sha256={digest.decode()}", str(len(content))


def versioned_scripts(console: Mapping[str, str], python: str) -> list[tuple[str, str]]:
    """The console scripts to make: pip's own get the names of this Python, whatever theirs are."""
    rest = dict(console)
    scripts = []
    names: dict[str, tuple[str, Callable[[str], object]]] = {
        "pip": (f"pip pip{python.partition('.')[0]} pip{python}", _is_versioned_pip),
        "easy_install": (f"easy_install easy_install-{python}", _is_versioned_easy_install),
    }
    for program, (versioned, replaced) in names.items():
        if value := rest.pop(program, None):
            scripts += [(name, value) for name in versioned.split()]
            rest = {name: other for name, other in rest.items() if not replaced(name)}
    return [*scripts, *rest.items()]


def _is_versioned_pip(name: str) -> bool:
    return re.match(r"pip(\d+(\.\d+)?)?$", name) is not None


def _is_versioned_easy_install(name: str) -> bool:
    return re.match(r"easy_install(-\d+\.\d+)?$", name) is not None


def _wrapped_name(name: str) -> str:
    """The entry point that a file of `.data/scripts` would be setuptools' wrapper of."""
    match = _WRAPPER.fullmatch(name)
    return match["name"] if match else name

"""A trace's files as paths of one image: its Pythons are looked for where its PATH leads.

A module is read as its bytecode where the image has that, else as its source: images with and
without bytecode serve each other's traces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from slipway.sqsh.start.start_trace import StartTrace, TouchedFile
from slipway.squashfs import DIR, CompiledLayer, HotFile, child_names, kind_at

_PREFIXES = ("usr", "usr/local", "opt/conda", "opt/venv")
_PYTHON = re.compile(rb"python(3\.\d{1,3})")
_PACKAGES = ("site-packages", "dist-packages")
_BYTECODE = re.compile(r"(\{(?:packages|stdlib)\}/(?:.*/)?)__pycache__/([^/]+)\.\{tag\}\.pyc")
_SOURCE = re.compile(r"(\{(?:packages|stdlib)\}/(?:.*/)?)([^/]+)\.py")
_FIELD = re.compile(r"\{(packages|stdlib|bin|version|tag)\}")


class _ImagePythons:
    """What the fields of a trace stand for in an image: each combination that is there."""

    def __init__(self, layers: Sequence[CompiledLayer], env: Sequence[str]) -> None:
        path = next((entry[5:] for entry in env if entry.startswith("PATH=")), "")
        named = [
            folder.strip("/").removesuffix("/bin")
            for folder in path.split(":")
            if folder.startswith("/") and folder.rstrip("/").endswith("/bin")
        ]
        self.packages: list[dict[str, str]] = []
        self.stdlib: list[dict[str, str]] = []
        self.binaries: list[dict[str, str]] = []
        for prefix in dict.fromkeys([*named, *_PREFIXES]):
            versions = sorted(_versions(layers, f"{prefix}/lib"))
            for version in versions:
                fields = {"version": version, "tag": f"cpython-{version.replace('.', '')}"}
                stdlib = f"{prefix}/lib/python{version}"
                self.stdlib.append({**fields, "stdlib": stdlib})
                self.binaries.append({**fields, "bin": f"{prefix}/bin"})
                for name in _PACKAGES:
                    self.packages.append({**fields, "packages": f"{stdlib}/{name}"})
                # Debian's own packages serve all of its versions.
                shared = f"{prefix}/lib/python3/dist-packages"
                self.packages.append({**fields, "packages": shared})
        self.packages = [
            fields for fields in self.packages if kind_at(layers, _bytes(fields["packages"])) == DIR
        ]

    def files(self, file: TouchedFile) -> Iterator[HotFile]:
        """What the file may be here."""
        bytecode, source = _module(file.path)
        for path, instead in zip(self._paths(bytecode), self._paths(source), strict=True):
            ranges = file.ranges if bytecode == file.path else ()
            if instead == path:
                yield HotFile(_bytes(path), ranges)
            else:
                yield HotFile(_bytes(path), ranges, _bytes(instead))

    def _paths(self, path: str) -> Iterator[str]:
        used = set(_FIELD.findall(path))
        if not used:
            yield path
            return
        for key, choices in (
            ("packages", self.packages),
            ("stdlib", self.stdlib),
            ("bin", self.binaries),
        ):
            if key in used or (key == "bin" and used <= {"version", "tag"}):
                for fields in choices:
                    if used <= set(fields):
                        yield _FIELD.sub(lambda match: fields[match[1]], path)  # noqa: B023
                return


def _module(path: str) -> tuple[str, str]:
    """A module's bytecode and its source, whichever of them the path is; else twice the path."""
    if match := _BYTECODE.fullmatch(path):
        return path, f"{match[1]}{match[2]}.py"
    match = _SOURCE.fullmatch(path)
    return (f"{match[1]}__pycache__/{match[2]}.{{tag}}.pyc" if match else path), path


def _versions(layers: Sequence[CompiledLayer], folder: str) -> set[str]:
    names = child_names(layers, _bytes(folder))
    return {match[1].decode() for name in names if (match := _PYTHON.fullmatch(name))}


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def traced_files(
    trace: StartTrace, layers: Sequence[CompiledLayer], env: Sequence[str]
) -> list[HotFile]:
    """The paths that a trace's files may have in an image with `layers` and `env`, in order."""
    pythons = _ImagePythons(layers, env)
    return [hot for file in trace.files for hot in pythons.files(file)]

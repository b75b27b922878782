"""A trace's files as paths of one image: its Pythons are looked for where its PATH leads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from slipway.sqsh.start.start_trace import StartTrace, TouchedFile
from slipway.squashfs import DIR, CompiledLayer, HotFile, child_names, kind_at

_PREFIXES = ("usr", "usr/local", "opt/conda", "opt/venv")
_PYTHON = re.compile(rb"python(3\.\d{1,3})")
_PACKAGES = ("site-packages", "dist-packages")
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

    def paths(self, file: TouchedFile) -> Iterator[str]:
        """What the file may be called here."""
        used = set(_FIELD.findall(file.path))
        if not used:
            yield file.path
            return
        for key, choices in (
            ("packages", self.packages),
            ("stdlib", self.stdlib),
            ("bin", self.binaries),
        ):
            if key in used or (key == "bin" and used <= {"version", "tag"}):
                for fields in choices:
                    if used <= set(fields):
                        yield _FIELD.sub(lambda match: fields[match[1]], file.path)  # noqa: B023
                return


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
    return [
        HotFile(_bytes(path), file.ranges) for file in trace.files for path in pythons.paths(file)
    ]

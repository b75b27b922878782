"""What stands in a layer that we make: files with their content's place, folders, whiteouts."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from slipway.append.wheel_members import member_pieces
from slipway.core import file_pieces, sha256_file


@dataclass(frozen=True)
class WheelMember:
    """A file of a wheel. `wheel_sha256` is of the whole wheel: it vouches for the member."""

    wheel: Path
    name: str
    wheel_sha256: str


@dataclass(frozen=True)
class LayerFile:
    """One file: its path from the root without a slash before it, its content, its mode."""

    path: str
    source: bytes | Path | WheelMember
    size: int
    mode: int = 0o644

    @property
    def key(self) -> str:
        """Names path, mode and content; a wheel's digest vouches for what is in it."""
        if isinstance(self.source, WheelMember):
            content = f"{self.source.wheel_sha256}:{self.source.name}"
        elif isinstance(self.source, Path):
            content = sha256_file(self.source)
        else:
            content = hashlib.sha256(self.source).hexdigest()
        return f"{self.path}\0{self.mode:o}\0{content}"


@dataclass(frozen=True)
class LayerPlan:
    """One layer: what it is for, its files, and what of the layers below it hides.

    `folders` are those that the layer brings; others are there already, and stay as they are.
    """

    title: str
    files: tuple[LayerFile, ...]
    folders: tuple[str, ...] = ()
    whiteouts: tuple[str, ...] = ()  # paths that are gone

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.size for file in self.files)

    @property
    def key(self) -> str:
        """The same key, the same bytes, on any machine."""
        lines = sorted(file.key for file in self.files)
        lines += sorted(f"{path}/" for path in self.folders)
        lines += sorted(f"{path}\0gone" for path in self.whiteouts)
        digest = hashlib.sha256()
        for line in lines:
            digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()


class ContentReader:
    """Reads the contents of files; a wheel is opened once for all of its members."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._wheels: dict[Path, tuple[IO[bytes], zipfile.ZipFile]] = {}

    def __enter__(self) -> ContentReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def pieces(self, file: LayerFile) -> Iterator[bytes]:
        """The content; what a wheel has deflated comes with that form (`DeflatedPiece`)."""
        source = file.source
        if isinstance(source, bytes):
            yield source
        elif isinstance(source, Path):
            yield from file_pieces(source)
        else:
            wheel, archive = self._open(source.wheel)
            yield from member_pieces(wheel, archive, archive.getinfo(source.name))

    def _open(self, wheel: Path) -> tuple[IO[bytes], zipfile.ZipFile]:
        if wheel not in self._wheels:
            stream = self._stack.enter_context(wheel.open("rb"))
            archive = self._stack.enter_context(zipfile.ZipFile(stream))
            self._wheels[wheel] = stream, archive
        return self._wheels[wheel]

"""The files of an image that describe what is in it, read from its layers as they stream by.

Nothing is unpacked, and a layer is read once, whatever image it is a layer of: notes of what was
read are kept by the layer's digest. A layer that is not known has to be read to its end: no
registry says which one holds a package database.
"""

from __future__ import annotations

import base64
import contextlib
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slipway.core import Event, OnEvent, SharedParts, cpu_count, read_note, write_note
from slipway.inventory.dpkg_status import short_status
from slipway.inventory.layered_image import LayeredImage
from slipway.squashfs import ReadAhead, decompressed_stream, read_content, skip_content, tar_members

FOLDER, FILE, LINK = "d", "f", "l"
_KINDS = {b"5"[0]: FOLDER, b"2"[0]: LINK}
_HARD_LINK = b"1"[0]
_DATABASE_MAX, TEXT_MAX = 128 << 20, 16 << 20
"""Bytes of a file that is read: a base may be anyone's."""
_FORMAT = "3"
_NOTES = "bases"
_OPAQUE = ".wh..wh..opq"

# Anywhere: installers link files into an environment from a cache beside it.
_PYTHON = r"(?:.*/)?[^/]+\.(?:dist-info/(?:METADATA|RECORD)|egg-info(?:/PKG-INFO)?)"
_DATABASE = r"(?:var/lib/rpm|usr/lib/sysimage/rpm)/(?:rpmdb\.sqlite(?:-wal)?|Packages(?:\.db)?)"
_DATABASE_FILE = re.compile(_DATABASE)
_DESCRIBING = re.compile(
    rf"{_PYTHON}|(?:.*/)?pyvenv\.cfg|(?:etc|usr/lib)/os-release"
    rf"|var/lib/dpkg/status(?:\.d/[^/]+)?|{_DATABASE}"
)


def describes(name: bytes) -> bool:
    """Whether a member of a layer's tar may be one of the files that are read."""
    return _DESCRIBING.fullmatch(_path(name)) is not None


@dataclass(frozen=True)
class MetadataFiles:
    """An image as its layers leave it: kinds of all paths, texts of the files that describe it.

    Paths begin without a slash. A database is its bytes in base64. A describing file without a
    text here was too large to be one.
    """

    kinds: Mapping[str, str] = field(repr=False)
    texts: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class LayerNotes:
    """Notes of what layers hold, below `cache`, and those that other machines have made."""

    cache: Path
    shared: SharedParts | None = None

    def read(self, name: str) -> dict[str, Any] | None:
        """A note that is here, or among the others', and whole."""
        there = self.shared.part(_NOTES, name) if self.shared else None
        for path in (self.cache / _NOTES / name, there):
            note: dict[str, Any] | None = read_note(path) if path is not None else None
            if note is not None:
                return note
        return None

    def make(self, name: str, read_layer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The note, whoever made it; made here by `read_layer` where nobody has."""
        note = self.read(name)
        if note is not None:
            return note
        claim = self.shared.claim(_NOTES, name) if self.shared else None
        with claim or contextlib.nullcontext():
            note = (self.read(name) if claim is None else None) or read_layer()
            write_note(self.cache / _NOTES / name, note)
            if claim is not None:
                claim.publish(self.cache / _NOTES / name)
        return note


def read_metadata_files(
    image: LayeredImage, notes: LayerNotes, on_event: OnEvent, layers: int | None = None
) -> MetadataFiles:
    """What the layers of an image hold; `layers`: of the lowest so many.

    Those without a note are streamed. Raises SlipwayError, LayerError, RegistryError.
    """

    def stream(layer: dict[str, Any]) -> dict[str, Any]:
        task = f"read layer {layer['digest'][7:19]}"
        on_event(Event("start", task))
        contents = _LayerReader().read(image.blobs.stream(layer["digest"], layer["size"]))
        on_event(Event("done", task))
        return contents

    def note(layer: dict[str, Any]) -> dict[str, Any]:
        return notes.make(_note_name(layer), lambda: stream(layer))

    with ThreadPoolExecutor(max_workers=cpu_count()) as pool:
        return _merged(pool.map(note, image.layers[:layers]))


def layers_are_noted(image: LayeredImage, notes: LayerNotes) -> bool:
    """Whether every layer was read before, so that none has to be streamed."""
    return all(notes.read(_note_name(layer)) is not None for layer in image.layers)


def _note_name(layer: Mapping[str, Any]) -> str:
    return f"{layer['digest'].removeprefix('sha256:')}-{_FORMAT}.json.gz"


class _LayerReader:
    """One layer's part: kinds, whiteouts, and the texts of describing files."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.gone: list[str] = []
        self.opaque: list[str] = []

    def read(self, pieces: Iterable[bytes]) -> dict[str, Any]:
        """All of a layer; its digest has been checked when this returns."""
        with ReadAhead(decompressed_stream(pieces), hashed=False) as stream:
            for member in tar_members(stream):
                path = _path(member.name)
                folder, name = posixpath.split(path)
                kind = _KINDS.get(member.kind, FILE)
                if name == _OPAQUE:
                    self.opaque.append(folder)
                elif name.startswith(".wh."):
                    self.gone.append(posixpath.join(folder, name[4:]))
                else:
                    self.kinds[path] = kind
                describes = kind == FILE and _DESCRIBING.fullmatch(path) is not None
                if describes and member.kind == _HARD_LINK:
                    linked = self.texts.get(_path(member.link))
                    if linked is not None:
                        self.texts[path] = linked
                    skip_content(stream, member)
                elif describes and member.size <= _most_bytes(path):
                    self.texts[path] = _text(path, read_content(stream, member))
                else:
                    skip_content(stream, member)
            stream.drain()
        return {
            "kinds": self.kinds,
            "texts": self.texts,
            "gone": self.gone,
            "opaque": self.opaque,
        }


def _path(name: bytes) -> str:
    return posixpath.normpath("/" + name.decode("utf-8", "surrogateescape")).lstrip("/")


def _most_bytes(path: str) -> int:
    return _DATABASE_MAX if _DATABASE_FILE.fullmatch(path) else TEXT_MAX


def _text(path: str, raw: bytes) -> str:
    """What is kept of a describing file: of METADATA the head, of a database all of it."""
    if _DATABASE_FILE.fullmatch(path):
        return base64.b64encode(raw).decode()
    text = raw.decode("utf-8", "replace")
    if path.startswith("var/lib/dpkg/"):
        return short_status(text)
    if path.endswith("/RECORD"):
        return "\n".join(line.rsplit(",", 2)[0] for line in text.splitlines())
    if path.endswith(("/os-release", "/pyvenv.cfg")):
        return text
    return text.partition("\n\n")[0]


def _merged(layers: Iterable[Mapping[str, Any]]) -> MetadataFiles:
    kinds: dict[str, str] = {}
    texts: dict[str, str] = {}
    for layer in layers:
        hidden = [*layer["gone"], *(f"{path}/" if path else "" for path in layer["opaque"])]
        # A file or link in the place of a folder hides what was in it.
        hidden += [p for p, k in layer["kinds"].items() if k != FOLDER and kinds.get(p) == FOLDER]
        for known in (kinds, texts):
            for path in list(_hidden(known, hidden)):
                del known[path]
        # A describing file whose text is not kept hides that of the one below it, too.
        for path in layer["kinds"].keys() & texts.keys():
            del texts[path]
        kinds.update(layer["kinds"])
        texts.update(layer["texts"])
    return MetadataFiles(kinds, texts)


def _hidden(known: Mapping[str, str], hidden: Iterable[str]) -> Iterator[str]:
    exact = {path for path in hidden if not path.endswith("/")}
    folders = tuple(path if path.endswith("/") else f"{path}/" for path in hidden if path)
    everything = "" in exact
    if not (exact or folders):
        return
    for path in known:
        if everything or path in exact or path.startswith(folders):
            yield path

"""What of a base has to be known to install onto it: packages, their files, links on the way.

Read from the layers as they stream by; nothing is unpacked, and a layer is read once, whatever
base it is a layer of. Notes of what was read are kept by the layer's digest.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.parser import Parser
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from slipway.append.base_image import BaseImage
from slipway.append.python_layout import PythonLayout
from slipway.core import Event, OnEvent, SharedParts, SlipwayError, cpu_count, write_atomic
from slipway.squashfs import ReadAhead, decompressed_stream, skip_content, tar_members

FOLDER, FILE, LINK = "d", "f", "l"
_KINDS = {b"5"[0]: FOLDER, b"2"[0]: LINK}
_TEXT_MAX = 64 << 20
_FORMAT = "1"
_NOTES = "bases"
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True)
class BaseDistribution:
    """A Python distribution of the base. `files` is None where its record is not there."""

    name: str
    version: str
    requires: tuple[str, ...]
    files: tuple[str, ...] | None  # from the root, without a slash before


@dataclass(frozen=True)
class BaseContents:
    """The base as its layers leave it.

    `kinds` has all paths below the interpreter's prefix, and folders and links everywhere.
    """

    distributions: Mapping[str, BaseDistribution]  # by canonical name
    kinds: Mapping[str, str] = field(repr=False)

    @property
    def versions(self) -> dict[str, str]:
        """Canonical name -> version."""
        return {name: distribution.version for name, distribution in self.distributions.items()}


@dataclass(frozen=True)
class BaseNotes:
    """Notes of what layers hold, below `cache`, and those that other machines have made."""

    cache: Path
    shared: SharedParts | None = None

    def read(self, name: str) -> dict[str, Any] | None:
        """A note that is here, or among the others', and whole."""
        there = self.shared.part(_NOTES, name) if self.shared else None
        for path in (self.cache / _NOTES / name, there):
            with contextlib.suppress(OSError, ValueError, EOFError):
                if path is not None:
                    note: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
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
            write_atomic(self.cache / _NOTES / name, gzip.compress(json.dumps(note).encode(), 3))
            if claim is not None:
                claim.publish(self.cache / _NOTES / name)
        return note


def read_base_contents(
    base: BaseImage, layout: PythonLayout, notes: BaseNotes, on_event: OnEvent
) -> BaseContents:
    """What the layers of `base` hold. Those without a note are streamed.

    Raises SlipwayError, LayerError, RegistryError.
    """
    prefix = str(layout.prefix)[1:]
    site = str(layout.site_packages)[1:]
    key = hashlib.sha256(f"{_FORMAT} {prefix} {site}".encode()).hexdigest()[:16]

    def stream(layer: dict[str, Any]) -> dict[str, Any]:
        on_event(Event("start", f"read {layer['digest'][7:19]} of the base"))
        contents = _LayerReader(prefix, site).read(
            base.blobs.stream(layer["digest"], layer["size"])
        )
        on_event(Event("done", f"read {layer['digest'][7:19]} of the base"))
        return contents

    def note(layer: dict[str, Any]) -> dict[str, Any]:
        name = f"{layer['digest'].removeprefix('sha256:')}-{key}.json.gz"
        return notes.make(name, lambda: stream(layer))

    with ThreadPoolExecutor(max_workers=cpu_count()) as pool:
        layers = list(pool.map(note, base.layers))
    return _merged(layers, layout)


def packages_of_base(
    base: BaseImage, interpreter: str, python: str, notes: BaseNotes, on_event: OnEvent
) -> dict[str, str]:
    """The Python distributions of a base, name -> version; see `read_base_contents`."""
    layout = PythonLayout(interpreter, python)
    return read_base_contents(base, layout, notes, on_event).versions


class _LayerReader:
    """One layer's part: kinds, whiteouts, and the texts that describe distributions."""

    def __init__(self, prefix: str, site: str) -> None:
        self._below = f"{prefix}/"
        # Names and versions of distributions, and whether a virtual environment stands alone.
        self._described = re.compile(
            re.escape(site)
            + r"/[^/]+\.(?:dist-info/(?:METADATA|RECORD)|egg-info(?:/PKG-INFO)?)"
            + f"|{re.escape(prefix)}/pyvenv\\.cfg"
        )
        self.kinds: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.gone: list[str] = []
        self.opaque: list[str] = []

    def read(self, pieces: Iterable[bytes]) -> dict[str, Any]:
        """All of a layer; its digest has been checked when this returns."""
        with ReadAhead(decompressed_stream(pieces), _ignore) as stream:
            for member in tar_members(stream):
                path = posixpath.normpath("/" + member.name.decode("utf-8", "surrogateescape"))[1:]
                folder, name = posixpath.split(path)
                kind = _KINDS.get(member.kind, FILE)
                if name == _OPAQUE:
                    self.opaque.append(folder)
                elif name.startswith(".wh."):
                    self.gone.append(posixpath.join(folder, name[4:]))
                elif kind != FILE or path.startswith(self._below):
                    self.kinds[path] = kind
                if kind == FILE and member.size <= _TEXT_MAX and self._described.fullmatch(path):
                    self.texts[path] = _text(path, stream.read(member.stored))
                    stream.skip_padding(-member.stored % 512)
                else:
                    skip_content(stream, member)
            stream.drain()
        return {
            "kinds": self.kinds,
            "texts": self.texts,
            "gone": self.gone,
            "opaque": self.opaque,
        }


def _ignore(count: int) -> None:
    del count


def _text(path: str, raw: bytes) -> str:
    """What is kept of a describing file: of METADATA the head without the description."""
    text = raw.decode("utf-8", "replace")
    if path.endswith("/RECORD"):
        return "\n".join(line.rsplit(",", 2)[0] for line in text.splitlines())
    return text.partition("\n\n")[0]


def _merged(layers: Iterable[Mapping[str, Any]], layout: PythonLayout) -> BaseContents:
    kinds: dict[str, str] = {}
    texts: dict[str, str] = {}
    for layer in layers:
        hidden = [*layer["gone"], *(f"{path}/" if path else "" for path in layer["opaque"])]
        # A file or link in the place of a folder hides what was in it.
        hidden += [p for p, k in layer["kinds"].items() if k != FOLDER and kinds.get(p) == FOLDER]
        for known in (kinds, texts):
            for path in list(_hidden(known, hidden)):
                del known[path]
            known.update(layer["kinds" if known is kinds else "texts"])
    return BaseContents(_distributions(texts, layout), kinds)


def _hidden(known: Mapping[str, str], hidden: Iterable[str]) -> Iterator[str]:
    exact = {path for path in hidden if not path.endswith("/")}
    folders = tuple(path if path.endswith("/") else f"{path}/" for path in hidden if path)
    everything = "" in exact
    if not (exact or folders):
        return
    for path in known:
        if everything or path in exact or path.startswith(folders):
            yield path


def _distributions(texts: Mapping[str, str], layout: PythonLayout) -> dict[str, BaseDistribution]:
    prefix, site = str(layout.prefix)[1:], str(layout.site_packages)[1:]
    environment = texts.get(f"{prefix}/pyvenv.cfg", "").lower()
    if re.search(r"include-system-site-packages\s*=\s*true", environment):
        raise SlipwayError(
            f"the virtual environment {layout.prefix} of the base sees the packages of another "
            "interpreter, which cannot be told without running it",
            cure="Build this image with an engine (without --no-engine).",
        )
    distributions: dict[str, BaseDistribution] = {}
    # The first of a name wins, as for the installer in the image.
    for path in sorted(texts):
        folder, name = posixpath.split(path)
        if name in ("RECORD", "pyvenv.cfg"):
            continue
        head = Parser().parsestr(texts[path], headersonly=True)
        record = texts.get(f"{folder}/RECORD") if name == "METADATA" else None
        if head.get("Name") and head.get("Version"):
            distributions.setdefault(
                str(canonicalize_name(str(head["Name"]))),
                BaseDistribution(
                    str(head["Name"]),
                    str(head["Version"]),
                    tuple(map(str, head.get_all("Requires-Dist") or ())),
                    None if record is None else tuple(_recorded(record, site)),
                ),
            )
    return distributions


def _recorded(record: str, site: str) -> Iterator[str]:
    for line in record.splitlines():
        path = line[1:-1].replace('""', '"') if line.startswith('"') else line
        if path:
            yield posixpath.normpath(posixpath.join("/", site, path))[1:]

"""An image's layers as the very tars that their digests are of, read off the engine's own disk.

overlay2 keeps the files of a layer in a folder, and what the tar had beside their contents in a
file of its own: headers and padding as they were, and where each file's content belongs between
them (moby/moby:layer/layer_store.go, vbatts/tar-split:tar/storage). So one layer can be had, where
`docker save` always sends them all.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.core import file_pieces
from slipway.engine.client import Engine
from slipway.engine.errors import DamagedLayerError, EngineError

_PIECE = 1 << 20
_FILE, _SEGMENT = 1, 2
_MOST_CONFIG = 8 << 20
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zlib.error)


@dataclass(frozen=True)
class LayerTar:
    """One layer of an image on the engine's disk."""

    diff_id: str
    records: Path
    files: Path

    @property
    def size(self) -> int:
        """Bytes of the tar. Raises EngineError where its records cannot be read."""
        return sum(len(piece) if isinstance(piece, bytes) else piece for piece in self.headers())

    def pieces(self) -> Iterator[bytes]:
        """The tar. Raises DamagedLayerError, at its end, where it is not the one of the digest, and
        EngineError where it cannot be read."""
        hasher = hashlib.sha256()
        with self._readable():
            for piece in self._pieces():
                hasher.update(piece)
                yield piece
        if f"sha256:{hasher.hexdigest()}" != self.diff_id:
            raise DamagedLayerError(self.diff_id)

    def _pieces(self) -> Iterator[bytes]:
        held = bytearray()
        for record in self._records():
            if record["type"] == _SEGMENT:
                held += base64.b64decode(record["payload"])
            elif record["type"] == _FILE and record.get("size"):
                for piece in file_pieces(self.files / os.fsdecode(_name(record)).lstrip("/")):
                    if held:
                        yield bytes(held)
                        held.clear()
                    yield piece
            if len(held) >= _PIECE:
                yield bytes(held)
                held.clear()
        if held:
            yield bytes(held)

    def described(self, wanted: Callable[[bytes], bool]) -> Iterator[bytes]:
        """The tar with zeros in the place of what is in files that are not `wanted` by their names.

        For who looks for a few files among gigabytes: the others are not read, so the digest cannot
        be checked; a file of another size than the tar's is noticed. Raises EngineError.
        """
        zeros, held = bytes(_PIECE), bytearray()
        view = memoryview(zeros)
        with self._readable():
            for record in self._records():
                if record["type"] == _SEGMENT:
                    held += base64.b64decode(record["payload"])
                elif record["type"] == _FILE and (left := int(record.get("size") or 0)):
                    if wanted(_name(record)):
                        content = (self.files / os.fsdecode(_name(record)).lstrip("/")).read_bytes()
                        if len(content) != left:
                            raise ValueError(f"{os.fsdecode(_name(record))} is of another size")
                        held += content
                        left = 0
                    while left >= _PIECE:
                        yield bytes(held)
                        held.clear()
                        yield zeros
                        left -= _PIECE
                    held += view[:left]  # a slice of the zeros themselves would be a copy
                if len(held) >= _PIECE:  # few large pieces: each is handed on several times
                    yield bytes(held)
                    held.clear()
            yield bytes(held)

    def names(self) -> Iterator[bytes]:
        """Of all members, as the tar spells them. Raises EngineError."""
        with self._readable():
            for record in self._records(skip=b'{"type":2,'):  # as Go writes it; most of the file
                if record["type"] == _FILE:
                    yield _name(record)

    def headers(self) -> Iterator[bytes | int]:
        """The tar; in place of a file's content the number of its bytes. Raises EngineError."""
        with self._readable():
            for record in self._records():
                if record["type"] == _SEGMENT:
                    yield base64.b64decode(record["payload"])
                elif record["type"] == _FILE and record.get("size"):
                    yield int(record["size"])

    def _records(self, skip: bytes = b"\0") -> Iterator[dict[str, Any]]:
        """The lines of the records that do not begin with `skip`."""
        with gzip.open(self.records, "rb") as lines:
            for line in lines:
                if not line.startswith(skip):
                    yield json.loads(line)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except _UNREADABLE as error:
            raise EngineError(
                f"the engine's layer {self.diff_id} cannot be read: {error}"
            ) from error


def _name(record: dict[str, str]) -> bytes:
    raw = record.get("name_raw")
    return base64.b64decode(raw) if raw else os.fsencode(record["name"])


@dataclass(frozen=True)
class LayerTars:
    """An image on the engine's disk: its configuration as the engine keeps it, its layers."""

    config: bytes
    layers: tuple[LayerTar, ...]


def find_layer_tars(engine: Engine, image_id: str) -> LayerTars | None:
    """An image of an overlay2 engine on this machine; None where this process cannot read it."""
    if engine.containerd_store or not engine.url.startswith("unix:") or not engine.data_root:
        return None
    root = Path(engine.data_root)
    database = root / "image" / "overlay2"
    try:
        path = database / "imagedb" / "content" / "sha256" / image_id.removeprefix("sha256:")
        if path.stat().st_size > _MOST_CONFIG:
            return None
        config = path.read_bytes()
        diff_ids = json.loads(config)["rootfs"].get("diff_ids") or []
        layers = []
        chain = ""
        for diff_id in diff_ids:
            both = f"{chain} {diff_id}".encode()
            chain = f"sha256:{hashlib.sha256(both).hexdigest()}" if chain else diff_id
            entry = database / "layerdb" / "sha256" / chain.removeprefix("sha256:")
            files = root / "overlay2" / (entry / "cache-id").read_text().strip() / "diff"
            layers.append(LayerTar(diff_id, entry / "tar-split.json.gz", files))
        readable = all(
            layer.files.is_dir() and os.access(layer.records, os.R_OK) for layer in layers
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if f"sha256:{hashlib.sha256(config).hexdigest()}" != image_id or not readable:
        return None
    return LayerTars(config, tuple(layers))

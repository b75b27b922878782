"""How layers are compiled and images are linked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import zstandard

from slipway.squashfs.codecs import Codec, codec

_REVISION = 1
"""Part of every cache key: raised when the same input would give other bytes."""


@dataclass(frozen=True)
class Options:
    """Compressor (a key of codecs.LEVELS), its level (None: the default) and block size (bytes)."""

    compressor: str = "zstd"
    level: int | None = 1
    block_size: int = 1 << 20

    def codec(self) -> Codec:
        """The codec to write with. Raises SquashfsError where a library is missing."""
        return codec(self.compressor, self.level, self.block_size)

    def key(self, layer: str, source: str) -> str:
        """Name of the cache entry for a layer (its digest) read from a kind of source.

        The kind counts because archives and directories list files in different orders, and so
        pack them differently; an image must not depend on which of them was cached first.
        """
        library = list(zstandard.ZSTD_VERSION) if self.compressor == "zstd" else []
        text = json.dumps([_REVISION, layer, source, asdict(self), library], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:40]

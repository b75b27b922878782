"""File contents -> data blocks and fragments of one part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import IO

from slipway.core import Piece, PieceHasher
from slipway.squashfs.compile.layer_tree import EMPTY, FileData
from slipway.squashfs.format import DATA_STORED, Codec

Read = Callable[[int], bytes]


class BlockWriter:
    """Writes one part's data into `sink`.

    Files below the block size share fragments, and are stored once if their content is the same;
    blocks of zeros become holes.
    """

    def __init__(
        self,
        sink: IO[bytes],
        codec: Codec,
        block_size: int,
        *,
        part: int = 0,
    ) -> None:
        self._sink = sink
        self._compress = codec.compress
        self._block_size = block_size
        self._part = part
        self._zeros = bytes(block_size)
        self._small: dict[bytes, FileData] = {}
        self._tail = bytearray()
        self._hasher = PieceHasher()
        self.position = 0
        self.fragments: list[tuple[int, int, int]] = []
        """(part, start, size word) of each fragment, whole after `finish`."""

    def add(self, size: int, read: Read) -> FileData:
        """Store a file's content; `read(n)` gives exactly the next n bytes.

        The result is whole only after `finish`.
        """
        if size == 0:
            return EMPTY
        if size < self._block_size:
            return self._add_small(read(size))
        data = FileData(part=self._part)
        left = size
        while left:
            block = read(min(left, self._block_size))
            left -= len(block)
            if block == (self._zeros if len(block) == self._block_size else bytes(len(block))):
                data.holes += len(block)
                self._put(b"", data)
            else:
                self._put(block, data)
        return data

    def _add_small(self, content: bytes) -> FileData:
        key = hashlib.sha256(content).digest()
        data = self._small.get(key)
        if data is None:
            if len(self._tail) + len(content) > self._block_size:
                self._flush_tail()
            data = FileData(fragment=len(self.fragments), offset=len(self._tail), part=self._part)
            self._tail += content
            self._small[key] = data
        return data

    def _flush_tail(self) -> None:
        if self._tail:
            block = bytes(self._tail)
            self._tail.clear()
            self._put(block, None)

    def _put(self, block: bytes, owner: FileData | None) -> None:
        packed = self._compress(block) if block else None
        if packed is not None and len(packed) < len(block):
            stored, word = packed, len(packed)
        else:
            stored, word = block, (len(block) | DATA_STORED) if block else 0
        if owner is None:
            self.fragments.append((self._part, self.position, word))
        else:
            if not owner.words:
                owner.start = self.position
            owner.words.append(word)
            owner.stored += len(stored)
        self._sink.write(stored)
        self._hasher.update(stored)
        self.position += len(stored)

    def finish(self) -> tuple[Piece, ...]:
        """Write what is left; the pieces of the part."""
        self._flush_tail()
        return self._hasher.finish()

"""File contents -> data blocks and fragments of one part."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import IO

from slipway.core import Piece, PieceHasher
from slipway.squashfs.compile.layer_tree import EMPTY, FileData
from slipway.squashfs.format import DATA_STORED, Codec

Read = Callable[[int], bytes]


class BlockWriter:
    """Writes one part's data into `sink`.

    Files below the block size share fragments, and are stored once if their content is the same;
    blocks of zeros become holes. With `pool`, blocks are compressed there while the caller reads
    on; they are written in order all the same, so the bytes do not depend on it.
    """

    def __init__(
        self,
        sink: IO[bytes],
        codec: Codec,
        block_size: int,
        *,
        part: int = 0,
        pool: Executor | None = None,
        in_flight: int = 16,
    ) -> None:
        self._sink = sink
        self._compress = codec.compress
        self._block_size = block_size
        self._part = part
        self._pool = pool
        self._in_flight = in_flight
        self._zeros = bytes(block_size)
        self._small: dict[bytes, FileData] = {}
        self._tail = bytearray()
        self._pending: deque[tuple[bytes, Future[bytes | None], FileData | None]] = deque()
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
            # The fragment's number: those written and those on their way.
            waiting = sum(1 for _, _, owner in self._pending if owner is None)
            number = len(self.fragments) + waiting
            data = FileData(fragment=number, offset=len(self._tail), part=self._part)
            self._tail += content
            self._small[key] = data
        return data

    def _flush_tail(self) -> None:
        if self._tail:
            block = bytes(self._tail)
            self._tail.clear()
            self._put(block, None)

    def _put(self, block: bytes, owner: FileData | None) -> None:
        if self._pool is None:
            self._write(block, self._compress(block) if block else None, owner)
            return
        if block:
            future = self._pool.submit(self._compress, block)
        else:
            future = Future()
            future.set_result(None)
        self._pending.append((block, future, owner))
        while len(self._pending) > self._in_flight:
            self._drain_one()

    def _drain_one(self) -> None:
        block, future, owner = self._pending.popleft()
        self._write(block, future.result(), owner)

    def _write(self, block: bytes, packed: bytes | None, owner: FileData | None) -> None:
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
        while self._pending:
            self._drain_one()
        return self._hasher.finish()

"""Where a gzip stream can be entered: ends of blocks, with the window of plain bytes before each.

Where soci puts its checkpoints: awslabs/soci-snapshotter:ztoc/compression/gzip_zinfo.c.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from slipway.registry import GZIP, BlockInflater, DeflateError
from slipway.squashfs import LayerError

SPAN = 4 << 20
"""Plain bytes between two checkpoints, at least: soci's own default."""

WINDOW = 32768


@dataclass(frozen=True)
class Checkpoint:
    """The beginning of a block. `bits` of the byte before `compressed_offset` belong to it."""

    compressed_offset: int
    offset: int
    bits: int
    window: bytes


class GzipSpans:
    """A gzip blob that is read once, from its beginning; members may follow each other.

    `plain` gives its content; when that has ended, the other attributes are whole. Span N goes from
    checkpoint N to the next one, and its digest is that of these compressed bytes; a byte that two
    spans share belongs to both.
    """

    def __init__(self, pieces: Iterable[bytes], span: int = SPAN) -> None:
        self.span = span
        self.checkpoints: list[Checkpoint] = []
        self.digests: list[str] = []
        self.compressed_size = 0
        self._pieces = pieces
        self._inflater: BlockInflater
        self._piece = b""
        self._start = 0  # of the piece, in the blob
        self._last_byte = b""  # before the piece
        self._given = 0  # plain bytes that `plain` has given
        self._tail = b""  # their last ones
        self._hasher = hashlib.sha256()
        self._hashed = 0  # where the hasher is, in the blob

    def plain(self) -> Iterator[bytes]:
        """The content in pieces. Raises LayerError where the data is damaged."""
        with BlockInflater(GZIP) as self._inflater:
            for piece in self._pieces:
                if piece:
                    yield from self._inflate(piece)
            if not self._inflater.ended:
                raise LayerError("the layer's gzip data ends in the middle")
            yield self._flush()
            self.digests.append(f"sha256:{self._hasher.hexdigest()}")

    def _inflate(self, piece: bytes) -> Iterator[bytes]:
        inflater, self._piece = self._inflater, piece
        inflater.give(piece)
        goes_on = True
        while goes_on and (inflater.left or inflater.is_full):
            if inflater.is_full:
                yield self._flush()
            if inflater.ended:
                if not inflater.left:
                    break
                if not piece[-inflater.left]:
                    inflater.skip()  # zeros that some programs leave after the last member
                    continue
                inflater.restart()
            try:
                goes_on = inflater.step()
            except DeflateError as error:
                raise LayerError(f"the layer's gzip data is damaged: {error}") from None
            if not inflater.ended:
                self._consider()
        self._end_piece()

    def _consumed(self) -> int:
        return self._start + len(self._piece) - self._inflater.left

    def _flush(self) -> bytes:
        data = self._inflater.take()
        self._tail = (self._tail + data[-WINDOW:])[-WINDOW:]
        self._given += len(data)
        return data

    def _consider(self) -> None:
        """A checkpoint where a block begins and the last one is far enough away."""
        inflater = self._inflater
        if not inflater.at_end_of_block or inflater.in_last_block:
            return
        offset, bits = self._given + inflater.output_size, inflater.unused_bits
        if self.checkpoints and offset - self.checkpoints[-1].offset <= self.span:
            return
        at = self._consumed()
        window = (self._tail + inflater.output_end(WINDOW))[-WINDOW:].rjust(WINDOW, b"\0")
        self._hash_to(at)
        if self.checkpoints:
            self.digests.append(f"sha256:{self._hasher.hexdigest()}")
        shared = (self._last_byte + self._piece[: at - self._start])[-1:] if bits else b""
        self._hasher = hashlib.sha256(shared)
        self.checkpoints.append(Checkpoint(at, offset, bits, window))

    def _hash_to(self, position: int) -> None:
        self._hasher.update(self._piece[self._hashed - self._start : position - self._start])
        self._hashed = position

    def _end_piece(self) -> None:
        end = self._start + len(self._piece)
        self._hash_to(end)
        self._last_byte, self._piece, self._start = self._piece[-1:], b"", end
        self.compressed_size = end

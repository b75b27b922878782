"""Metadata: a stream cut into 8 KiB blocks, each compressed, and tables made of such blocks."""

from __future__ import annotations

import struct
from collections.abc import Callable

from slipway.squashfs.format.compressors import Codec
from slipway.squashfs.format.structures import METADATA_SIZE, METADATA_STORED


class MetadataWriter:
    """Collects bytes into blocks. Positions count from the start of this stream's blocks."""

    def __init__(self, codec: Codec) -> None:
        self._compress = codec.compress
        self._open = bytearray()
        self._blocks: list[bytes] = []
        self.starts = [0]
        """Where each block begins; the last entry is where the open one will."""

    def position(self) -> tuple[int, int]:
        """Block start and offset in it, of the next byte."""
        return self.starts[-1], len(self._open)

    def write(self, data: bytes | bytearray) -> int:
        """Append; full blocks are compressed at once. Returns where it begins, as inodes say it."""
        reference = self.starts[-1] << 16 | len(self._open)
        self._open += data
        while len(self._open) >= METADATA_SIZE:
            block = bytes(self._open[:METADATA_SIZE])
            del self._open[:METADATA_SIZE]
            self._flush(block)
        return reference

    def _flush(self, block: bytes) -> None:
        packed = self._compress(block)
        if packed is not None and len(packed) < len(block):
            stored = struct.pack("<H", len(packed)) + packed
        else:
            stored = struct.pack("<H", len(block) | METADATA_STORED) + block
        self._blocks.append(stored)
        self.starts.append(self.starts[-1] + len(stored))

    def finish(self) -> bytes:
        """All blocks, the last one cut short."""
        if self._open:
            self._flush(bytes(self._open))
            self._open.clear()
        return b"".join(self._blocks)


def indexed_table(codec: Codec, data: bytes, position: int) -> tuple[bytes, int]:
    """A table for lookup by number, to be put at `position`: its blocks, then where each is.

    Returns the bytes and the absolute position of the list, which is what the superblock holds.
    """
    writer = MetadataWriter(codec)
    writer.write(data)
    blocks = writer.finish()
    count = -(-len(data) // METADATA_SIZE)
    starts = [position + start for start in writer.starts[:count]]
    return blocks + struct.pack(f"<{count}Q", *starts), position + len(blocks)


_KEPT = 64  # blocks of 8 KiB, decompressed


class MetadataReader:
    """Reads metadata blocks through `read_at(position, size)`; a few are kept decompressed."""

    def __init__(
        self,
        read_at: Callable[[int, int], bytes],
        decompress: Callable[[bytes, int], bytes],
    ) -> None:
        self._read_at = read_at
        self._decompress = decompress
        self._cache: dict[int, tuple[bytes, int]] = {}

    def block(self, position: int) -> tuple[bytes, int]:
        """Content of the block at an absolute position, and where the next one begins.

        Raises ValueError for a block that cannot be one.
        """
        cached = self._cache.get(position)
        if cached is None:
            (word,) = struct.unpack("<H", self._read_at(position, 2))
            size = word & ~METADATA_STORED
            if not 0 < size <= METADATA_SIZE:
                raise ValueError(f"a metadata block of {size} bytes at {position}")
            data = self._read_at(position + 2, size)
            if not word & METADATA_STORED:
                data = self._decompress(data, METADATA_SIZE)
            if not data:
                raise ValueError(f"an empty metadata block at {position}")
            cached = data, position + 2 + size
            if len(self._cache) >= _KEPT:
                del self._cache[next(iter(self._cache))]
            self._cache[position] = cached
        return cached

    def read(self, position: int, offset: int, size: int) -> tuple[bytes, int, int]:
        """`size` bytes from `offset` in the block at `position`, and where they end."""
        out = b""
        while True:
            data, following = self.block(position)
            if offset > len(data):
                raise ValueError(f"offset {offset} is beyond the metadata block at {position}")
            piece = data[offset : offset + size - len(out)]
            out += piece
            offset += len(piece)
            if len(out) == size:
                return out, position, offset
            if len(data) != METADATA_SIZE:
                raise ValueError(f"the metadata ends within the block at {position}")
            position, offset = following, 0

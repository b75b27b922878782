"""Layers compressed on all cores, to bytes that do not depend on the machine.

The gzip stream is one member whose blocks are compressed apart from each other. zlib-ng compresses
them, in the version of our lock: Pythons come with different zlibs, while this one gives the same
bytes whatever the processor has (docs/lab/registry.md), in half the time.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from zlib_ng import zlib_ng

from slipway.core import cpu_count

_CHUNK = 1 << 20  # bytes that are compressed apart from others
_LEVEL = 5
"""Of what is compressed once and pulled often: 6 saves 0.1 % more for a quarter more CPU
(docs/lab/registry.md)."""

_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time, no system


class DeflatedPiece(bytes):
    """Plain bytes whose deflate form is known: whole blocks that need nothing before them, end at a
    byte's end, and none of which is a stream's last.

    Of pieces that follow each other, `deflated` may hold what belongs to the one before or behind.
    """

    deflated: bytes

    def __new__(cls, plain: bytes, deflated: bytes) -> DeflatedPiece:
        """The plain bytes, and what of their deflate form is known with them."""
        piece = super().__new__(cls, plain)
        piece.deflated = deflated
        return piece


@dataclass(frozen=True)
class PackedTar:
    """A layer's gzip form. `diff_id` is the digest of the tar, `digest` that of the form."""

    digest: str
    diff_id: str
    size: int


def write_gzip(tar: Iterator[bytes], path: Path, level: int = _LEVEL) -> PackedTar:
    """Compress a layer's tar into a file, at one of zlib-ng's levels."""
    plain, packed, size = hashlib.sha256(), hashlib.sha256(), 0
    with path.open("wb") as stream:
        for piece in gzip_stream(tar, plain.update, level):
            packed.update(piece)
            size += len(piece)
            stream.write(piece)
    return PackedTar(f"sha256:{packed.hexdigest()}", f"sha256:{plain.hexdigest()}", size)


def gzip_stream(
    pieces: Iterator[bytes], on_chunk: Callable[[bytes], object], level: int = _LEVEL
) -> Iterator[bytes]:
    """Compressed on all cores, but for what is so already; `on_chunk` sees the plain bytes in their
    order.
    """
    checksum = length = 0
    waiting: deque[Future[bytes]] = deque()
    workers = cpu_count()
    yield _HEADER
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for chunk in _chunks(pieces):
            on_chunk(chunk)
            checksum, length = zlib_ng.crc32(chunk, checksum), length + len(chunk)
            if isinstance(chunk, DeflatedPiece):
                done: Future[bytes] = Future()
                done.set_result(chunk.deflated)
                waiting.append(done)
            else:
                waiting.append(pool.submit(_deflate, chunk, level))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    yield zlib_ng.compressobj(_LEVEL, zlib_ng.DEFLATED, -15).flush()  # an empty last block
    yield struct.pack("<II", checksum, length & 0xFFFFFFFF)


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for piece in pieces:
        if isinstance(piece, DeflatedPiece):
            if held:
                yield bytes(held)
                held.clear()
            yield piece
            continue
        held += piece
        while len(held) >= _CHUNK:
            yield bytes(held[:_CHUNK])
            del held[:_CHUNK]
    if held:
        yield bytes(held)


def _deflate(chunk: bytes, level: int) -> bytes:
    stream = zlib_ng.compressobj(level, zlib_ng.DEFLATED, -15)
    return stream.compress(chunk) + stream.flush(zlib_ng.Z_FULL_FLUSH)

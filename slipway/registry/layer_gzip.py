"""Layers compressed on all cores, to bytes that do not depend on how many there are.

The gzip stream is one member whose blocks are compressed apart from each other.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from slipway.core import cpu_count

_CHUNK = 1 << 20  # bytes that are compressed apart from others
_LEVEL = 5
"""Of what is compressed once and pulled often: 6 saves 1 % more for half as much CPU again, 4 takes
a quarter less for 2 % more (docs/lab/registry.md)."""

_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time, no system
_ANSWER = "375514ec812b2e19097a5b64ecd4d69d927bd306fc3a79ce003be6412e5ad8f6"
"""What zlib 1.2.13 makes of `_sample`; zlib-ng, for one, which some Pythons have in its
place, compresses otherwise."""


@dataclass(frozen=True)
class PackedTar:
    """A layer's gzip form. `diff_id` is the digest of the tar, `digest` that of the form."""

    digest: str
    diff_id: str
    size: int


def write_gzip(tar: Iterator[bytes], path: Path, level: int = _LEVEL) -> PackedTar:
    """Compress a layer's tar into a file, at one of zlib's levels."""
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
    """Compressed on all cores; `on_chunk` sees the plain bytes in their order."""
    checksum = length = 0
    waiting: deque[Future[bytes]] = deque()
    workers = cpu_count()
    yield _HEADER
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for chunk in _chunks(pieces):
            on_chunk(chunk)
            checksum, length = zlib.crc32(chunk, checksum), length + len(chunk)
            waiting.append(pool.submit(_deflate, chunk, level))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    yield zlib.compressobj(_LEVEL, zlib.DEFLATED, -15).flush()  # an empty last block
    yield struct.pack("<II", checksum, length & 0xFFFFFFFF)


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= _CHUNK:
            yield bytes(held[:_CHUNK])
            del held[:_CHUNK]
    if held:
        yield bytes(held)


def _deflate(chunk: bytes, level: int) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, -15)
    return stream.compress(chunk) + stream.flush(zlib.Z_FULL_FLUSH)


def compresses_as_elsewhere() -> bool:
    """Whether this Python's zlib gives the bytes that others give. Tars are the same anyway."""
    return hashlib.sha256(_deflate(_sample(), _LEVEL)).hexdigest() == _ANSWER


def _sample() -> bytes:
    noise = b"".join(hashlib.sha256(bytes([number])).digest()[:9] for number in range(256))
    return (noise + b"import os\nimport sys\n" * 40) * 20

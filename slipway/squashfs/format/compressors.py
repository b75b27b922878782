"""The compressors of squashfs 4.0, one block at a time.

zstd comes from the `zstandard` package, whose pinned version makes the bytes the same on every
machine; gzip and xz from Python itself; lz4 and lzo from the host's shared libraries, which
squashfs-tools needs too.
"""

from __future__ import annotations

import ctypes
import functools
import lzma
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import zstandard

from slipway.squashfs.format.errors import SquashfsError

Data: TypeAlias = "bytes | bytearray | memoryview"

IDS = {"gzip": 1, "lzo": 3, "xz": 4, "lz4": 5, "zstd": 6}
"""Numbers in the superblock."""
NAMES = {number: name for name, number in IDS.items()}
LEVELS: dict[str, range | None] = {
    "zstd": range(1, 23),
    "gzip": range(1, 10),
    "lzo": range(1, 10),
    "lz4": None,
    "xz": None,
    "none": None,
}
"""What can be written, with the levels each takes; None: it takes none."""


class CodecError(ValueError):
    """A block does not decompress, or to more than it may."""


@dataclass(frozen=True)
class Codec:
    """One compressor with its options. `compress` is deterministic; None: store as it is.

    `decompress` takes the block and the most bytes that it may give; it raises CodecError.
    """

    name: str
    compress: Callable[[Data], bytes | None]
    decompress: Callable[[Data, int], bytes]
    options: bytes = b""  # the compressor-options block after the superblock


def find_codec(name: str, level: int | None, block_size: int) -> Codec:
    """The codec for writing; "none" stores every block and says gzip in the superblock.

    Raises SquashfsError where its library is missing.
    """
    if name == "none":
        return Codec(name, _store, _inflate)
    if name == "zstd":
        level = level or 3
        options = struct.pack("<I", level)
        return Codec(name, _zstd_compressor(level), _unzstd, options)
    if name == "gzip":
        level = level or 9
        options = struct.pack("<IHH", level, 15, 0)
        return Codec(name, functools.partial(zlib.compress, level=level), _inflate, options)
    if name == "xz":
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": max(block_size, 8192)}]
        return Codec(
            name,
            lambda data: lzma.compress(
                data, lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=filters
            ),
            _unxz,
        )
    if name == "lz4":
        return Codec(name, _lz4_compress, _unlz4, struct.pack("<II", 1, 0))
    if name == "lzo":
        level = level or 8
        # Algorithm 4 is lzo1x_999, the one that has levels.
        options = struct.pack("<II", 4, level)
        return Codec(name, functools.partial(_lzo_compress, level=level), _unlzo, options)
    raise SquashfsError(f"squashfs has no compressor {name!r}")


def _store(data: Data) -> None:
    del data


def decompressor(number: int) -> Callable[[Data, int], bytes]:
    """How to decompress for a compressor number of a superblock. Raises CodecError."""
    function = {1: _inflate, 3: _unlzo, 4: _unxz, 5: _unlz4, 6: _unzstd}.get(number)
    if function is None:
        raise CodecError(f"compressor {number} is not one that can be read")
    return function


def _inflate(data: Data, limit: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise CodecError(str(error)) from error
    if len(out) > limit or not stream.eof:
        raise CodecError("wrong length")
    return out


def _unxz(data: Data, limit: int) -> bytes:
    try:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=64 << 20)
        out = stream.decompress(bytes(data), limit + 1)
    except lzma.LZMAError as error:
        raise CodecError(str(error)) from error
    if len(out) > limit or not stream.eof:
        raise CodecError("wrong length")
    return out


def _zstd_compressor(level: int) -> Callable[[Data], bytes]:
    local = threading.local()  # a ZstdCompressor is not to be shared by threads

    def compress(data: Data) -> bytes:
        compressor: zstandard.ZstdCompressor | None = getattr(local, "compressor", None)
        if compressor is None:
            compressor = local.compressor = zstandard.ZstdCompressor(level=level)
        return compressor.compress(data)

    return compress


def _unzstd(data: Data, limit: int) -> bytes:
    try:
        # The frame's own claim first: it decides how much memory is taken.
        size = zstandard.frame_content_size(data)
        if size > limit:
            raise CodecError("wrong length")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=limit)
    except zstandard.ZstdError as error:
        raise CodecError(str(error)) from error


@functools.cache
def _library(name: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise SquashfsError(
            f"the library {name} is not installed", cure="Install squashfs-tools, which needs it."
        ) from error


def _const(data: Data) -> ctypes.c_char_p:
    return ctypes.c_char_p(data if isinstance(data, bytes) else bytes(data))


def _lz4_compress(data: Data) -> bytes:
    library = _library("liblz4.so.1")
    out = ctypes.create_string_buffer(library.LZ4_compressBound(len(data)))
    size = library.LZ4_compress_default(_const(data), out, len(data), len(out))
    if size <= 0:
        raise SquashfsError("lz4 could not compress a block")
    return out.raw[:size]


def _unlz4(data: Data, limit: int) -> bytes:
    out = ctypes.create_string_buffer(limit)
    size = _library("liblz4.so.1").LZ4_decompress_safe(_const(data), out, len(data), limit)
    if size < 0:
        raise CodecError("bad lz4 data")
    return out.raw[:size]


_LZO_WORK = 14 * 16384 * 2  # LZO1X_999_MEM_COMPRESS (lzo1x.h)


def _lzo_compress(data: Data, level: int) -> bytes:
    out = ctypes.create_string_buffer(len(data) + len(data) // 16 + 64 + 3)
    size = ctypes.c_size_t(len(out))
    failed = _library("liblzo2.so.2").lzo1x_999_compress_level(
        _const(data),
        ctypes.c_size_t(len(data)),
        out,
        ctypes.byref(size),
        ctypes.create_string_buffer(_LZO_WORK),
        None,
        ctypes.c_size_t(0),
        None,
        level,
    )
    if failed:
        raise SquashfsError("lzo could not compress a block")
    return out.raw[: size.value]


def _unlzo(data: Data, limit: int) -> bytes:
    out = ctypes.create_string_buffer(limit)
    size = ctypes.c_size_t(limit)
    failed = _library("liblzo2.so.2").lzo1x_decompress_safe(
        _const(data), ctypes.c_size_t(len(data)), out, ctypes.byref(size), None
    )
    if failed:
        raise CodecError("bad lzo data")
    return out.raw[: size.value]

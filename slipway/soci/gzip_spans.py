"""Where a gzip stream can be entered: ends of blocks, with the window of plain bytes before each.

Python's zlib module does not say where a block ends, so the library itself is asked (zlib.h,
Z_BLOCK). Where soci puts its checkpoints: awslabs/soci-snapshotter:ztoc/compression/gzip_zinfo.c.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from slipway.core import SlipwayError
from slipway.squashfs import LayerError

SPAN = 4 << 20
"""Plain bytes between two checkpoints, at least: soci's own default."""

WINDOW = 32768
_PIECE = 1 << 20
_OK, _STREAM_END, _BUFFER_ERROR = 0, 1, -5
_BLOCK = 5  # Z_BLOCK: come back at the end of each block
_GZIP = 31  # the largest window, in gzip's wrapping
_AT_END_OF_BLOCK, _LAST_BLOCK, _BITS = 128, 64, 7  # of data_type


@dataclass(frozen=True)
class Checkpoint:
    """The beginning of a block. `bits` of the byte before `compressed_offset` belong to it."""

    compressed_offset: int
    offset: int
    bits: int
    window: bytes


class _Stream(ctypes.Structure):
    """`z_stream` of zlib.h."""

    _fields_ = (
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint),
        ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint),
        ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_ulong),
        ("reserved", ctypes.c_ulong),
    )


@functools.cache
def _zlib() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libz.so.1")
    except OSError as error:
        raise SlipwayError(
            "the library libz.so.1 is not installed",
            cure="Install zlib1g (Debian) or zlib: an index of a base's layers needs it.",
        ) from error


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
        self._stream = _Stream()
        self._out = ctypes.create_string_buffer(_PIECE)
        self._piece = b""
        self._start = 0  # of the piece, in the blob
        self._last_byte = b""  # before the piece
        self._given = 0  # plain bytes that `plain` has given
        self._tail = b""  # their last ones
        self._hasher = hashlib.sha256()
        self._hashed = 0  # where the hasher is, in the blob

    def plain(self) -> Iterator[bytes]:
        """The content in pieces. Raises LayerError where the data is damaged."""
        library, stream = _zlib(), ctypes.byref(self._stream)
        version = ctypes.c_char_p(b"1.2.11")
        if library.inflateInit2_(stream, _GZIP, version, ctypes.sizeof(_Stream)) != _OK:
            raise SlipwayError("zlib does not start")
        self._reset_output()
        inside = True
        try:
            for piece in self._pieces:
                if not piece:
                    continue
                self._piece = piece
                self._stream.next_in = ctypes.cast(ctypes.c_char_p(piece), ctypes.c_void_p).value
                self._stream.avail_in = len(piece)
                while self._stream.avail_in or not self._stream.avail_out:
                    if not self._stream.avail_out:
                        yield self._flush()
                    if not inside:
                        if self._at_padding():
                            continue
                        library.inflateReset(stream)
                        inside = True
                    status = library.inflate(stream, _BLOCK)
                    if status not in (_OK, _STREAM_END, _BUFFER_ERROR):
                        text = (self._stream.msg or b"").decode("ascii", "replace")
                        raise LayerError(f"the layer's gzip data is damaged: {text}")
                    inside = status != _STREAM_END
                    if inside:
                        self._consider()
                    if status == _BUFFER_ERROR and self._stream.avail_out:
                        break
                self._end_piece()
            if inside:
                raise LayerError("the layer's gzip data ends in the middle")
            yield self._flush()
            self.digests.append(f"sha256:{self._hasher.hexdigest()}")
        finally:
            library.inflateEnd(stream)

    def _at_padding(self) -> bool:
        """Pass over one byte of zeros that some programs leave after the last member."""
        if not self._stream.avail_in or self._piece[self._consumed() - self._start]:
            return False
        self._stream.next_in += 1
        self._stream.avail_in -= 1
        return True

    def _consumed(self) -> int:
        return self._start + len(self._piece) - int(self._stream.avail_in)

    def _reset_output(self) -> None:
        self._stream.next_out = ctypes.addressof(self._out)
        self._stream.avail_out = _PIECE

    def _flush(self) -> bytes:
        used = _PIECE - int(self._stream.avail_out)
        data = ctypes.string_at(self._out, used)
        self._tail = (self._tail + data[-WINDOW:])[-WINDOW:]
        self._given += used
        self._reset_output()
        return data

    def _consider(self) -> None:
        """A checkpoint where a block begins and the last one is far enough away."""
        kind = int(self._stream.data_type)
        if not kind & _AT_END_OF_BLOCK or kind & _LAST_BLOCK:
            return
        used = _PIECE - int(self._stream.avail_out)
        offset, bits, at = self._given + used, kind & _BITS, self._consumed()
        if self.checkpoints and offset - self.checkpoints[-1].offset <= self.span:
            return
        recent = ctypes.string_at(
            ctypes.addressof(self._out) + max(0, used - WINDOW), min(used, WINDOW)
        )
        window = (self._tail + recent)[-WINDOW:].rjust(WINDOW, b"\0")
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

"""zlib-ng's inflate with what its Python module does not tell: where a block of deflate ends.

It is asked of the library itself (zlib-ng.h, Z_BLOCK), which lies inside of that module: a deflate
stream can be entered, and another one begun, only where a block does (RFC 1951, 3.2.3).
"""

from __future__ import annotations

import ctypes
import functools

from zlib_ng import zlib_ng

from slipway.core import SlipwayError

RAW, GZIP = -15, 31
"""The largest window, without wrapping and in gzip's."""

_PIECE = 64 << 10  # small: one is made, zeroed and paged in for each file
_OK, _STREAM_END, _BUFFER_ERROR = 0, 1, -5
_BLOCK = 5  # Z_BLOCK: come back at the end of each block
_AT_END_OF_BLOCK, _LAST_BLOCK, _BITS = 128, 64, 7  # of data_type


class DeflateError(Exception):
    """The data are no deflate stream. The text is zlib-ng's."""


class _Stream(ctypes.Structure):
    """`zng_stream` of zlib-ng.h."""

    _fields_ = (
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint32),
        ("total_in", ctypes.c_size_t),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint32),
        ("total_out", ctypes.c_size_t),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_uint32),
        ("reserved", ctypes.c_ulong),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    # Its wheels for Linux and macOS show the library's own functions; a test holds that of ours.
    return ctypes.CDLL(zlib_ng.__file__)


class BlockInflater:
    """Deflate data given piece by piece; `step` stops at each end of a block."""

    def __init__(self, window_bits: int) -> None:
        self._library, self._stream = _library(), _Stream()
        self._reference = ctypes.byref(self._stream)
        self._out = ctypes.create_string_buffer(_PIECE)
        self._piece = b""
        if self._library.zng_inflateInit2(self._reference, window_bits) != _OK:
            raise SlipwayError("zlib-ng does not start: no memory")
        self._empty_output()
        self.ended = False
        """Whether the stream has ended: all of it, its last block and its wrapping's end."""

    def __enter__(self) -> BlockInflater:
        return self

    def __exit__(self, *error: object) -> None:
        self._library.zng_inflateEnd(self._reference)

    def give(self, piece: bytes) -> None:
        """The next data; those given before must be used up."""
        self._piece = piece  # kept: zlib-ng reads where it lies
        self._stream.next_in = ctypes.cast(ctypes.c_char_p(piece), ctypes.c_void_p).value
        self._stream.avail_in = len(piece)

    def step(self) -> bool:
        """On to the end of a block, of the stream, of the data given or of the room for output.

        False where nothing more can be done with the data given. Raises DeflateError.
        """
        status = self._library.zng_inflate(self._reference, _BLOCK)
        if status not in (_OK, _STREAM_END, _BUFFER_ERROR):
            raise DeflateError((self._stream.msg or b"").decode("ascii", "replace"))
        self.ended = status == _STREAM_END
        return bool(status != _BUFFER_ERROR or not self._stream.avail_out)

    def restart(self) -> None:
        """Begin another stream behind one that has ended."""
        self._library.zng_inflateReset(self._reference)
        self.ended = False

    def skip(self) -> None:
        """Pass over one byte of what was given."""
        self._stream.next_in += 1
        self._stream.avail_in -= 1

    @property
    def left(self) -> int:
        """Bytes of the piece that are not used up."""
        return int(self._stream.avail_in)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for output: `take` makes it."""
        return not self._stream.avail_out

    @property
    def output_size(self) -> int:
        """Plain bytes that wait to be taken."""
        return _PIECE - int(self._stream.avail_out)

    def output_end(self, most: int) -> bytes:
        """The last plain bytes that wait to be taken."""
        size = min(self.output_size, most)
        return ctypes.string_at(ctypes.addressof(self._out) + self.output_size - size, size)

    def take(self) -> bytes:
        """The plain bytes so far."""
        data = ctypes.string_at(self._out, self.output_size)
        self._empty_output()
        return data

    @property
    def at_end_of_block(self) -> bool:
        """Whether the last step ended with a block."""
        return bool(self._stream.data_type & _AT_END_OF_BLOCK)

    @property
    def in_last_block(self) -> bool:
        """Whether the block that was read last is the stream's last."""
        return bool(self._stream.data_type & _LAST_BLOCK)

    @property
    def unused_bits(self) -> int:
        """At an end of a block: how many bits of the last byte used do not belong to it."""
        return int(self._stream.data_type) & _BITS

    def _empty_output(self) -> None:
        self._stream.next_out = ctypes.addressof(self._out)
        self._stream.avail_out = _PIECE

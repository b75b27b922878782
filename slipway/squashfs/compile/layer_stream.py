"""A layer's bytes on their way: fetched, decompressed and hashed by a thread, read by another."""

from __future__ import annotations

import bz2
import hashlib
import lzma
import queue
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import IO, cast

import zstandard

from slipway.squashfs.format import LayerError

_PIECE = 1 << 20
_AHEAD = 16  # pieces between the threads
_WINDOW_ERROR = "requires too much memory"  # what zstd calls it (lib/common/error_private.c)


def decompressed_stream(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A layer blob as its plain tar: gzip, zstd, xz, bzip2 or plain, told by its first bytes.

    However much a few bytes unpack to, it comes in pieces of at most a mebibyte, or as the plain
    blob came: what somebody else packed decides no memory of ours. Raises LayerError.
    """
    source = iter(pieces)
    head = b""
    while len(head) < 6 and (piece := next(source, None)) is not None:
        head += piece
    if head[:2] == b"\x1f\x8b":
        yield from _gunzip(head, source)
    elif head[:4] == b"\x28\xb5\x2f\xfd" or _is_skippable_frame(head):
        yield from _unzstd(head, source)
    elif head[:6] == b"\xfd7zXZ\0":
        yield from _unpack_members("xz", lzma.LZMADecompressor, head, source)
    elif head[:3] == b"BZh":
        yield from _unpack_members("bzip2", bz2.BZ2Decompressor, head, source)
    else:
        yield head
        yield from source


def _is_skippable_frame(head: bytes) -> bool:
    """Whether zstd data begins with a frame that holds no data (zstd:chunked, pzstd)."""
    return len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50


def _gunzip(head: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    """Parallel compressors and eStargz write several members one after the other."""
    stream = zlib.decompressobj(31)
    inside = True  # a member has begun and has not ended
    data: bytes | None = head
    try:
        while data is not None:
            while data:
                if not inside:
                    data = data.lstrip(b"\0")  # padding after the last member, as gzip takes it
                    if not data:
                        break
                    stream, inside = zlib.decompressobj(31), True
                yield stream.decompress(data, _PIECE)
                data = stream.unconsumed_tail
                if stream.eof:
                    data, inside = stream.unused_data, False
            while inside and (piece := stream.decompress(b"", _PIECE)):
                yield piece
            data = next(source, None)
    except zlib.error as error:
        raise LayerError(f"the layer's gzip data is damaged: {error}") from error
    if inside:
        raise LayerError("the layer's gzip data ends in the middle")


class _PieceReader:
    """Pieces as a file to read from."""

    def __init__(self, head: bytes, source: Iterator[bytes]) -> None:
        self._rest = memoryview(head)
        self._source = source

    def read(self, size: int = -1) -> bytes:
        """Some bytes, none at the end."""
        while not self._rest:
            piece = next(self._source, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        count = len(self._rest) if size < 0 else size
        piece, self._rest = bytes(self._rest[:count]), self._rest[count:]
        return piece


def _unzstd(head: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor().stream_reader(
        cast("IO[bytes]", _PieceReader(head, source)), read_across_frames=True
    )
    try:
        while piece := reader.read(_PIECE):
            yield piece
    except zstandard.ZstdError as error:
        if _WINDOW_ERROR in str(error):
            raise LayerError(
                "the layer's zstd data asks for a window of more than 128 MiB, which enroot and"
                " zstd without options do not take either",
                cure="Compress it with a smaller window: zstd calls 128 MiB long=27.",
            ) from error
        raise LayerError(f"the layer's zstd data is damaged: {error}") from error


def _unpack_members(
    name: str,
    begin: Callable[[], lzma.LZMADecompressor] | Callable[[], bz2.BZ2Decompressor],
    head: bytes,
    source: Iterator[bytes],
) -> Iterator[bytes]:
    """xz and bzip2: what docker took for layers before gzip was the rule."""
    stream = begin()
    data: bytes | None = head
    try:
        while data is not None:
            if stream.eof and data:
                stream = begin()
            while True:
                yield stream.decompress(data, _PIECE)
                data = b""
                if stream.eof:
                    data = stream.unused_data
                    if not data:
                        break
                    stream = begin()
                elif stream.needs_input:
                    break
            data = next(source, None)
    except (lzma.LZMAError, OSError, ValueError) as error:
        raise LayerError(f"the layer's {name} data is damaged: {error}") from error
    if not stream.eof:
        raise LayerError(f"the layer's {name} data ends in the middle")


class ReadAhead:
    """Exact reads from pieces that another thread fetches. A context manager.

    `hashed` False is for who needs no digest of what is read: hashing is most of the work then.
    """

    def __init__(
        self,
        pieces: Iterable[bytes],
        on_bytes: Callable[[int], None] = lambda _: None,
        *,
        hashed: bool = True,
    ) -> None:
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
        self._pieces = pieces
        self._on_bytes = on_bytes
        self._stop, self._hashed = False, hashed
        self._rest = memoryview(b"")
        self._hasher = hashlib.sha256()
        self._thread = threading.Thread(target=self._fetch, daemon=True)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop = True
        while self._thread.is_alive():
            try:  # the thread may wait for room
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def _fetch(self) -> None:
        try:
            for piece in self._pieces:
                if self._stop:
                    return
                if piece:
                    if self._hashed:
                        self._hasher.update(piece)
                    self._queue.put(piece)
            self._queue.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that reads
            self._queue.put(error)

    def at_end(self) -> bool:
        """Whether nothing is left to read."""
        if not self._rest:
            item = self._queue.get()
            if item is None:
                self._queue.put(None)
                return True
            if isinstance(item, BaseException):
                raise item
            self._on_bytes(len(item))
            self._rest = memoryview(item)
        return False

    def _piece(self, limit: int) -> memoryview:
        if self.at_end():
            raise LayerError("the layer's archive ends in the middle")
        piece, self._rest = self._rest[:limit], self._rest[limit:]
        return piece

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        if not size:
            return b""
        piece = self._piece(size)
        if len(piece) == size:
            return bytes(piece)
        out = bytearray(piece)
        while len(out) < size:
            out += self._piece(size - len(out))
        return bytes(out)

    def skip(self, size: int) -> None:
        """Pass over `size` bytes."""
        while size:
            size -= len(self._piece(size))

    def skip_padding(self, size: int) -> None:
        """Pass over `size` bytes, or over what is left of the stream."""
        while size and not self.at_end():
            size -= len(self._piece(size))

    def drain(self) -> str:
        """Read to the end; the sha256 of all that was hashed, in hex."""
        self._rest = memoryview(b"")
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            self._on_bytes(len(item))
        self._queue.put(None)
        return self._hasher.hexdigest()


def check_content(wanted: str, digest: str) -> None:
    """Raise LayerError where the content that was read is not that of the layer."""
    if digest != wanted:
        raise LayerError(
            f"the layer's content has digest {digest}, not {wanted}",
            cure="The image is damaged or was tampered with: pull or build it again.",
        )


class HeaderStream:
    """Exact reads from an archive whose contents are left out: numbers stand for their bytes."""

    def __init__(self, pieces: Iterable[bytes | int]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")
        self._left_out = 0

    def at_end(self) -> bool:
        """Whether nothing is left to read."""
        while not self._rest and not self._left_out:
            piece = next(self._pieces, None)
            if piece is None:
                return True
            if isinstance(piece, int):
                self._left_out = piece
            else:
                self._rest = memoryview(piece)
        return False

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, none of them content."""
        out = bytearray()
        while len(out) < size:
            if self.at_end() or self._left_out:
                raise LayerError("the layer's archive is not kept whole")
            wanted = size - len(out)
            out += self._rest[:wanted]
            self._rest = self._rest[wanted:]
        return bytes(out)

    def skip(self, size: int) -> None:
        """Pass over `size` bytes, content or not."""
        while size:
            if self.at_end():
                raise LayerError("the layer's archive ends in the middle")
            size -= self._pass(size)

    def skip_padding(self, size: int) -> None:
        """Pass over `size` bytes, or over what is left of the stream."""
        while size and not self.at_end():
            size -= self._pass(size)

    def _pass(self, most: int) -> int:
        if self._left_out:
            count = min(most, self._left_out)
            self._left_out -= count
        else:
            count = min(most, len(self._rest))
            self._rest = self._rest[count:]
        return count

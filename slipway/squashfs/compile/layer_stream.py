"""A layer's bytes on their way: fetched, decompressed and hashed by a thread, read by another."""

from __future__ import annotations

import hashlib
import queue
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

import zstandard

from slipway.squashfs.format import LayerError

_PIECE = 1 << 20
_AHEAD = 16  # pieces between the threads


def decompressed_stream(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A layer blob as its plain tar: gzip, zstd or plain, told by its first bytes."""
    source = iter(pieces)
    head = b""
    while len(head) < 4 and (piece := next(source, None)) is not None:
        head += piece
    if head[:2] == b"\x1f\x8b":
        yield from _gunzip(head, source)
    elif head[:4] == b"\x28\xb5\x2f\xfd":
        yield from _unzstd(head, source)
    else:
        yield head
        yield from source


def _gunzip(head: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    """Parallel compressors and eStargz write several members one after the other."""
    stream = zlib.decompressobj(31)
    begun = True
    data: bytes | None = head
    try:
        while data is not None:
            while data:
                if not begun:
                    stream, begun = zlib.decompressobj(31), True
                yield stream.decompress(data, _PIECE)
                data = stream.unconsumed_tail
                if stream.eof:
                    data, begun = stream.unused_data, False
            data = next(source, None)
    except zlib.error as error:
        raise LayerError(f"the layer's gzip data is damaged: {error}") from error
    if begun:
        raise LayerError("the layer's gzip data ends in the middle")


def _unzstd(head: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    stream = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
    data: bytes | None = head
    try:
        while data is not None:
            yield stream.decompress(data)
            data = next(source, None)
    except zstandard.ZstdError as error:
        raise LayerError(f"the layer's zstd data is damaged: {error}") from error


class ReadAhead:
    """Exact reads from pieces that another thread fetches. A context manager.

    `sha256` is that of everything, once `drain` has been called.
    """

    def __init__(self, pieces: Iterable[bytes], on_bytes: Callable[[int], None]) -> None:
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD)
        self._pieces = pieces
        self._on_bytes = on_bytes
        self._stop = False
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
                    self._hasher.update(piece)
                    self._queue.put(piece)
            self._queue.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that reads
            self._queue.put(error)

    def _piece(self, limit: int) -> memoryview:
        if not self._rest:
            item = self._queue.get()
            if item is None:
                self._queue.put(None)
                raise LayerError("the layer's archive ends in the middle")
            if isinstance(item, BaseException):
                raise item
            self._on_bytes(len(item))
            self._rest = memoryview(item)
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

    def drain(self) -> str:
        """Read to the end; the sha256 of the whole stream, in hex."""
        self._rest = memoryview(b"")
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            self._on_bytes(len(item))
        self._queue.put(None)
        return self._hasher.hexdigest()

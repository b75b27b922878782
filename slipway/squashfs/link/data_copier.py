"""Copying the data of an image: shared or copied by the kernel where it can."""

from __future__ import annotations

import errno
import hashlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path

from slipway.core import Piece, cut_pieces
from slipway.squashfs.format import CacheError
from slipway.squashfs.link import data_copier
from slipway.squashfs.link.data_layout import DataCopy, DataLayout

_PIECE = 8 << 20
_READ = 1 << 20
_UNSUPPORTED = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


def write_at(handle: int, data: bytes, position: int) -> None:
    """All of `data`, whatever a single write takes."""
    view = memoryview(data)
    while view:
        count = os.pwrite(handle, view, position)
        view, position = view[count:], position + count


def copy_data(
    copies: Sequence[DataCopy],
    handle: int,
    on_bytes: Callable[[int], None],
) -> None:
    """Do `copies`, which are in the order of their destinations; `on_bytes` gets how far it is."""
    opened: tuple[Path, int] | None = None
    try:
        for copy in copies:
            if isinstance(copy.source, bytes):
                write_at(handle, copy.source[copy.start : copy.start + copy.size], copy.to)
                continue
            if opened is None or opened[0] != copy.source:
                if opened is not None:
                    before, opened = opened[1], None  # an interrupt must not close it twice
                    os.close(before)
                opened = copy.source, os.open(copy.source, os.O_RDONLY | os.O_CLOEXEC)
            done = 0
            while done < copy.size:
                size = min(copy.size - done, 4 * _PIECE)
                count = _copy(opened[1], handle, size, copy.start + done, copy.to + done)
                if not count:
                    raise _shorter(copy.source)
                done += count
                on_bytes(copy.to + done)
    finally:
        if opened is not None:
            os.close(opened[1])


def read_piece(copy: DataCopy, first: int, size: int) -> Iterator[bytes | memoryview]:
    """`size` bytes of what is to be copied, from its `first` on. Raises CacheError and OSError."""
    if isinstance(copy.source, bytes):
        yield memoryview(copy.source)[copy.start + first : copy.start + first + size]
        return
    handle = os.open(copy.source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        view = memoryview(bytearray(min(_READ, size)))
        done = 0
        while done < size:
            count = os.preadv(handle, [view[: size - done]], copy.start + first + done)
            if not count:
                raise _shorter(copy.source)
            yield view[:count]
            done += count
    finally:
        os.close(handle)


def _shorter(source: Path) -> CacheError:
    return CacheError(
        "a compiled layer became shorter while it was linked",
        where=str(source),
        cure="Run this again: the layer will be compiled anew.",
    )


def _copy(source: int, target: int, size: int, start: int, to: int) -> int:
    """Some of the bytes. copy_file_range shares blocks on btrfs and xfs."""
    try:
        return os.copy_file_range(source, target, size, start, to)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    data = os.pread(source, min(size, _PIECE), start)
    write_at(target, data, to)
    return len(data)


class DataPieces:
    """The pieces from `start` to the end of `layout`: hashing begins at once, in the `background`.

    What has to be hashed is read from where it comes from: so a copy that went wrong differs from
    its digest, and where the file system shares blocks, the sources are in memory and the image is
    not.
    """

    def __init__(self, layout: DataLayout, start: int, background: Executor) -> None:
        self._copies = layout.copies
        self._found: list[Piece | tuple[int, int, Future[Piece]]] = []
        position = start
        for span in layout.spans:
            self._hash(position, span.start, background)
            self._found.append(span.piece)
            position = span.start + span.piece.size
        self._hash(position, layout.end, background)

    def _hash(self, start: int, end: int, background: Executor) -> None:
        for first, last in cut_pieces(start, end):
            task = background.submit(_made, self._copies, first, last)
            self._found.append((first, last, task))

    def finish(self) -> Iterator[Piece]:
        """All pieces in order. What nobody has begun is hashed here.

        Raises CacheError and OSError.
        """
        for entry in self._found:
            if isinstance(entry, Piece):
                yield entry
                continue
            start, end, task = entry
            yield _made(self._copies, start, end) if task.cancel() else task.result()


def _made(copies: Sequence[DataCopy], start: int, end: int) -> Piece:
    """What `copies` make from `start` to `end`."""
    hasher = hashlib.sha256()
    position = start
    at = max(0, bisect_right(copies, start, key=lambda copy: copy.to) - 1)
    while at < len(copies) and copies[at].to < end:
        copy = copies[at]
        first, last = max(copy.to, start), min(copy.to + copy.size, end)
        if first < last:
            # Part of a page in between: see slipway.squashfs.link.data_layout.
            hasher.update(bytes(first - position))
            for data in data_copier.read_piece(copy, first - copy.to, last - first):
                hasher.update(data)
            position = last
        at += 1
    hasher.update(bytes(end - position))
    return Piece(end - start, hasher.hexdigest())

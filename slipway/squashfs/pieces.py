"""An image's content as pieces with their digests: a damaged copy is found, and where it is.

A part of a layer was hashed when it was compiled; where an image has it as a whole, that digest
still holds, so that what was copied is checked against what was compiled. What is new, or only
partly there, is hashed once it is written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from slipway.squashfs import copying
from slipway.squashfs.layout import Copy, Span

_BUFFER = 1 << 20


@dataclass(frozen=True)
class Piece:
    """So many bytes, and their sha256; a file is its pieces in order."""

    size: int
    sha256: str


def digest(pieces: Sequence[Piece]) -> str:
    """One digest for all: the sha256 of their lines `SIZE SHA256`."""
    text = "".join(f"{piece.size} {piece.sha256}\n" for piece in pieces)
    return hashlib.sha256(text.encode()).hexdigest()


def digests(
    copies: Sequence[Copy], spans: Sequence[Span], size: int, background: Executor
) -> tuple[list[Piece], str]:
    """The pieces of an image of `size` bytes that `copies` make, and the sha256 of all of it.

    Read from where the bytes come from, beside the copying: what a copy got wrong differs from its
    digest, and where the file system shares blocks, the sources are in memory and the image is not.
    What has to be hashed for a second time, as a piece, is hashed in the `background`. Raises
    CacheError and OSError.
    """
    pieces: list[Piece | Future[Piece]] = []
    position = 0

    def add(end: int, sha256: str | None) -> None:
        nonlocal position
        if sha256 is not None:
            pieces.append(Piece(end - position, sha256))
        elif end > position:
            pieces.append(background.submit(_made, copies, position, end))
        position = end

    for span in spans:
        add(span.start, None)
        add(span.end, span.sha256)
    add(size, None)
    whole = _made(copies, 0, size)
    return [
        piece.result() if isinstance(piece, Future) else piece for piece in pieces
    ], whole.sha256


def _made(copies: Sequence[Copy], start: int, end: int) -> Piece:
    """What `copies`, in the order of their destinations, make from `start` to `end`."""
    hasher = hashlib.sha256()
    position = start
    for copy in copies:
        first, last = max(copy.to, start), min(copy.to + copy.size, end)
        if first >= last:
            continue
        hasher.update(bytes(first - position))  # part of a page: see slipway.squashfs.layout
        for data in copying.read(copy, first - copy.to, last - first):
            hasher.update(data)
        position = last
    hasher.update(bytes(end - position))
    return Piece(end - start, hasher.hexdigest())


def differing(path: Path, pieces: Sequence[Piece]) -> tuple[int, int] | None:
    """Start and end of the first piece that a file does not have as it should; None if it has all.

    Raises OSError.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        position = 0
        for piece in pieces:
            if _hash(handle, position, position + piece.size) != piece:
                return position, position + piece.size
            position += piece.size
        return None if os.fstat(handle).st_size == position else (position, position)
    finally:
        os.close(handle)


def _hash(handle: int, start: int, end: int) -> Piece:
    """From `start` to `end`, or to the end of the file."""
    hasher = hashlib.sha256()
    view = memoryview(bytearray(min(_BUFFER, end - start)))
    position = start
    while position < end:
        count = os.preadv(handle, [view[: end - position]], position)
        if not count:
            break
        hasher.update(view[:count])
        position += count
    return Piece(position - start, hasher.hexdigest())
